"""The search by forecasts against the grid of the same points, live, on files of one's own.

    python -m benchmarks.search_live FOLDER --task classification --train train.tsv --val dev.tsv
    python -m benchmarks.search_live FOLDER --task lm --train train.txt --val val.txt
        [--seeds 3] [--scale 1]

TREC-6 and tinyshakespeare, say. Six learning rates × two depths × two dropouts (for a language
model two batch sizes), tiny models, 120 steps at scale 1 with 40 validations. The search begins in
an order by chance, pauses and thaws; it is given a tie if its best is not further from the grid's
than two seeds of a point are at 95 %, in the better half of points. Sweeps lie in FOLDER, and go on
there when this was interrupted.
"""

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search_replay import TIED
from truesweep.runs.run import Run
from truesweep.sweeps.directory import ROOT, SweepDirectory

RATES = "0.0025,0.005,0.01,0.02,0.04,0.08"
STEPS, VALIDATIONS = 120, 40
LINES = {"classification": 200, "lm": 500}
"""Of the validation file, at most."""
FIXED = [
    *("data=files", "data.max_length=32", "model.width=32", "model.heads=2", "logger=none"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "hydra.launcher.slots=1"),
    *("model.depth=1,2", f"optimizer.lr={RATES}"),
]
KINDS = {
    "classification": ["task=classification", "tokenizer=word", "model.dropout=0,0.2"],
    "lm": ["task=lm", "tokenizer=char", "data.batch_size=16,32"],
}
SEARCH = [
    *("sweeps.method=search", "sweeps.pruner=forecast", "sweeps.sampler=random"),
    "sweeps.jobs=24",
]


def sweep(folder: Path, name: str, overrides: Sequence[str]) -> list[Run]:
    """Run a sweep by its command, or go on with it; its jobs."""
    with (folder / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "truesweep", "train", "-m", *overrides, f"name={name}"]
        if subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False).returncode:
            raise SystemExit(f"the sweep has failed; see {folder / name}.log")
    return SweepDirectory(folder / ROOT / name).jobs()


def ended(jobs: Sequence[Run]) -> dict[str, float]:
    """The best validation loss of each job that has ended, by what varies in it."""
    done = (job for job in jobs if job.state == "completed")
    found = ((job, job.objective("val/loss", "min")) for job in done)
    return {str(sorted(job.varies.items())): loss for job, loss in found if loss is not None}


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", choices=sorted(KINDS), required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the steps")
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = [f"data.train={asked.train.absolute()}"]
    lines = asked.val.read_text("utf-8").splitlines(keepends=True)[: LINES[asked.task]]
    for split, number in (("val", len(lines)), ("test", 20)):
        file = folder / f"{split}{asked.val.suffix}"
        file.write_text("".join(lines[:number]), encoding="utf-8")
        data.append(f"data.{split}={file}")
    every = max(1, round(STEPS * asked.scale) // VALIDATIONS)
    length = [f"trainer.max_steps={every * VALIDATIONS}", f"trainer.val_check_interval={every}"]
    common = [*FIXED, *KINDS[asked.task], *data, *length]
    grids: list[dict[str, float]] = []
    rows: list[tuple[float, float, int, float]] = []
    for seed in range(asked.seeds):
        own = [*common, f"seed={seed}", f"sweeps.seed={seed}"]
        jobs = sweep(folder, f"grid{seed}", own)
        found = sweep(folder, f"forecast{seed}", [*own, *SEARCH])
        grid, search = ended(jobs), ended(found)
        grids.append(grid)
        best = min(search.values())
        rank = 1 + sum(value < best for value in grid.values())
        share = sum(job.step for job in found) / sum(job.step for job in jobs)
        rows.append((min(grid.values()), best, rank, share))
        print(seed, f"{min(grid.values()):.4f} {best:.4f} {rank} {share:.1%}", flush=True)
    points: dict[str, list[float]] = defaultdict(list)
    for grid in grids:
        for point, value in grid.items():
            points[point].append(value)
    ranked = sorted(points.values(), key=statistics.fmean)
    better = [seeds for seeds in ranked[: len(ranked) // 2] if len(seeds) > 1]
    tie = TIED * statistics.fmean(map(statistics.variance, better)) ** 0.5 if better else 0.0
    print(
        f"\na tie: {tie:.4f} nats\n\n| seed | the grid's best | the search's | rank | tie | steps |"
    )
    print("|---|---|---|---|---|---|")
    for seed, (least, best, rank, share) in enumerate(rows):
        tied = "yes" if best - least <= tie else "no"
        print(f"| {seed} | {least:.4f} | {best:.4f} | {rank} | {tied} | {share:.1%} |")


if __name__ == "__main__":
    main()
