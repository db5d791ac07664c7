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
from truesweep.errors import ConfigError
from truesweep.jobs.logs import quiet
from truesweep.models.freezing import unreached

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


FAMILIES = {
    "big_bird": ("mlm", "adamw", FP64),
    # Its router computes in fp32 at any precision.
    "switch_transformers": (
        *("translation", "adamw", "data.batch_size=4", "data.micro_batch_size=1"),
        *("model.dropout=0", "model.config.num_sparse_encoder_layers=2"),
        *("model.config.num_experts=32", "model.config.router_jitter_noise=0.0"),
    ),
}
"""One has weights that no gradient reaches, the other some that those of few samples reach."""


def train_families(ranks: int) -> dict[str, Trained]:
    """Train each as one of several ranks, in a folder of its own."""
    os.chdir(tempfile.mkdtemp(dir=Path()))
    return {
        name: train(*how, "model=auto", f"model.architecture={name}", f"trainer.devices={ranks}")
        for name, how in FAMILIES.items()
    }


def test_no_rank_waits_for_a_gradient_that_never_comes(workplace: Path) -> None:
    alone = train_families(1)
    for found in start(workplace, 2, train_families):
        assert_same_training(found["big_bird"], alone["big_bird"])
        losses, expected = (one["switch_transformers"]["losses"] for one in (found, alone))
        assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


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


BIG_BIRD = [
    *("model=auto", "model.architecture=big_bird", "optimizer=adamw", "trainer.max_steps=4"),
    "scheduler.warmup=0",
]


def test_a_checkpoint_from_when_what_no_gradient_reaches_was_trained_goes_on(
    workplace: Path,
) -> None:
    write_samples(workplace)
    whole, before, after, other = (parts_of("mlm", "n3", "n3", *BIG_BIRD) for _ in range(4))
    old: Any = before.task.model
    for parameter in unreached(old).values():
        parameter.requires_grad_(True)
    old.unreached = set()
    with quiet():
        trainer_of(whole).fit(whole.task, datamodule=whole.data)
        half = trainer_of(before, 2)
        half.fit(before.task, datamodule=before.data)
        half.save_checkpoint("half.ckpt")
        trainer_of(after).fit(after.task, datamodule=after.data, ckpt_path="half.ckpt")
    weights = after.task.state_dict()
    assert all(torch.equal(weights[name], one) for name, one in whole.task.state_dict().items())
    # Nor is anything said of a callback that is off now, and whose state it holds.
    saved = torch.load("half.ckpt", weights_only=True)
    saved["callbacks"] = {"EarlyStopping": {"wait_count": 1}}
    after.task.on_load_checkpoint(saved)
    assert saved["callbacks"] == {}
    saved = torch.load("half.ckpt", weights_only=True)
    saved["optimizer_states"][0]["param_groups"][0]["params"].pop()
    with pytest.raises(
        ConfigError, match=r"has 43 tensors of parameters, and that of this model 42"
    ):
        other.task.on_load_checkpoint(saved)
