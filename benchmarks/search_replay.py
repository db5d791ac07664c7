"""Searches replayed on recorded trainings: how often each ends with the best, and at what price.

    python -m benchmarks.search_replay [--replays 67] [--validations 20]
        [--table benchmarks/search_curves.json.gz]

The table is one of `benchmarks/search_curves.py`. A replay takes one of the two seeds of each of a
task's 36 points, in a random order, and has the steps of all 36 trainings as the whole. Whatever a
search stops or pauses costs what it was trained by then. It is given a tie if what it ends with is
not further from the best of all than two seeds of one point are at 95 % (of the better half of
points). Optuna's pruners ask at every validation, as jobs do; the first rung of halving and
hyperband, and the warm-up of the median, are two validations, a slice of forecasts one. With fewer
validations than the table's 20, each n-th of them is kept.
"""

import argparse
import gzip
import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from truesweep.analysis.curves import Curve, Floats
from truesweep.analysis.thaw import RUNGS, Trial, choose
from truesweep.record.study import make_pruner

TABLE = Path(__file__).with_name("search_curves.json.gz")
TIED = 1.96 * math.sqrt(2)
"""Standard deviations between two seeds of one point, at 95 %."""


@dataclass(frozen=True)
class Run:
    """A recorded training.

    Args:
        curve: Its validations.
        rates: Its rate over the peak, at each step.
    """

    curve: Curve
    rates: Floats

    @property
    def best(self) -> float:
        """Its best validation."""
        return float(self.curve.values.min())

    def thinned(self, validations: int) -> "Run":
        """The same with so many of its validations, the last one among them."""
        among = len(self.curve) // validations
        return Run(self.curve.where(np.arange(1, len(self.curve) + 1) % among == 0), self.rates)

    def upto(self, step: int) -> Trial:
        """What is known of it after some steps."""
        return Trial(self.curve.where(self.curve.steps <= step), self.rates)


Search = Callable[[Sequence[Run]], tuple[float, int]]
"""The best value of any training that came to its end, and the steps of all."""


def by_forecasts(runs: Sequence[Run]) -> tuple[float, int]:
    """Begin all, then go on with the one that is chosen, slice by slice."""
    total = len(runs[0].rates)
    slice_ = max(total // RUNGS, int(runs[0].curve.steps[0]))
    steps = dict.fromkeys(range(len(runs)), slice_)
    known = {key: run.upto(slice_) for key, run in enumerate(runs)}
    while True:
        chosen = choose(known, [key for key, one in known.items() if not one.ended])
        if chosen is None:
            break
        steps[chosen] = min(total, steps[chosen] + slice_)
        known[chosen] = runs[chosen].upto(steps[chosen])
    return min(one.best for one in known.values() if one.ended), sum(steps.values())


def by_optuna(name: str) -> Search:
    """One after the other, stopped for good by a pruner of Optuna's."""

    def search(runs: Sequence[Run]) -> tuple[float, int]:
        warmup = int(runs[0].curve.steps[1])
        study = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=make_pruner(name, startup=5, warmup=warmup, reduction=3),
        )
        best, spent = math.inf, 0
        for run in runs:
            trial = study.ask()
            for step, value in zip(run.curve.steps.tolist(), run.curve.values, strict=True):
                trial.report(float(value), step)
                if step < len(run.rates) and trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, run.best)
                best = min(best, run.best)
            spent += step
        return best, spent

    return search


SEARCHES: dict[str, Search] = {
    "forecast": by_forecasts,
    **{name: by_optuna(name) for name in ("median", "halving", "hyperband")},
}


def load(path: Path) -> dict[str, list[list[Run]]]:
    """By task, the seeds of each point."""
    table: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    points: dict[str, dict[Any, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for row in table["runs"]:
        rates = np.array(table["schedules"][row["task"]])
        made = Run(Curve(np.array(row["steps"]), np.array(row["values"])), rates)
        points[row["task"]][row["lr"], row["batch"], row["depth"]].append(made)
    return {task: list(seeds.values()) for task, seeds in points.items()}


def noise(points: Sequence[Sequence[float]]) -> float:
    """Standard deviation of a seed's best value, pooled over the better half of points."""
    kept = sorted(points, key=statistics.fmean)[: len(points) // 2]
    return math.sqrt(statistics.fmean(map(statistics.variance, kept)))


def best_of_seeds(points: Sequence[Sequence[Run]]) -> list[list[float]]:
    """The best value of each seed of each point."""
    return [[run.best for run in seeds] for seeds in points]


def main() -> None:
    """Replay, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replays", type=int, default=67)
    parser.add_argument("--validations", type=int, default=20, choices=[2, 4, 5, 10, 20])
    parser.add_argument("--table", type=Path, default=TABLE)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| task | search | best | best or tie | steps | most steps | behind by |")
    print("|---|---|---|---|---|---|---|")
    pooled: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for task, recorded in load(asked.table).items():
        points = [[run.thinned(asked.validations) for run in seeds] for seeds in recorded]
        tie = TIED * noise(best_of_seeds(points))
        whole = sum(len(seeds[0].rates) for seeds in points)
        for name, search in SEARCHES.items():
            rng = random.Random(0)
            lost, shares = [], []
            for _ in range(asked.replays):
                runs = [rng.choice(seeds) for seeds in points]
                rng.shuffle(runs)
                value, steps = search(runs)
                lost.append(value - min(run.best for run in runs))
                shares.append(steps / whole)
            pooled[name] += [(one <= tie, share) for one, share in zip(lost, shares, strict=True)]
            exact, tied = (sum(one <= by for one in lost) / len(lost) for by in (0.0, tie))
            cells = (f"{exact:.0%}", f"{tied:.0%}", f"{statistics.fmean(shares):.1%}")
            mean = statistics.fmean(one for one in lost)
            print(
                "|", task, "|", name, "|", " | ".join(cells), f"| {max(shares):.1%} | {mean:.3f} |"
            )
    for name, each in pooled.items():
        won = sum(one for one, _ in each) / len(each)
        mean = statistics.fmean(share for _, share in each)
        print(f"| all | {name} | | {won:.0%} | {mean:.1%} | | |", flush=True)


if __name__ == "__main__":
    main()
