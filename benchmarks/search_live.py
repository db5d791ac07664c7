"""The search by forecasts on trainings that none of its settings was chosen on.

    OMP_NUM_THREADS=1 python -m benchmarks.search_live --task classification --train train.tsv \\
        --val dev.tsv [--seeds 3] [--scale 1]
    OMP_NUM_THREADS=1 python -m benchmarks.search_live --task lm --train train.txt --val val.txt

On files of one's own, TREC-6 and tinyshakespeare, say: six learning rates × two depths × two
widths, 120 steps at scale 1 with 40 validations, all trained in this process with each seed. The
searches of `benchmarks/search_replay.py` decide on them what goes on, as a job that has waited is
bit for bit one that has not. A tie is not further from the grid's best than two seeds of a point
are at 95 %, in the better half of points.
"""

import argparse
import random
import statistics
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.here import Trainings
from benchmarks.search_replay import SEARCHES, TIED, Run, noise
from truesweep.analysis.curves import Curve

STEPS, VALIDATIONS = 120, 40
COMMON = [
    *("data=files", "data.max_length=32", "model.heads=2", "logger=none"),
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
HELD_OUT = 128
"""Validation samples that are scored."""
ORDERS = 20
"""Of the points of each seed, by chance."""


def train_all(asked: argparse.Namespace) -> list[list[Run]]:
    """The seeds of each point."""
    every = max(1, round(STEPS * asked.scale) // VALIDATIONS)
    steps = every * VALIDATIONS
    files = [f"data.{split}={getattr(asked, split).absolute()}" for split in ("train", "val")]
    overrides = [*COMMON, *KINDS[asked.task], *files, f"trainer.max_steps={steps}"]
    trainings = Trainings(overrides, HELD_OUT)
    points = []
    for rate, depth, width in product(RATES[asked.task], (1, 2), (16, 32)):
        change = {"optimizer.lr": rate, "model.depth": depth, "model.width": width}
        rates = np.array(trainings.schedule(change, steps))
        seeds = []
        for seed in range(asked.seeds):
            found = trainings.curve({**change, "seed": seed}, every)
            seeds.append(Run(Curve(*map(np.array, zip(*found, strict=True))), rates))
        points.append(seeds)
        print("   ", rate, depth, width, *(f"{run.best:.4f}" for run in seeds), flush=True)
    return points


def main() -> None:
    """Train all, search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(KINDS), required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the steps")
    asked = parser.parse_args()
    points = train_all(asked)
    tie = TIED * noise(points) if asked.seeds > 1 else 0.0
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
