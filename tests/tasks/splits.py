"""A few steps of small models; `python -m tests.tasks.splits FOLDER` is one of several ranks.

Each case is the name of a task and of an optimizer; what comes of it is saved in the folder.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.commands.conftest import SMALL, write_chats, write_data, write_preferences
from tests.conftest import THREADS
from tests.rounding import FP64
from truesweep.callbacks import StopAfter
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import build
from truesweep.jobs.plan import checked
from truesweep.models.freezing import is_reached_at_times
from truesweep.record.checkpoints import CheckpointFiles

LORA = "adapter=lora", "adapter.dropout=0.2", "model.init=default"
CASES: list[tuple[str, ...]] = [
    ("lm", "muon"),
    ("translation", "muon"),
    ("translation", "adamw"),
    ("classification", "muon"),
    ("lm", "muon", *LORA),
    ("classification", "adamw", *LORA),
    ("mlm", "muon"),
    ("sft", "muon"),
    ("sft", "adamw", "data.packing=documents", "data.max_length=40"),
    ("dpo", "adamw", "adapter.dropout=0.2"),
    ("dpo", "adamw", "adapter=none"),
]
FIVE_STEPS = [
    *("data.batch_size=64", "data.packing=false", "model.dropout=0.1", "trainer.max_steps=5"),
    *("trainer.val_check_interval=100", "trainer.log_every_n_steps=1", "scheduler.warmup=0"),
]

Trained = dict[str, torch.Tensor]


def train(task: str, optimizer: str, *overrides: str) -> Trained:
    """Weights after five steps, `losses`, and the first step's `gradient_norm`.

    From data in the current folder.
    """
    if task in ("sft", "dpo"):
        named = {"sft": write_chats, "dpo": write_preferences}[task](Path())
    else:
        named = [f"task={task}", *write_data(Path())["lm" if task == "mlm" else task][1:]]
    config = checked([*named, *SMALL, *FIVE_STEPS, f"optimizer={optimizer}", *overrides])
    parts = build(config)
    rows: list[dict[str, Any]] = []

    def record(values: dict[str, Any], step: int) -> None:
        rows.append(values)

    parts.task.record = record  # type: ignore[method-assign]
    trainer = parts.trainer.make(
        callbacks=[StopAfter(parts.recipe.total_steps)],
        loggers=[],
        checkpoint_io=CheckpointFiles(),
        directory=tempfile.mkdtemp(),
        reached_at_times=is_reached_at_times(parts.task.model),
    )
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    weights = {name: weight.detach().clone() for name, weight in parts.task.named_parameters()}
    losses = torch.tensor([row["train/loss"] for row in rows], dtype=torch.float64)
    norm = torch.tensor(rows[0]["grad_norm"], dtype=torch.float64)
    return {**weights, "losses": losses, "gradient_norm": norm}


def main(folder: Path) -> None:
    """Train every case as the rank that the environment names, in shares of four micro-batches."""
    torch.set_num_threads(THREADS)
    os.chdir(folder)
    ranks = f"trainer.devices={os.environ['WORLD_SIZE']}"
    for case in CASES:
        trained = train(*case, FP64, ranks, "data.micro_batch_size=8")
        torch.save(trained, f"{'-'.join(case)}-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
