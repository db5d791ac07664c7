"""Ranks that train the same thing: a sweep of two ranks a job, its values in a shuffled order.

    python -m benchmarks.sweep_ranks [--ranks 2] [--jobs 6]

Every rank notes the hash of its configuration and its learning rate when its training starts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytorch_lightning as pl

from truesweep.callbacks import SameConfiguration

FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.depth=1", "model.width=32", "model.heads=2", "data.max_length=32"),
    *("data.batch_size=8", "trainer.max_steps=8", "trainer.val_check_interval=8"),
    *("allowed_packages=[benchmarks]", "+callbacks.note._target_=benchmarks.sweep_ranks.Note"),
]


class Note(pl.Callback):
    """Writes down what a rank trains with, next to the job's directory.

    Args:
        file: Where to.
    """

    def __init__(self, file: str = "ranks.jsonl") -> None:
        self.file = file

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the job, the rank, the hash and the peak learning rate."""
        callbacks = [c for c in trainer.callbacks if isinstance(c, SameConfiguration)]  # type: ignore[attr-defined]
        note = {
            "job": Path(trainer.default_root_dir).name,
            "rank": trainer.global_rank,
            "hash": callbacks[0].fingerprint,
            "lr": trainer.optimizers[0].param_groups[0]["initial_lr"],
        }
        with Path(self.file).open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


def main() -> None:
    """Run the sweep by its command, and print a line for each job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=6)
    asked = parser.parse_args()
    rates = ",".join(f"{0.001 * 2**i:g}" for i in range(asked.jobs))
    command = [sys.executable, "-m", "truesweep", "train", "-m", *FIXED, "name=shuffled"]
    command += [f"optimizer.lr=shuffle({rates})", f"trainer.devices={asked.ranks}"]
    command += [f"hydra.launcher.slots={asked.ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "benchmarks")
        link.symlink_to(Path(__file__).parent)  # so that jobs find their callback
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        lines = Path(folder, "ranks.jsonl").read_text(encoding="utf-8").splitlines()
    jobs = defaultdict(list)
    for note in map(json.loads, lines):
        jobs[note["job"]].append(note)
    print("| job | ranks | hashes | learning rates |\n|---|---|---|---|")
    for job, notes in jobs.items():
        hashes, lrs = ({note[key] for note in notes} for key in ("hash", "lr"))
        print(f"| {job} | {len(notes)} | {', '.join(h[:12] for h in hashes)} | {lrs} |")
    equal = sum(len({n["hash"] for n in notes}) == 1 for notes in jobs.values())
    print(f"\n{equal} of {len(jobs)} jobs with one hash on all ranks")


if __name__ == "__main__":
    main()
