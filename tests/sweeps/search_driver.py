"""A search whose jobs are mere functions of their points, and a driver of it that can be killed."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from truesweep.config.space import Axis, Point, Space
from truesweep.record.files import write_json
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.study import Search

LR = Axis("optimizer.lr", "float", low=1e-4, high=1e-1, log=True)
DEPTH = Axis("model.depth", "int", values=(2, 3, 4, 5), low=2, high=5, step=1)
MODEL = Axis("model", values=("llama", "qwen3"), group=True)


TRAINER = {"_target_": "truesweep.jobs.trainer.TrainerSettings", "accelerator": "cpu"}


def on(devices: int, seed: int) -> dict[str, Any]:
    """The least configuration of a job that a driver can place."""
    trainer = {**TRAINER, "devices": devices, "max_steps": 4}
    return {"name": "s", "seed": seed, "allowed_packages": [], "trainer": trainer}


def search(
    folder: Path,
    axes: Sequence[Axis] = (LR, DEPTH, MODEL),
    exclude: Sequence[Mapping[str, Any]] = (),
    paired: Sequence[Sequence[str]] = (),
    note: Callable[[str], None] = lambda text: None,
    limit: int | None = None,
    **settings: Any,
) -> Search:
    sweep = SweepDirectory(folder)
    number = iter(range(10**6))

    def make(point: Point, seed: int, trial: dict[str, Any]) -> Run:
        config = {**on(1, seed), "name": folder.name, "point": dict(point)}
        label = " ".join(f"{key}={value}" for key, value in point.items())
        return sweep.add(
            config, [], point, label=label, number=next(number), provenance={}, trial=trial
        )

    asked = Sweep(**{"method": "search", "jobs": 8, "pruner": None, **settings})
    return Search(sweep, Space(axes, paired, exclude), asked, make, limit=limit, note=note)


def loss(point: Mapping[str, Any]) -> float:
    """Best at a rate of 0.01 and four layers."""
    return float(abs(point.get("optimizer.lr", 0.01) - 0.01) + abs(point.get("model.depth", 4) - 4))


def complete(job: Run, **results: float) -> None:
    job.begin()
    write_json(job.results, {name.replace("_", "/"): v for name, v in results.items()})
    job.end("completed", 0)


def drive(folder: Path, log: Path, storage: str | None, stop_after: int) -> None:
    """Log `asked ID` and `told ID`; having asked for the last of some jobs, hang, one job told."""
    source = search(folder, storage=storage, jobs=12)
    with log.open("w", buffering=1) as lines:
        for count in range(1, 10**6):
            job = source.ask()
            if job is None:
                return
            print("asked", job.id, file=lines)
            while count == stop_after:
                time.sleep(1)
            if count == 1 or not stop_after:
                time.sleep(0.05)
                complete(job, val_loss=loss(job.varies))
                source.tell(job)
                print("told", job.id, file=lines)
