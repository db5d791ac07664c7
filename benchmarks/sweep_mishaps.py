"""A failing, an out-of-memory, a hanging and a NaN job in one sweep: what becomes of the others.

    python -m benchmarks.sweep_mishaps [--jobs 6] [--steps 200]

The same healthy jobs run twice, once beside jobs that come to grief and once by themselves; their
records (every logged figure of every step, but what clocks say) and results are then compared.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from benchmarks.sweep_kills import FIXED, figures
from truesweep.config.precedence import update
from truesweep.jobs.plan import checked
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.local import LocalPool
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.settings import Sweep

SPOILED = {
    "fails": ["callbacks.mishap.how=fail"],
    "out of memory": ["callbacks.mishap.how=memory"],
    "hangs": ["callbacks.mishap.how=hang"],
    "NaN": ["optimizer.lr=1e30", "trainer.gradient_clip_val=null"],
}
PETABYTE = 2**50


class Mishap(pl.Callback):
    """Spoils a job after some steps.

    Args:
        how: What happens.
        at: After so many steps.
    """

    def __init__(
        self, how: Literal["none", "fail", "memory", "hang"] = "none", at: int = 30
    ) -> None:
        self.how = how
        self.left = at

    def on_train_batch_end(self, *_: Any) -> None:
        """Count down."""
        self.left -= 1
        if self.left:
            return
        if self.how == "fail":
            raise RuntimeError("nothing good comes of this")
        if self.how == "memory":
            torch.empty(PETABYTE, dtype=torch.uint8)
        if self.how == "hang":
            time.sleep(1e6)


def prepare(folder: Path, name: str, points: Sequence[Sequence[str]], steps: int) -> SweepDirectory:
    """A sweep of given jobs."""
    spoiling = "+callbacks.mishap._target_=benchmarks.sweep_mishaps.Mishap"
    own = ["allowed_packages=[benchmarks]", f"trainer.max_steps={steps}", f"name={name}"]
    config = checked([*FIXED, "optimizer=adamw", "optimizer.lr=2e-3", spoiling, *own])
    sweep = SweepDirectory(folder / name)
    sweep.ask([], [], Sweep(stall_minutes=0.5), {})
    for number, point in enumerate(points):
        varies = dict(line.split("=", 1) for line in point)
        label = " ".join(point)
        sweep.add(update(config, point), point, varies, label=label, number=number, provenance={})
    return sweep


def run(sweep: SweepDirectory) -> tuple[int, list[Run]]:
    jobs = sweep.jobs()
    return drive(sweep, Listed(jobs), LocalPool(2), sweep.settings), jobs


def main() -> None:
    """Run both sweeps, and print a line for each kind of job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=6, help="healthy jobs")
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    healthy = [[f"seed={seed}"] for seed in range(asked.jobs)]
    among = [list(point) for point in healthy]
    for place, spoiled in enumerate(SPOILED.values()):
        among.insert(2 * place, [*spoiled, f"seed={100 + place}"])
    with tempfile.TemporaryDirectory() as scratch:
        code, mixed = run(prepare(Path(scratch), "mixed", among, asked.steps))
        _, alone = run(prepare(Path(scratch), "alone", healthy, asked.steps))
        print(f"\nexit code {code}\n\n| job | state | exit code | error |\n|---|---|---|---|")
        for name, job in zip(SPOILED, mixed[: 2 * len(SPOILED) : 2], strict=True):
            status = job.status
            error = str(status["error"]).splitlines()[0]
            print(f"| {name} | {job.state} | {status['exit_code']} | {error} |")
        fine = [job for job in mixed if list(job.job["varies"]) == ["seed"]]
        same = sum(figures(a) == figures(b) for a, b in zip(fine, alone, strict=True))
        completed = sum(job.state == "completed" for job in fine)
        print(f"\n{completed} of {len(fine)} others completed, {same} with the same figures")


if __name__ == "__main__":
    main()
