"""`sweeps=auto` against a fine grid, from the start it has and from one that is wrong by ten.

    taskset -c 0 python -m benchmarks.search_start FOLDER [--train train.txt --val val.txt]
        [--optimizer adamw] [--scale 1]

Language models of characters, one epoch of a part of a text: the embedded one, or files such as
tinyshakespeare's. The grid has 17 learning rates by factors of the square root of two and five
batch sizes; the search is `sweeps=auto` in a folder without earlier sweeps, and then the same from
ten times and a tenth of the rate that it starts from. Of each: the best validation loss, and the
steps until a job is within 0.01 nats of the grid's best, and until the end. The sweeps lie in
FOLDER, and go on there when this was interrupted.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    *("trainer.threads=1", "hydra.launcher.slots=1"),
]
CLOSE = 0.01
"""Nats from the grid's best."""


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
        if subprocess.run(command, cwd=own, stdout=log, stderr=log, check=False).returncode:
            raise SystemExit(f"the sweep has failed; see {own / 'log'}")
    return SweepDirectory(own / ROOT / name).jobs()


def losses(jobs: Sequence[Run]) -> list[float]:
    """Of each job, infinite where it has none."""
    found = (job.objective("val/loss", "min") for job in jobs)
    return [float("inf") if value is None else value for value in found]


def show(name: str, jobs: Sequence[Run], aim: float, whole: int) -> None:
    """Print a row of the table."""
    values, steps = losses(jobs), [job.step for job in jobs]
    best = min(range(len(jobs)), key=lambda i: values[i])
    first = next((i for i, value in enumerate(values) if value <= aim), None)
    until = "never" if first is None else f"{sum(steps[: first + 1]) / whole:.1%}"
    at = {key: jobs[best].varies[key] for key in (RATE, BATCH)}
    cells: list[Any] = [name, len(jobs), f"{values[best]:.4f}", at, until]
    print("|", *(f"{cell} |" for cell in cells), f"{sum(steps) / whole:.1%} |", flush=True)
    told = zip(jobs, values, steps, strict=True)
    if len(jobs) < 20:
        for job, value, step in told:
            print("   ", job.varies[RATE], job.varies[BATCH], step, f"{value:.4f}", flush=True)


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
    rates = ",".join(f"{RATES[asked.optimizer] * 2 ** (i / 2):.4g}" for i in range(17))
    grid = [f"{RATE}={rates}", f"{BATCH}=4,8,16,32,64", "trainer.max_epochs=1"]
    print("| sweep | jobs | best | at | steps until close | steps |\n|---|---|---|---|---|---|")
    jobs = sweep(folder, "grid", [*common, *grid])
    aim, whole = min(losses(jobs)) + CLOSE, sum(job.step for job in jobs)
    show("grid", jobs, aim, whole)
    found = sweep(folder, "auto", [*common, "sweeps=auto"])
    show("auto", found, aim, whole)
    start = SweepDirectory(folder / "auto" / ROOT / "auto").settings.start
    assert isinstance(start, dict)
    for name, factor in (("ten-times", 10.0), ("a-tenth", 0.1)):
        planted = f"{{{RATE}: {start[RATE] * factor:.4g}, {BATCH}: {start[BATCH]}}}"
        found = sweep(folder, name, [*common, "sweeps=auto", f"sweeps.start={planted}"])
        show(name, found, aim, whole)


if __name__ == "__main__":
    main()
