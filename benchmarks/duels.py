"""What a duel says of a configuration against itself, and what its paired seeds are worth.

    OMP_NUM_THREADS=1 python -m benchmarks.duels ties [--count 50] [--seeds 8] [--error 0.01]
    OMP_NUM_THREADS=1 python -m benchmarks.duels pairs --text train.txt [--seeds 24]

Trainings are in this process, without checkpoints, and are judged as `truesweep duel` does, at the
seeds where it does. *Ties*: a classifier of the embedded questions against itself with other seeds;
how many are called a win, at the rate of errors and at five times it. *Pairs*: a language model of
characters against the same with one thing changed. A test of paired seeds sees the variance of
their difference, one of other seeds that of both: seeds at equal power are as the two variances.
Beside it, how many seeds duels spend of which the second contender's are shuffled.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.here import Trainings
from truesweep.analysis.duel import judge
from truesweep.commands.duel import EACH, FIRST

COMMON = ["logger=none", "trainer.accelerator=cpu", "data.max_length=32", "model.heads=2"]
CLASSIFIER = [
    *("task=classification", "model.depth=1", "model.width=32"),
    *("optimizer.lr=0.03", "data.batch_size=32", "trainer.max_steps=100"),
]
LANGUAGE = [
    *("task=lm", "tokenizer=char", "data=files", "model.depth=2", "model.width=32"),
    *("optimizer.lr=0.02", "data.batch_size=16"),
]
CHANGES: dict[str, dict[str, Any]] = {
    "rate × 1.25": {"optimizer.lr": 0.025},
    "rate × 2": {"optimizer.lr": 0.04},
    "decay 0.3": {"optimizer.weight_decay": 0.3},
    "dropout 0.05": {"model.dropout": 0.05},
    "wider by a half": {"model.width": 48},
    "a layer more": {"model.depth": 3},
}
CHARACTERS = 400_000
SHUFFLES = 200
"""Duels of other seeds that are made of the same trainings."""


def looks(seeds: int) -> list[int]:
    """The numbers of seeds at which a duel of so many is judged."""
    return [*range(min(FIRST, seeds), seeds, EACH), seeds]


def fought(champion: Sequence[float], challenger: Sequence[float], error: float) -> tuple[str, int]:
    """The verdict of a duel, and the seeds that it took."""
    for n in looks(len(champion)):
        found = judge(champion[:n], challenger[:n], mode="min", error=error).verdict
        if found != "undecided":
            return found, n
    return "undecided", len(champion)


def ties(asked: argparse.Namespace) -> None:
    """Fight ties, and say how many were won."""
    loss = Trainings([*COMMON, *CLASSIFIER]).loss
    won = {asked.error: 0, 5 * asked.error: 0}
    for number in range(asked.count):
        first = [loss({"seed": 1000 * number + i}) for i in range(asked.seeds)]
        second = [loss({"seed": 1000 * number + 500 + i}) for i in range(asked.seeds)]
        told = {error: fought(first, second, error) for error in won}
        for error, (verdict, _) in told.items():
            won[error] += verdict != "undecided"
        print(json.dumps({"tie": number, "found": list(told.values()), "of": [first, second]}))
        rates = ", ".join(f"{n} called a win at {error:g}" for error, n in won.items())
        print(f"{number + 1} ties of {asked.seeds} seeds: {rates}", flush=True)


def pairs(asked: argparse.Namespace) -> None:
    """Compare seeds that are paired with seeds that are not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(asked.text.read_text("utf-8")[:CHARACTERS], encoding="utf-8")
        steps = f"trainer.max_steps={asked.steps}"
        model = f"model={asked.model}"
        given = [*COMMON, *LANGUAGE, model, f"data.train={file}", steps]
        loss = Trainings(given, held_out=None).loss
        seeds = range(asked.seeds)
        drawn = {"model.init_seeding": asked.init_seeding}
        first = [loss({**drawn, "seed": seed}) for seed in seeds]
        spread = statistics.stdev(first)
        print(f"seeds of one configuration: {statistics.fmean(first):.4f} ± {spread:.4f}")
        print("| change | difference | ± of a pair | ± of others | seeds, paired over others |")
        print("|---|---|---|---|---|")
        rng = random.Random(0)
        for name in asked.changes:
            second = [loss({**drawn, **CHANGES[name], "seed": seed}) for seed in seeds]
            differences = [b - a for a, b in zip(first, second, strict=True)]
            paired = statistics.variance(differences)
            others = statistics.variance(first) + statistics.variance(second)
            verdict, spent = fought(first, second, asked.error)
            shuffled = [
                fought(first, rng.sample(second, len(second)), asked.error) for _ in range(SHUFFLES)
            ]
            print(
                f"| {name} | {statistics.fmean(differences):+.4f} | {paired**0.5:.4f} | "
                f"{others**0.5:.4f} | {paired / others:.2f} | duel: {verdict} after {spent}; "
                f"others: {statistics.fmean(n for _, n in shuffled):.1f}, undecided "
                f"{statistics.fmean(v == 'undecided' for v, _ in shuffled):.0%}",
                flush=True,
            )


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("ties")
    one.add_argument("--count", type=int, default=50)
    one.add_argument("--seeds", type=int, default=8, help="the most of a tie")
    one.set_defaults(run=ties)
    two = kinds.add_parser("pairs")
    two.add_argument("--text", type=Path, required=True)
    two.add_argument("--seeds", type=int, default=24)
    two.add_argument("--steps", type=int, default=600)
    two.add_argument("--model", default="lfm2")
    two.add_argument("--init-seeding", choices=("sequential", "by_name"), default="sequential")
    two.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    two.set_defaults(run=pairs)
    for each in (one, two):
        each.add_argument("--error", type=float, default=0.01)
    asked = parser.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    main()
