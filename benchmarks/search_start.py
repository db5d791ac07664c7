"""`sweeps=auto` against a fine grid, from the start it has and from one that is wrong by ten.

    python -m benchmarks.search_start FOLDER [--train train.txt --val val.txt]
        [--optimizer adamw] [--scale 1]

Language models of characters, one epoch of a part of a text: the embedded one, or files such as
tinyshakespeare's. The grid has 17 learning rates by factors of the square root of two and five
batch sizes; the search is `sweeps=auto` in a folder without earlier sweeps, and then the same from
ten times and a tenth of the rate that it starts from. Of each: the best validation loss, the
steps until it was found and until the end, in shares of the grid's; then the points that were found
best with other seeds, as the best of many is a lucky one. The grid is trained in this process, to
the losses of jobs; the searches are sweeps in FOLDER.
"""

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.here import Trainings
from truesweep.data.embedded import Embedded
from truesweep.runs.run import Run
from truesweep.sweeps.directory import ROOT, SweepDirectory

RATE, BATCH = "optimizer.lr", "data.batch_size"
RATES = {"adamw": 2e-3, "muon": 2e-3}
"""The lowest of the grid, by optimizer."""
CHARACTERS = {"train": 120_000, "val": 16_000, "test": 1_000}
"""Of each split, at scale 1."""
FIXED = [
    *("task=lm", "tokenizer=char", "data=files", "data.max_length=32", "model.depth=2"),
    *("model.width=32", "model.heads=2", "logger=none", "trainer.accelerator=cpu"),
    "trainer.threads=1",
]
AGAIN = 6
"""Other seeds."""


def write_texts(folder: Path, asked: argparse.Namespace) -> list[str]:
    """Write parts of the splits; the overrides that name them."""
    named = {"train": asked.train, "val": asked.val, "test": asked.val}
    embedded = None if asked.train else Embedded().load("text")
    overrides = []
    for split, count in CHARACTERS.items():
        text = named[split].read_text("utf-8") if named[split] else ""
        if embedded is not None:
            pieces = [one.text if hasattr(one, "text") else one for one in getattr(embedded, split)]
            text = "\n".join(piece[:2000] for piece in pieces)
        file = folder / f"{split}.txt"
        file.write_text(text[: int(count * asked.scale)], encoding="utf-8")
        overrides.append(f"data.{split}={file}")
    return overrides


def sweep(folder: Path, name: str, overrides: Sequence[str]) -> list[Run]:
    """Run a sweep in a folder of its own, or go on with it; its jobs in order."""
    own = folder / name
    own.mkdir(exist_ok=True)
    with (own / "log").open("ab") as log:
        command = [sys.executable, "-m", "truesweep", "train", "-m", *overrides, f"name={name}"]
        command.append("hydra.launcher.slots=1")
        if subprocess.run(command, cwd=own, stdout=log, stderr=log, check=False).returncode:
            raise SystemExit(f"the sweep has failed; see {own / 'log'}")
    return SweepDirectory(own / ROOT / name).jobs()


@dataclass(frozen=True)
class Tried:
    """A training.

    Args:
        at: Learning rate and batch size.
        loss: On all validation samples, in nats; infinite if it failed.
        steps: Of the optimizer.
    """

    at: tuple[float, int]
    loss: float
    steps: int


def grid(common: Sequence[str], optimizer: str) -> list[Tried]:
    """Train every combination, in this process."""
    tried = []
    for batch in (4, 8, 16, 32, 64):
        trainings = Trainings([*common, "trainer.max_epochs=1", f"{BATCH}={batch}"], held_out=None)
        for i in range(17):
            rate = RATES[optimizer] * 2 ** (i / 2)
            ((steps, loss),) = trainings.curve({RATE: rate})
            tried.append(Tried((rate, batch), loss, steps))
            print(f"    {rate:.4g} {batch} {loss:.4f}", flush=True)
    return tried


def of_jobs(jobs: Sequence[Run]) -> list[Tried]:
    """What a search has tried, in order."""
    found = []
    for job in jobs:
        loss = job.objective("val/loss", "min")
        at = job.varies[RATE], job.varies[BATCH]
        found.append(Tried(at, math.inf if loss is None else loss, job.step))
    return found


def again(common: Sequence[str], at: tuple[float, int]) -> list[float]:
    """The losses of one point with other seeds: what was chosen as the best was lucky, too."""
    rate, batch = at
    trainings = Trainings([*common, "trainer.max_epochs=1", f"{BATCH}={batch}"], held_out=None)
    return [trainings.loss({RATE: rate, "seed": seed}) for seed in range(1, 1 + AGAIN)]


def show(name: str, tried: Sequence[Tried], whole: int) -> None:
    """Print a row of the table."""
    best = min(tried, key=lambda one: one.loss)
    spent = [one.steps for one in tried]
    until = f"{sum(spent[: tried.index(best) + 1]) / whole:.1%}"
    at = f"{best.at[0]:.3g}, {best.at[1]}"
    cells = [name, len(tried), f"{best.loss:.4f}", at, until, f"{sum(spent) / whole:.1%}"]
    print("|", *(f"{cell} |" for cell in cells), flush=True)
    if len(tried) < 20:
        for one in tried:
            print("   ", *one.at, one.steps, f"{one.loss:.4f}", flush=True)


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--val", type=Path)
    parser.add_argument("--optimizer", choices=sorted(RATES), default="muon")
    parser.add_argument("--scale", type=float, default=1.0, help="of the text")
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    common = [*FIXED, *write_texts(folder, asked), f"optimizer={asked.optimizer}"]
    print("| sweep | jobs | best | at | steps until then | steps |\n|---|---|---|---|---|---|")
    every = grid(common, asked.optimizer)
    whole = sum(one.steps for one in every)
    show("grid", every, whole)
    tried = {"grid": every, "auto": of_jobs(sweep(folder, "auto", [*common, "sweeps=auto"]))}
    show("auto", tried["auto"], whole)
    start = SweepDirectory(folder / "auto" / ROOT / "auto").settings.start
    assert isinstance(start, dict)
    for name, factor in (("ten-times", 10.0), ("a-tenth", 0.1)):
        planted = f"{{{RATE}: {start[RATE] * factor:.4g}, {BATCH}: {start[BATCH]}}}"
        jobs = sweep(folder, name, [*common, "sweeps=auto", f"sweeps.start={planted}"])
        tried[name] = of_jobs(jobs)
        show(name, tried[name], whole)
    print(f"\n| choice of | {AGAIN} other seeds | minus the grid's |\n|---|---|---|")
    first: list[float] = []
    for name, each in tried.items():
        found = again(common, min(each, key=lambda one: one.loss).at)
        first = first or found
        behind = [one - other for one, other in zip(found, first, strict=True)]
        error = statistics.stdev(behind) / len(behind) ** 0.5
        mean, by = statistics.fmean(found), statistics.fmean(behind)
        print(f"| {name} | {mean:.4f} | {by:+.4f} ± {error:.4f} |", flush=True)


if __name__ == "__main__":
    main()
