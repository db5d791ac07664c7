"""Search with pruning against the full grid: the best value found, and the steps it took.

    python benchmarks/search.py --train train.tsv --val dev.tsv --test test.tsv [--seeds 3]

The task is `experiment=classification` made shorter, on labelled texts such as TREC-6. The grid has
every combination of learning rates, depths and dropouts. The search has the same span of learning
rates as an interval, the same depths and dropouts, some points, and successive halving. Each is
repeated with several seeds, which tell what differs by chance alone. Jobs run on one slot a core.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from truesweep.sweeps.directory import SweepDirectory

RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
OBJECTIVE = "val/f1_macro"
VALIDATIONS = 12
"""Validations a job; the first is the first rung of halving, and each next rung three times it."""


@dataclass(frozen=True)
class Outcome:
    """What a sweep came to.

    Args:
        best: The best value of any job.
        steps: Optimizer steps of all jobs together.
        jobs: Their number.
        pruned: How many were stopped early.
        seconds: Of the whole sweep, with its start and the test scores.
    """

    best: float
    steps: int
    jobs: int
    pruned: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for split in ("train", "val", "test"):
        parser.add_argument(f"--{split}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=156, help="optimizer steps of a job")
    parser.add_argument("--points", type=int, default=16, help="points of a search")
    parser.add_argument("--rates", type=int, default=len(RATES), help="learning rates of the grid")
    given = parser.parse_args()
    every = max(1, given.steps // VALIDATIONS)
    common = [
        "experiment=classification",
        "data=files",
        *(f"data.{split}={getattr(given, split).absolute()}" for split in ("train", "val", "test")),
        "logger=none",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        f"trainer.max_steps={given.steps}",
        f"trainer.val_check_interval={every}",
        "model.depth=1,2",
        "model.dropout=0.1,0.3",
        f"sweeps.objective={OBJECTIVE}",
    ]
    grid = [f"optimizer.lr={','.join(map(str, RATES[: given.rates]))}"]
    search = [
        f"optimizer.lr=interval({RATES[0]},{RATES[given.rates - 1]})",
        "sweeps.method=search",
        "sweeps.pruner=halving",
        f"sweeps.pruner_warmup={every}",
        f"sweeps.jobs={given.points}",
    ]
    compare(common, {"grid": grid, "search": search}, given.seeds)


def compare(common: list[str], kinds: dict[str, list[str]], seeds: int) -> None:
    """Run each kind of sweep with each seed, and print a table."""
    outcomes: dict[str, list[Outcome]] = {kind: [] for kind in kinds}
    print(
        "| sweep | seed | best | steps | jobs | pruned | seconds |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for kind, own in kinds.items():
                asked = [*common, *own, f"seed={seed}", f"sweeps.seed={seed}"]
                done = run(Path(folder), f"{kind}{seed}", asked)
                outcomes[kind].append(done)
                row = (kind, seed, f"{done.best:.4f}", done.steps, done.jobs, done.pruned)
                print("|", *(f"{cell} |" for cell in (*row, f"{done.seconds:.0f}")), flush=True)
    print()
    for kind, all_done in outcomes.items():
        best = [done.best for done in all_done]
        spread = statistics.stdev(best) if seeds > 1 else 0.0
        steps = statistics.fmean(done.steps for done in all_done)
        print(f"{kind}: best {statistics.fmean(best):.4f} ± {spread:.4f}, {steps:,.0f} steps")
    spent = [sum(done.steps for done in all_done) for all_done in outcomes.values()]
    print(f"steps of the search: {spent[1] / spent[0]:.0%} of the grid's")


def run(folder: Path, name: str, overrides: list[str]) -> Outcome:
    """Run a sweep by its command, and read what its jobs left."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "truesweep", "train", "-m", *overrides, f"name={name}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    jobs = SweepDirectory(folder / "outputs/sweeps" / name).jobs()
    values = [job.objective(OBJECTIVE, "max") for job in jobs]
    return Outcome(
        best=max(value for value in values if value is not None),
        steps=sum(job.step for job in jobs),
        jobs=len(jobs),
        pruned=sum(job.state == "pruned" for job in jobs),
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
