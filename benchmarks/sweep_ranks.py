"""Ranks that train the same thing: a sweep of two ranks a job, its values in a shuffled order.

    python -m benchmarks.sweep_ranks [--jobs 6]

Every rank notes its learning rate, and of truesweep the hash of its configuration, when its
training starts. The stock stack is a plain Hydra application with Lightning's DDP.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from typing_extensions import override

from truesweep.callbacks import SameConfiguration

FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.depth=1", "model.width=32", "model.heads=2", "data.max_length=32"),
    *("data.batch_size=8", "trainer.max_steps=8", "trainer.val_check_interval=8"),
    *("allowed_packages=[benchmarks]", "+callbacks.note._target_=benchmarks.sweep_ranks.Note"),
]
RANKS = 2
LIMIT_SECONDS = 300
STOCK = "RUN_STOCK_SWEEP"
"""Set for the stock application, whose arguments Lightning repeats for the other ranks."""


class Note(pl.Callback):
    """Writes down what a rank trains with.

    Args:
        file: Where to.
        job: The job's name; None: that of its directory.
    """

    def __init__(self, file: str = "ranks.jsonl", job: str | None = None) -> None:
        self.file = Path(file).absolute()
        self.job = job

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the job, the rank, the hash and the learning rate."""
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        hashes = [c.fingerprint for c in callbacks if isinstance(c, SameConfiguration)]
        group = trainer.optimizers[0].param_groups[0]
        note = {
            "job": self.job or Path(trainer.default_root_dir).name,
            "rank": trainer.global_rank,
            "hash": hashes[0] if hashes else None,
            "lr": group.get("initial_lr", group["lr"]),
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


class Stock(pl.LightningModule):
    """A line through random points, with plain SGD."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(4, 1)

    @override
    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()  # type: ignore[no-any-return]

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


def work_stock() -> None:
    """An ordinary Hydra application, whose task trains with DDP."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    @hydra.main(version_base=None, config_path=None)
    def one(config: DictConfig) -> None:
        samples = torch.utils.data.TensorDataset(torch.randn(16, 4))
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=RANKS,
            strategy="ddp",
            max_steps=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[Note(config.file, str(HydraConfig.get().job.num))],
        )
        trainer.fit(Stock(config.lr), torch.utils.data.DataLoader(samples, 4))

    one()


def run(command: list[str], folder: str) -> tuple[int | None, dict[str, list[dict[str, Any]]]]:
    """The exit code of a sweep, None if it had to be ended, and the notes of its jobs' ranks."""
    file = Path(folder, "ranks.jsonl")
    file.unlink(missing_ok=True)
    code: int | None = None
    with Path(folder, "log").open("w") as log, suppress(subprocess.TimeoutExpired):
        where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        where |= {STOCK: "1"} if __file__ in command else {}
        done = subprocess.run(
            command, cwd=folder, env=where, stdout=log, stderr=log, timeout=LIMIT_SECONDS
        )
        code = done.returncode
    jobs = defaultdict(list)
    for note in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        jobs[note["job"]].append(note)
    return code, jobs


def main() -> None:
    """Run the sweep by both, and print a line for each job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=6)
    asked = parser.parse_args()
    rates = ",".join(f"{0.001 * 2**i:g}" for i in range(asked.jobs))
    ours = [sys.executable, "-m", "truesweep", "train", "-m", *FIXED, "name=shuffled"]
    ours += [f"optimizer.lr=shuffle({rates})", f"trainer.devices={RANKS}"]
    ours += [f"hydra.launcher.slots={RANKS}"]
    with tempfile.TemporaryDirectory() as folder:
        stock = [sys.executable, __file__, "-m", f"+lr=shuffle({rates})"]
        stock += [f"+file={folder}/ranks.jsonl", f"hydra.sweep.dir={folder}/hydra"]
        print("| | job | learning rates of the ranks | hashes |\n|---|---|---|---|")
        for name, command in (("stock", stock), ("truesweep", ours)):
            code, jobs = run(command, folder)
            for job, notes in jobs.items():
                rates = " and ".join(str(note["lr"]) for note in notes)
                hashes = ", ".join(
                    sorted({str(note["hash"])[:8] for note in notes if note["hash"]})
                )
                print(f"| {name} | {job} | {rates} | {hashes} |")
            whole = [notes for notes in jobs.values() if len(notes) == RANKS]
            equal = sum(len({n["lr"] for n in notes}) == 1 for notes in whole)
            same = sum(len({n["hash"] for n in notes}) == 1 for notes in whole)
            print(
                f"{name}: exit code {code}; of {len(jobs)} jobs, {equal} with one learning rate"
                + (f", {same} with one hash" if name == "truesweep" else ""),
                file=sys.stderr,
            )


if __name__ == "__main__":
    if STOCK in os.environ:
        work_stock()
    else:
        main()
