"""What W&B is told of a run: which one it is, and how it ended."""

import random
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, WORDS, write_data
from tests.record.test_wandb import contents_of, summary_of
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.launch import launch
from truesweep.jobs.mirrors import wandb_id
from truesweep.jobs.plan import plan
from truesweep.record.frozen import freeze

SMALLEST = [*SMALL, "model.depth=1", "logger=wandb", "optimizer=adamw", "scheduler=constant"]


def make_run(folder: Path, *overrides: str) -> RunDirectory:
    """A run's directory; the current folder must be `folder`."""
    job = plan([*SMALLEST, *overrides])
    return RunDirectory.create(
        folder / "run", config=freeze(job.config), overrides=[], provenance={}
    )


def empty_run(path: Path) -> RunDirectory:
    return RunDirectory.create(path, config="seed: 0", overrides=[], provenance={})


def test_the_same_configuration_trained_anew_is_another_run(tmp_path: Path) -> None:
    one, other = (empty_run(tmp_path / name) for name in ("one", "other"))
    assert wandb_id(one) != wandb_id(other)
    assert wandb_id(one).startswith(one.identity[:16])
    one.metrics.touch()
    assert wandb_id(one) == wandb_id(RunDirectory.open(one.path))


def test_a_run_from_before_ids_were_kept_goes_on_as_it_began(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "run")
    run.metrics.touch()
    assert wandb_id(run) == run.identity[:16]


def test_an_agents_run_is_the_one_that_the_agent_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = empty_run(tmp_path / "run")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.setenv("WANDB_SWEEP_ID", "1")
    assert wandb_id(run) == "given"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert wandb_id(run) == "given"


def test_a_run_that_cannot_be_built_says_so(workplace: Path) -> None:
    run = make_run(workplace, *write_data(workplace)["lm"])
    (workplace / "text.txt").unlink()
    assert launch(run) == 1
    found = summary_of(run.path)
    assert (found["exit_code"], found["tags"][-1]) == (1, "failed")
    assert "text.txt" in found["summary"]["error"]
    (alert,) = contents_of(run.path, "alert")
    assert (alert["title"], alert["level"]) == ("Failed", "ERROR")
    assert "text.txt" in alert["text"]


def test_an_overfitted_run_is_told_of(workplace: Path) -> None:
    rng = random.Random(0)
    for name, words in {"train": 250, "val": 150, "test": 150}.items():
        (workplace / f"{name}.txt").write_text(" ".join(rng.choices(WORDS, k=words)) + "\n")
    data = [f"data.{name}={name}.txt" for name in ("train", "val", "test")]
    length = ["trainer.max_steps=120", "trainer.val_check_interval=10"]
    asked = ["data=files", *data, *length, "model.width=64", "optimizer.lr=0.01"]
    run = make_run(workplace, *asked)
    assert launch(run) == 0
    assert run.read_results()["verdict"]["kind"] == "overfitting"
    (alert,) = contents_of(run.path, "alert")
    assert (alert["title"], alert["level"]) == ("Overfitting", "WARN")
    assert "step" in alert["text"]
