"""Record whole trainings on three tasks, on which searches can then be replayed.

    python -m benchmarks.search_curves FOLDER [--out benchmarks/search_curves.json.gz]

Each task is a grid of nine learning rates, two batch sizes, two depths and two seeds of tiny models
on parts of the embedded data, with an optimizer and a schedule of its own: 216 trainings of 240
steps with 20 validations each. The sweeps lie in FOLDER, and go on there when this was interrupted.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truesweep.data.embedded import Embedded
from truesweep.jobs.parts import make
from truesweep.optim.schedules import Schedule
from truesweep.runs.run import Run
from truesweep.sweeps.directory import ROOT, SweepDirectory

OUT = Path(__file__).with_name("search_curves.json.gz")
STEPS, EVERY = 240, 12
RATES = 9
FIXED = [
    *("logger=none", "trainer.accelerator=cpu", "trainer.threads=1", "sweeps.seeds=2"),
    *("model.width=32", "model.heads=2", "data.max_length=32", "data=files"),
    *("model.depth=1,2", "data.batch_size=8,32"),
    *(f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={EVERY}"),
    f"trainer.log_every_n_steps={EVERY}",
]


@dataclass(frozen=True)
class Kind:
    """One task's sweep.

    Args:
        lowest: The lowest of its learning rates; each next one is twice the last.
        overrides: What else is set.
        samples: Of training and of each evaluation.
    """

    lowest: float
    overrides: tuple[str, ...]
    samples: tuple[int, int]


KINDS = {
    "lm": Kind(5e-4, ("optimizer=adamw", "scheduler=cosine"), (60, 3)),
    "classification": Kind(
        5e-4,
        (
            *("optimizer=muon", "scheduler=linear"),
            *("data.text_column=text", "data.label_column=label"),
        ),
        (4000, 300),
    ),
    "translation": Kind(
        5e-4,
        (
            *("optimizer=adamw", "scheduler=wsd", "scheduler.decay=0.3", "task.val_generated=0"),
            *("data.source=source", "data.target=target", "tokenizer.vocab_size=300"),
        ),
        (4000, 100),
    ),
}


def write_data(folder: Path, task: str, samples: tuple[int, int]) -> list[str]:
    """Write parts of the embedded data into files; the overrides that name them."""
    data = Embedded()
    if task == "lm":
        made = data.load("text")
        rows: dict[str, Iterable[Any]] = {
            split: ({"text": text[:8000]} for text in getattr(made, split))
            for split in ("train", "val", "test")
        }
    elif task == "classification":
        made = data.load("labelled")
        rows = {
            split: ({"text": s.text, "label": s.label} for s in getattr(made, split))
            for split in ("train", "val", "test")
        }
    else:
        made = data.load("pairs")
        rows = {
            split: ({"source": s.source, "target": s.target} for s in getattr(made, split))
            for split in ("train", "val", "test")
        }
    overrides = []
    for split, each in rows.items():
        number = samples[split != "train"]
        step = max(1, len(getattr(made, split)) // number)
        kept = list(each)[::step][:number]
        file = folder / f"{task}.{split}.jsonl"
        if split == "test" and task == "translation":
            kept = kept[:4]  # translated at the end, which nothing here looks at
        file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        overrides.append(f"data.{split}={file}")
    return [*overrides, "data.text_column=text"] if task == "lm" else overrides


def run(folder: Path, task: str) -> list[Run]:
    """Run a task's sweep, or go on with it; its jobs."""
    kind = KINDS[task]
    data = write_data(folder, task, kind.samples)
    rates = ",".join(f"{kind.lowest * 2**i:.6g}" for i in range(RATES))
    asked = [f"task={task}", *FIXED, *kind.overrides, *data, f"optimizer.lr={rates}"]
    command = [sys.executable, "-m", "truesweep", "train", "-m", *asked, f"name={task}"]
    with (folder / f"{task}.log").open("ab") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False)
    return SweepDirectory(folder / ROOT / task).jobs()


def row(task: str, job: Run) -> dict[str, Any]:
    """What is kept of a job."""
    config, rows = job.read_config(), job.read_metrics()
    curve = [(r["step"], r["val/loss"]) for r in rows if r.get("val/loss") is not None]
    return {
        "task": task,
        "lr": config["optimizer"]["lr"],
        "batch": config["data"]["batch_size"],
        "depth": config["model"]["depth"],
        "seed": config["seed"],
        "state": job.state,
        "steps": [step for step, _ in curve],
        "values": [round(value, 5) for _, value in curve],
    }


def schedule(job: Run) -> list[float]:
    """The rate over its peak at each step of a job."""
    made: Schedule = make(job.read_config(), "scheduler")
    return [round(made.factor(step, STEPS), 5) for step in range(STEPS)]


def main() -> None:
    """Record all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"total": STEPS, "schedules": {}, "runs": []}
    for task in KINDS:
        jobs = run(folder, task)
        ended = [job for job in jobs if job.state == "completed"]
        table["schedules"][task] = schedule(ended[0])
        table["runs"] += [row(task, job) for job in jobs]
        print(f"{task}: {len(ended)} of {len(jobs)} jobs completed", flush=True)
    with gzip.GzipFile(asked.out, "wb", mtime=0) as file:
        file.write(json.dumps(table).encode())


if __name__ == "__main__":
    main()
