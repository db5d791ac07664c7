"""A validation that is interrupted, and the one that makes up for it."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytorch_lightning as pl

from tests.commands.conftest import SMALL, data, start, truesweep, values, wait_for_rows
from truesweep.commands.train import train
from truesweep.runs.run import Run

__all__ = ["data"]

SLOW = '''
import time

import pytorch_lightning as pl


class SlowValidation(pl.Callback):
    """Takes a second for each batch of the second validation of a process, and counts them."""

    seen = 0

    def on_validation_start(self, trainer, module):
        self.seen += 1

    def on_validation_batch_end(self, trainer, module, *rest):
        if self.seen == 2:
            with open(f"validated{trainer.global_rank}", "a") as file:
                print("batch", file=file)
            time.sleep(1)
'''


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_during_a_validation_is_obeyed_at_once(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    how: signal.Signals,
) -> None:
    (workplace / "slow.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    asked = [*data["lm"], *SMALL, "data.eval_batch_size=1", f"trainer.devices={devices}"]
    slow = ["allowed_packages=[slow]", "callbacks.slow._target_=slow.SlowValidation"]
    process = start([*asked, *slow, "name=stopped"], workplace)
    run = wait_for_rows(workplace / "outputs/stopped", rows=7)
    while not (workplace / "validated0").exists():
        assert process.poll() is None
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    before = batches(workplace)
    process.send_signal(how)
    assert process.wait(60) == 143
    # Batches at work end, and one may begin before ranks have agreed; the validation has six a rank
    # and more.
    assert max(batches(workplace)) <= max(before) + 2
    assert psutil.wait_procs(family, timeout=30)[1] == []
    status = Run(run).status
    assert (status["state"], status["saved_step"]) == ("preempted", 12)
    done = truesweep("resume", str(run), cwd=workplace)
    assert done.code == 0, done.out + done.err
    done = truesweep("train", *asked, "name=whole", cwd=workplace)
    assert done.code == 0, done.out + done.err
    (whole,) = (workplace / "outputs/whole").iterdir()
    assert values(run) == values(whole)


def batches(folder: Path) -> list[int]:
    """How many batches each rank has validated slowly."""
    return [len(path.read_text().splitlines()) for path in folder.glob("validated*")]


def test_the_last_step_is_validated_whatever_the_interval(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, "trainer.val_check_interval=5", "name=x"]
    assert train(asked, [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    assert [row["step"] for row in values(run) if "val/loss" in row] == [5, 10, 12]


class StopAt(pl.Callback):
    """Ends a training after a step, as Lightning's `Timer` does at a time."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


@pytest.mark.parametrize(("step", "validated"), [(3, [3]), (6, [6]), (8, [6, 8])])
def test_a_training_that_a_callback_ends_is_validated_where_it_ends(
    data: dict[str, list[str]], workplace: Path, step: int, validated: list[int]
) -> None:
    stops = [f"callbacks.stop._target_={__name__}.StopAt", f"callbacks.stop.step={step}"]
    asked = [*data["lm"], *SMALL, *stops, "allowed_packages=[tests]", "name=x"]
    assert train(asked, [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    rows = [row for row in values(run) if "val/loss" in row]
    assert [row["step"] for row in rows] == validated
    results = Run(run).read_results()
    assert results["val/loss"] == min(row["val/loss"] for row in rows)
    assert (Run(run).status["state"], Run(run).status["saved_step"]) == ("completed", step)
