"""The step is the same however it is split; what is not finite is refused."""

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands.conftest import SMALL, write_data
from tests.rounding import FP64, assert_same_training
from truesweep.callbacks import StopAfter
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import checked
from truesweep.metrics import likelihood
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.tasks import DivergedError

pytestmark = pytest.mark.numbers

SGD = ["optimizer=sgd", "optimizer.lr=0.3", "scheduler=constant", "scheduler.warmup=0"]
SGD += ["trainer.max_steps=5", "trainer.val_check_interval=100", "data.batch_size=64"]


def fit(parts: Parts, folder: Path) -> dict[str, torch.Tensor]:
    """Weights after a training without display and records."""
    trainer = parts.trainer.make(
        callbacks=[StopAfter(parts.recipe.total_steps)],
        loggers=[],
        checkpoint_io=CheckpointFiles(),
        directory=tempfile.mkdtemp(dir=folder),
    )
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    return {k: v.clone() for k, v in parts.task.state_dict().items()}


def parts_of(task: str, folder: Path, *overrides: str) -> Parts:
    named = write_data(folder)[task]
    config, _ = checked([*named, *SMALL, *SGD, *overrides])
    return build(config)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lm", "translation", "classification"])
def test_micro_batches_do_not_change_the_result(task: str, workplace: Path) -> None:
    asked = [FP64, "data.packing=false"]  # lengths differ
    whole = fit(parts_of(task, workplace, *asked, "data.micro_batch_size=64"), workplace)
    for size in (16, 7, 1):
        parts = parts_of(task, workplace, *asked, f"data.micro_batch_size={size}")
        assert_same_training(fit(parts, workplace), whole)


@pytest.mark.parametrize("task", ["lm", "translation"])
def test_a_loss_through_the_output_layer_does_not_change_the_result(
    task: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [FP64, "data.packing=false", "model.dropout=0.1", "task.label_smoothing=0.1"]
    whole = fit(parts_of(task, workplace, *asked), workplace)
    monkeypatch.setattr(likelihood, "CPU_BLOCK", 1)
    parts = parts_of(task, workplace, *asked)
    assert_same_training(fit(parts, workplace), whole)
    assert parts.task.output_layer(next(iter(parts.data.train_dataloader()))) is not None


def test_the_loss_of_a_step_is_the_mean_over_all_its_targets(workplace: Path) -> None:
    parts = parts_of("lm", workplace, "data.packing=false", "trainer.max_steps=1")
    rows: list[dict[str, Any]] = []
    # What a logger would be given, without one.
    parts.task.record = lambda values, step: rows.append(values)  # type: ignore[method-assign]
    (batch,) = [b for b, _ in zip(parts.data.train_dataloader(), range(1), strict=False)]
    with torch.inference_mode():
        logits = parts.task.model(
            input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")
        ).logits
        expected = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten()
        )
    fit(parts, workplace)
    assert rows[0]["train/loss"] == pytest.approx(float(expected), rel=1e-6)


def test_a_step_without_finite_gradients_is_skipped_and_counted(workplace: Path) -> None:
    parts = parts_of("lm", workplace, "trainer.max_steps=6")
    original, calls = parts.task.loss, []
    rows: list[dict[str, Any]] = []
    # What a logger would be given, without one.
    parts.task.record = lambda values, step: rows.append(values)  # type: ignore[method-assign]

    def sometimes_nan(batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        loss, nll, count = original(batch)
        calls.append(1)
        factor = float("nan") if len(calls) in {3, 5, 6} else 1.0
        return loss * factor, nll * factor, count

    parts.task.loss = sometimes_nan  # type: ignore[method-assign, assignment]
    weights = fit(parts, workplace)
    assert parts.task.progress.skipped == 3
    assert all(torch.isfinite(w).all() for w in weights.values())
    # Rows of steps 1, 2, 3 and 4, 5 and 6: a mean leaves out what is not a number.
    assert [math.isfinite(row["train/loss"]) for row in rows] == [True, True, True, False]
    assert [row.get("skipped_steps") for row in rows] == [None, None, 1, 3]


def test_gradients_that_stay_infinite_end_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of("lm", workplace, "trainer.max_steps=50")
    original = parts.task.loss

    def infinite(batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        loss, nll, count = original(batch)
        return loss * float("inf"), nll, count

    monkeypatch.setattr(parts.task, "loss", infinite)
    with pytest.raises(DivergedError, match="10 steps in a row"):
        fit(parts, workplace)


def test_the_learning_rate_follows_the_schedule_at_every_step(workplace: Path) -> None:
    overrides = ["scheduler=linear", "scheduler.warmup=4", "trainer.log_every_n_steps=1"]
    parts = parts_of("lm", workplace, *overrides, "trainer.max_steps=10", "optimizer.lr=0.2")
    rates: list[float] = []

    def record(values: dict[str, float], step: int) -> None:
        rates.extend([values["lr"]] if "lr" in values else [])

    parts.task.record = record  # type: ignore[method-assign]
    fit(parts, workplace)
    schedule = parts.recipe.schedule
    assert rates == pytest.approx([0.2 * schedule.factor(s, 10) for s in range(10)])
    assert rates[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])
