"""More ranks, and a batch that they cannot divide: the same losses and weights as with one."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.rounding import FP64, assert_same_training
from tests.tasks.on_ranks import start
from tests.tasks.splits import Trained, train

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
