"""The search by forecasts on trainings that none of its settings was chosen on.

    OMP_NUM_THREADS=1 python -m benchmarks.search_live --task classification --train train.tsv \\
        --val dev.tsv [--seeds 3] [--scale 1] [--by-command FOLDER]
    OMP_NUM_THREADS=1 python -m benchmarks.search_live --task lm --train train.txt --val val.txt

On files of one's own, TREC-6 and tinyshakespeare, say: six learning rates × two depths × two
widths, 120 steps at scale 1 with 40 validations, all trained in this process with each seed. The
searches of `benchmarks/search_replay.py` decide on them what goes on, as a job that has waited is
bit for bit one that has not. A tie is not further from the grid's best than two seeds of a point
are at 95 %, in the better half of points.

With `--by-command` nothing is replayed: the grid of each seed and a search, with nothing said of
its sampler or its pruner, are sweeps that `truesweep train -m` trains in FOLDER, on the same space
and the beginning of the validation file. Called again, it goes on where it was.
"""

import argparse
import math
import random
import statistics
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.here import Trainings
from benchmarks.search_replay import SEARCHES, TIED, Run, best_of_seeds, noise
from benchmarks.search_start import sweep
from truesweep.analysis.curves import Curve
from truesweep.runs.run import Run as Job

STEPS, VALIDATIONS = 120, 40
WINDOW = 32
"""Tokens of a sample, at most."""
COMMON = [
    *("data=files", f"data.max_length={WINDOW}", "model.heads=2", "logger=none"),
    *("trainer.accelerator=cpu", "data.batch_size=32"),
]
KINDS = {
    "classification": ["task=classification", "tokenizer=word", "optimizer=muon"],
    "lm": ["task=lm", "tokenizer=char", "optimizer=adamw", "scheduler=cosine"],
}
RATES = {
    "classification": [0.0025 * 2**i for i in range(6)],
    "lm": [0.001 * 2**i for i in range(6)],
}
SIZES = {"model.depth": (1, 2), "model.width": (16, 32)}
HELD_OUT = 128
"""Validation samples that are scored."""
ORDERS = 20
"""Of the points of each seed, by chance."""


def length(asked: argparse.Namespace) -> tuple[int, int]:
    """Steps between two validations, and of a training."""
    every = max(1, round(STEPS * asked.scale) // VALIDATIONS)
    return every, every * VALIDATIONS


def train_all(asked: argparse.Namespace) -> list[list[Run]]:
    """The seeds of each point."""
    every, steps = length(asked)
    files = [f"data.{split}={getattr(asked, split).absolute()}" for split in ("train", "val")]
    overrides = [*COMMON, *KINDS[asked.task], *files, f"trainer.max_steps={steps}"]
    trainings = Trainings(overrides, HELD_OUT)
    points = []
    for rate, depth, width in product(RATES[asked.task], *SIZES.values()):
        change = {"optimizer.lr": rate, "model.depth": depth, "model.width": width}
        rates = np.array(trainings.schedule(change, steps))
        seeds = []
        for seed in range(asked.seeds):
            found = trainings.curve({**change, "seed": seed}, every)
            seeds.append(Run(Curve(*map(np.array, zip(*found, strict=True))), rates))
        points.append(seeds)
        print("   ", rate, depth, width, *(f"{run.best:.4f}" for run in seeds), flush=True)
    return points


def write_beginning(asked: argparse.Namespace) -> Path:
    """Write the first `HELD_OUT` validation samples: windows of a text, or rows below a header."""
    text = asked.val.read_text("utf-8")
    rows = text.splitlines(keepends=True)[: HELD_OUT + 1]
    file: Path = asked.by_command / f"beginning{asked.val.suffix}"
    beginning = text[: HELD_OUT * WINDOW] if asked.task == "lm" else "".join(rows)
    file.write_text(beginning, encoding="utf-8")
    return file


def fell_to(job: Job) -> float:
    """A job's best validation loss; infinite if it has failed."""
    loss = job.objective("val/loss")
    return math.inf if loss is None else loss


def train_by_command(asked: argparse.Namespace) -> None:
    """Train the grid and the search of each seed as sweeps, and print the table."""
    asked.by_command.mkdir(parents=True, exist_ok=True)
    every, steps = length(asked)
    axes = {"optimizer.lr": RATES[asked.task], **SIZES}
    files = {"train": asked.train, "val": write_beginning(asked)}
    common = [
        *(*COMMON, *KINDS[asked.task], "trainer.threads=1"),
        *(f"data.{split}={file.absolute()}" for split, file in files.items()),
        *(f"trainer.max_steps={steps}", f"trainer.val_check_interval={every}"),
        *(f"{key}={','.join(map(str, values))}" for key, values in axes.items()),
    ]
    count = math.prod(map(len, axes.values()))
    grids, searches = [], []
    for seed in range(asked.seeds):
        own = [*common, f"seed={seed}"]
        jobs = sweep(asked.by_command, f"grid-{seed}", own)
        grids.append({tuple(job.varies.values()): fell_to(job) for job in jobs})
        search = [*own, "sweeps.method=search", f"sweeps.jobs={count}"]
        searches.append(sweep(asked.by_command, f"search-{seed}", search))
    tie = TIED * noise([[grid[point] for grid in grids] for point in grids[0]])
    print(f"\n{count} points; a tie: {tie:.4f} nats\n")
    print("| seed | the grid's best | the search's | behind by | steps | to the end |")
    print("|---|---|---|---|---|---|")
    for seed, (grid, found) in enumerate(zip(grids, searches, strict=True)):
        ended = [fell_to(job) for job in found if job.step == steps]
        least, spent = min(grid.values()), sum(job.step for job in found)
        cells = [f"{least:.4f}", f"{min(ended):.4f}", f"{min(ended) - least:.4f}"]
        cells += [f"{spent / (count * steps):.1%}", f"{len(ended)} of {len(found)}"]
        print("|", seed, "|", " | ".join(cells), "|", flush=True)


def main() -> None:
    """Train all, search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(KINDS), required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the steps")
    parser.add_argument("--by-command", type=Path, help="a folder for sweeps in place of replays")
    asked = parser.parse_args()
    if asked.by_command:
        train_by_command(asked)
        return
    points = train_all(asked)
    tie = TIED * noise(best_of_seeds(points)) if asked.seeds > 1 else 0.0
    whole = sum(len(seeds[0].rates) for seeds in points)
    print(f"\n{len(points)} points; a tie: {tie:.4f} nats\n")
    print("| seed | search | the grid's best | the search's | behind by | tie | steps |")
    print("|---|---|---|---|---|---|---|")
    for seed, (name, search) in product(range(asked.seeds), SEARCHES.items()):
        runs = [seeds[seed] for seeds in points]
        least = min(run.best for run in runs)
        rng = random.Random(0)
        found = [search(rng.sample(runs, len(runs))) for _ in range(ORDERS)]
        values = [value for value, _ in found]
        tied = statistics.fmean(value - least <= tie for value in values)
        share = statistics.fmean(steps for _, steps in found) / whole
        mean = statistics.fmean(values)
        cells = [f"{least:.4f}", f"{mean:.4f}", f"{mean - least:.4f}", f"{tied:.0%}"]
        print("|", seed, "|", name, "|", " | ".join(cells), f"| {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
