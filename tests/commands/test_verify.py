"""`truesweep verify`: what it proves, and that it can fail to."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import SMALL, truesweep, typed
from tests.damage import call
from truesweep.commands.train import create_run
from truesweep.jobs import verify
from truesweep.jobs.plan import plan
from truesweep.record.files import dump_json
from truesweep.runs.run import Run

pytestmark = pytest.mark.slow

NOISE = '''
import os

import pytorch_lightning as pl
import torch


class Noise(pl.Callback):
    """Something that no seed governs."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        with torch.no_grad():
            next(module.model.parameters()).add_(1e-3 * os.urandom(1)[0])
'''


WARM_UP = ["scheduler=linear", "scheduler.warmup=100", "trainer.max_steps=200"]


def trained(data: dict[str, list[str]], workplace: Path, *overrides: str) -> Path:
    asked = [*data["lm"], *SMALL, "optimizer=adamw", "name=x", *overrides]
    done = truesweep("train", *asked, cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/x").iterdir()
    return run


def test_a_run_is_proved_to_depend_on_its_configuration_alone(
    data: dict[str, list[str]], workplace: Path
) -> None:
    run = trained(data, workplace, "model.dropout=0")
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    done = typed("verify", str(run), "--steps", "4", cwd=workplace)
    assert done.code == 0, done.out + done.err
    verdicts = [line for line in done.out.splitlines() if "identical" in line or "equal" in line]
    assert [line.split("│")[1].strip() for line in verdicts] == [
        "trained again",
        "stopped after 2 steps and resumed",
        "in micro-batches of 2",
        "with 2 workers",
        "on 2 devices",
    ]
    assert ["identical" in line for line in verdicts] == [True, True, False, True, False]
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_data_that_have_changed_since_the_run_are_said(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(data, workplace)
    monkeypatch.setattr(verify, "_ways", lambda config, steps: iter([("", {}, [steps], "")]))
    file = workplace / "text.txt"
    for said in ("", f"{file.name}): the data have changed since {run.name} began"):
        met = call("verify", str(run), "--steps", "2", "--json")
        assert met.how == "done", met.said
        assert said in " ".join(met.err.split())
        assert ("Warning" in met.err) == bool(said)
        assert bool(json.loads(met.out)["changed_data"]) == bool(said)
        file.write_text(f"{file.read_text()}and something else\n")


def test_what_no_seed_governs_is_found(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "noise.py").write_text(NOISE)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    run = trained(
        data, workplace, "allowed_packages=[noise]", "callbacks.noise._target_=noise.Noise"
    )
    done = truesweep("verify", str(run), "--steps", "2", cwd=workplace)
    assert done.code == 1
    assert done.out.count("differs") == 5


@pytest.mark.parametrize(
    ("task", "verdict"),
    [
        ("truesweep.tasks.Translation", "equal to rounding"),
        ("tests.commands.averaging.Averaging", "differs"),
    ],
)
def test_micro_batches_that_count_alike_are_found_in_warm_up(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    verdict: str,
) -> None:
    """Weights hardly move there, so that hardly anything seems to differ."""
    ways = verify._ways

    def micro_batches(config: dict[str, Any], steps: int) -> Iterator[verify.Way]:
        return (way for way in ways(config, steps) if "micro-batches" in way[0])

    monkeypatch.setattr(verify, "_ways", micro_batches)
    asked = [*data["translation"], *SMALL, *WARM_UP, "optimizer=adamw", "optimizer.lr=3e-4"]
    asked += ["model.dropout=0", f"task._target_={task}", "allowed_packages=[tests]"]
    (check,) = verify.verify(create_run(plan(asked), Path("outputs/x")), steps=3)
    assert check.verdict == verdict


def test_steps_without_a_loss_can_be_alike(workplace: Path) -> None:
    for losses, others, difference in [
        ([0.0, 2.0], [0.0, 1.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([math.nan, 2.0], [math.nan, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.nan, 0.0], [1.0, 0.0], math.inf),
    ]:
        runs = [recorded(Path(name), rows) for name, rows in (("a", losses), ("b", others))]
        assert verify._loss_difference(*runs) == difference


def recorded(folder: Path, losses: list[float]) -> Run:
    folder.mkdir(exist_ok=True)
    rows = [dump_json({"step": i, "train/loss": loss}) for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    return Run(folder)
