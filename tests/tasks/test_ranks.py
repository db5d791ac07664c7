"""More ranks, and a batch that they cannot divide: the same losses and weights as with one."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from tests.tasks.on_ranks import start
from tests.tasks.splits import Trained, train

BATCH = {3: 2, 4: 8}
"""Samples of a step by the number of ranks; of three ranks, one has none."""


def train_shared(ranks: int) -> Trained:
    """Train as one of several ranks, with dropout, in a folder of its own."""
    os.chdir(tempfile.mkdtemp(dir=Path()))
    return train("lm", "muon", f"trainer.devices={ranks}", f"data.batch_size={BATCH[ranks]}")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", BATCH)
def test_ranks_train_as_one(ranks: int, workplace: Path) -> None:
    found = start(workplace, ranks, train_shared)
    alone = train("lm", "muon", f"data.batch_size={BATCH[ranks]}")
    assert len(alone["losses"]) == 5
    for trained in found:
        assert trained.keys() == alone.keys()
        for name, weight in alone.items():
            torch.testing.assert_close(trained[name], weight, rtol=0, atol=1e-5, msg=name)
