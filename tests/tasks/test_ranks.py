"""More ranks, and a batch that they cannot divide: the same losses and weights as with one."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rounding import FP64, assert_same_training
from tests.tasks.on_ranks import parts_of, start, trainer_of, write_samples
from tests.tasks.splits import Trained, train
from truesweep.jobs.logs import quiet

BATCH = {3: 2, 4: 8}
"""Samples of a step by the number of ranks; of three ranks, one has none."""


def train_shared(ranks: int) -> Trained:
    """Train as one of several ranks, with dropout, in a folder of its own."""
    os.chdir(tempfile.mkdtemp(dir=Path()))
    return train("lm", "muon", FP64, f"trainer.devices={ranks}", f"data.batch_size={BATCH[ranks]}")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", BATCH)
def test_ranks_train_as_one(ranks: int, workplace: Path) -> None:
    found = start(workplace, ranks, train_shared)
    alone = train("lm", "muon", FP64, f"data.batch_size={BATCH[ranks]}")
    assert len(alone["losses"]) == 5
    for trained in found:
        assert_same_training(trained, alone)


def train_with_a_fault(ranks: int) -> dict[str, Any]:
    """One rank's gradient goes wrong after the ranks have exchanged theirs."""
    os.chdir(tempfile.mkdtemp(dir=Path()))
    write_samples(Path())
    parts = parts_of("lm", "n3", "n3", f"trainer.devices={ranks}")
    task, clip = parts.task, parts.task._clip

    def spoil() -> torch.Tensor:
        if task.steps_done == 3 and task.global_rank == 1:
            grad = next(task.parameters()).grad
            assert grad is not None
            grad.fill_(torch.nan)
        return clip()

    task._clip = spoil  # type: ignore[method-assign]
    with quiet(), pytest.raises(RuntimeError) as raised:
        trainer_of(parts).fit(task, datamodule=parts.data)
    return {"error": str(raised.value), "step": task.steps_done}


def test_ranks_whose_gradients_differ_end(workplace: Path) -> None:
    for found in start(workplace, 2, train_with_a_fault):
        assert found["step"] == 4
        assert found["error"].startswith("step 4: the ranks held different gradients")
