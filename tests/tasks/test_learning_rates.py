"""The learning rate of every step, however steps are shared and wherever training stopped."""

from pathlib import Path
from typing import Any

import pytest

from tests.tasks.on_ranks import RATES, parts_of, rates, trainer_of, write_samples
from truesweep.jobs.logs import quiet

pytestmark = pytest.mark.numbers


def closed_form(steps: int = 12) -> list[float]:
    """Linear in 4 steps to 0.2, then linearly to a tenth of it, which the step after has."""
    warm_up = [0.05, 0.1, 0.15, 0.2]
    return warm_up + [0.2 * (1 - 0.9 * (step - 4) / (steps - 4)) for step in range(4, steps)]


@pytest.mark.parametrize("override", ["data.micro_batch_size=3", "trainer.val_check_interval=1"])
def test_neither_micro_batches_nor_validations_move_the_rates(
    override: str, workplace: Path
) -> None:
    write_samples(workplace)
    assert rates(override) == pytest.approx(closed_form(), rel=1e-12)


def test_a_length_in_epochs_is_one_in_steps(workplace: Path) -> None:
    write_samples(workplace)
    # 2 epochs of 40 samples, 8 of them a step.
    assert rates("trainer.max_epochs=2") == pytest.approx(closed_form(steps=10), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_do_not_move_the_rates(
    found_by_ranks: dict[int, list[dict[str, Any]]], ranks: int
) -> None:
    for found in found_by_ranks[ranks]:
        assert found["rates"] == pytest.approx(closed_form(), rel=1e-12)


def test_a_resumed_training_goes_on_with_its_rates(workplace: Path) -> None:
    write_samples(workplace)
    first = parts_of("lm", "n3", "n3", *RATES)
    trainer = trainer_of(first, steps=7)
    with quiet():
        trainer.fit(first.task, datamodule=first.data)
    trainer.save_checkpoint(workplace / "last.ckpt")
    assert rates(resume=workplace / "last.ckpt") == pytest.approx(closed_form()[7:], rel=1e-12)
