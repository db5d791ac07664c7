"""A run that goes on longer, or is carried out in another way."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.commands.conftest import SMALL, data, truesweep, values, write_data
from truesweep.commands.evaluate import evaluate
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.extend import CARRIED_OUT
from truesweep.record.rows import read
from truesweep.runs.run import Run

__all__ = ["data"]

OTHERWISE = {
    "model.activation_checkpointing": "true",
    "trainer.accelerator": "auto",
    "trainer.compile": "false",
    "trainer.devices": "2",
    "trainer.num_nodes": "2",
    "trainer.profiler": "simple",
    "trainer.strategy": "ddp",
    "trainer.threads": "2",
    "data.eval_batch_size": "3",
    "data.micro_batch_size": "3",
    "data.num_workers": "1",
    "callbacks.checkpoint.every_n_steps": "5",
    "callbacks.early_stopping.patience": "5",
}
EARLY = ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=10"]


def finished(workplace: Path, *overrides: str, name: str = "x") -> Path:
    assert train([*overrides, f"name={name}"], [], None, False) == 0
    (run,) = (workplace / "outputs" / name).iterdir()
    return run


def read_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_a_finished_run_is_made_longer_and_says_what_that_does_to_the_schedule(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, "scheduler=linear", "scheduler.warmup=0", "optimizer=adamw"]
    run = finished(workplace, *asked, "optimizer.lr=0.01")
    before = read_json(run / "results.json")
    identity = Run(run).identity
    capsys.readouterr()
    assert resume(run, ["trainer.max_steps=24"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "24 steps instead of 12" in said
    assert "from step 13 on the learning rate follows the schedule of 24 steps (0.005 there" in said
    rows = read(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, *range(2, 25, 2)]
    by_step = {row["step"]: row["lr"] for row in rows}
    assert by_step[12] == pytest.approx(0.01 * 1 / 12)
    assert by_step[14] == pytest.approx(0.01 * 11 / 24)
    assert by_step[24] == pytest.approx(0.01 * 1 / 24)
    after = read_json(run / "results.json")
    assert after["train/steps"] == 24
    assert after["val/loss"] < before["val/loss"]
    assert Run(run).status["state"] == "completed"
    (change,) = Run(run).read_provenance()["changes"]
    assert (change["overrides"], change["step"]) == (["trainer.max_steps=24"], 12)
    assert change["results"] == before
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 24
    assert Run(run).identity == identity


def test_what_would_be_another_experiment_is_refused(
    data: dict[str, list[str]], workplace: Path
) -> None:
    run = finished(workplace, *data["lm"], *SMALL)
    before = files(run)
    with pytest.raises(ConfigError, match=r"optimizer\.lr: cannot change in a run that goes on"):
        resume(run, ["optimizer.lr=1"])
    with pytest.raises(ConfigError, match="12 steps are done, and 6 are asked for"):
        resume(run, ["trainer.max_steps=6"])
    with pytest.raises(ConfigError, match=r"max_step: no such key; did you mean"):
        resume(run, ["trainer.max_step=60"])
    assert files(run) == before


def files(run: Path) -> dict[Path, bytes]:
    """What a run's directory holds."""
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """A run that trained to its end."""
    folder = tmp_path_factory.mktemp("complete")
    named = write_data(folder)["classification"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return finished(folder, *named, *SMALL, "trainer.max_steps=2")


@pytest.mark.parametrize("key", CARRIED_OUT)
def test_a_finished_run_carried_out_otherwise_stays_as_it_is(
    complete: Path, workplace: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(complete)
    assert resume(complete, [f"{key}={OTHERWISE[key]}"]) == 0
    assert files(complete) == before
    said = " ".join(capsys.readouterr().out.split())
    assert "is complete" in said
    assert "nothing to do" in said


def test_a_run_that_was_stopped_early_goes_on_with_more_patience(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, "model.depth=1", "trainer.val_check_interval=4", *EARLY]
    run = Run(finished(workplace, *asked))
    patience = "callbacks.early_stopping.patience=3"
    whole = finished(workplace, *asked, patience, name="whole")
    assert read(run.metrics)[-1]["step"] == 8
    before = files(run.path)
    assert resume(run.path, ["callbacks.early_stopping.patience=1"]) == 0
    with pytest.raises(
        ConfigError, match=r"stopped early at step 8.* larger callbacks\.early_stop"
    ):
        resume(run.path, ["trainer.max_steps=20"])
    assert files(run.path) == before
    assert resume(run.path, [patience]) == 0
    assert "training goes on from step 9" in " ".join(capsys.readouterr().out.split())
    assert run.status["state"] == "completed"
    assert values(run.path) == values(whole)
    assert run.read_results()["train/steps"] == 12


def test_a_run_that_was_stopped_early_is_made_longer_with_more_patience(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, "model.depth=1", "trainer.val_check_interval=4", *EARLY]
    run = finished(workplace, *asked)
    assert resume(run, ["trainer.max_steps=16", "callbacks.early_stopping.patience=null"]) == 0
    assert values(run)[-1]["step"] == 16
    # The checkpoint holds the state of a callback that is left out now, which is as it should be.
    assert "callbacks used to create the checkpoint" not in Run(run).log(0).read_text()


def test_a_run_without_checkpoints_that_had_some_is_not_begun_anew(
    data: dict[str, list[str]], workplace: Path
) -> None:
    run = finished(workplace, *data["lm"], *SMALL)
    Run(run).update_status(state="preempted")
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="holds no valid checkpoint to resume from"):
        resume(run)


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = finished(workplace, *data["lm"], *SMALL)
    run = Run(whole)
    rows = read(run.metrics)
    run.update_status(state="running", saved_step=None)
    for file in (*run.checkpoints.iterdir(), run.results):
        file.unlink()
    assert resume(whole) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    losses = [(row["step"], row["train/loss"]) for row in read(run.metrics)]
    assert losses == [(row["step"], row["train/loss"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_is_resumed_on_another_number_of_ranks(
    data: dict[str, list[str]], workplace: Path, first: int, then: int
) -> None:
    asked = [*data["translation"], *SMALL, "optimizer=adamw", "scheduler=constant"]
    asked += ["scheduler.warmup=0", "model.dropout=0"]
    stopped = [*asked, "trainer.max_steps=6", f"trainer.devices={first}", "name=stopped"]
    done = truesweep("train", *stopped, cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/stopped").iterdir()
    changed = ["trainer.max_steps=12", f"trainer.devices={then}"]
    done = truesweep("resume", str(run), *changed, cwd=workplace)
    assert done.code == 0, done.out + done.err
    whole = finished(workplace, *asked, name="whole")
    _compare(run, whole)


def _compare(run: Path, whole: Path) -> None:
    weights, wanted = (
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (run, whole)
    )
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-5)
    for row, other in zip(read(run / "metrics.jsonl"), read(whole / "metrics.jsonl"), strict=True):
        assert row["step"] == other["step"]
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)


@pytest.mark.parametrize("early", [False, True])
def test_a_run_that_ended_before_its_figures_gets_them(
    data: dict[str, list[str]], workplace: Path, early: bool
) -> None:
    asked = [*data["lm"], *SMALL, "trainer.val_check_interval=3", *(EARLY if early else [])]
    run = Run(finished(workplace, *asked))
    before, rows = run.read_results(), read(run.metrics)
    assert rows[-1]["step"] == (6 if early else 12)
    run.results.unlink()
    run.update_status(state="running")
    assert resume(run.path) == 0
    assert read(run.metrics) == rows
    after = run.read_results()
    assert after.keys() == before.keys()
    assert {k: v for k, v in after.items() if k != "verdict"} == pytest.approx(
        {k: v for k, v in before.items() if k != "verdict"}
    )


NOT_A_NUMBER = """
import pytorch_lightning as pl
import torch


class NotANumber(pl.Callback):
    def on_validation_start(self, trainer, module):
        with torch.no_grad():
            for weight in module.model.parameters():
                weight.fill_(float("nan"))
"""


def test_a_loss_that_is_never_a_number_is_called_divergence(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "not_a_number.py").write_text(NOT_A_NUMBER)
    monkeypatch.syspath_prepend(workplace)
    asked = [*data["lm"], *SMALL, "trainer.val_check_interval=3", "trainer.max_steps=6", "name=x"]
    asked += ["allowed_packages=[not_a_number]", "callbacks.x._target_=not_a_number.NotANumber"]
    assert train(asked, [], None, False) == 1
    (run,) = (workplace / "outputs/x").iterdir()
    assert "was not a number at any validation" in Run(run).status["error"]
    values = [row["val/loss"] for row in read(run / "metrics.jsonl") if "val/loss" in row]
    assert [math.isfinite(value) for value in values] == [False, False]


def test_a_run_with_another_logger_is_scored_and_made_longer(
    data: dict[str, list[str]], workplace: Path
) -> None:
    run = finished(workplace, *data["lm"], *SMALL, "logger=csv", "trainer.max_steps=2")
    assert evaluate([str(run)], "test", "best", []) == 0
    assert resume(run, ["trainer.max_steps=3"]) == 0
