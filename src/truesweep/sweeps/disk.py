"""Room for what a sweep's jobs leave behind: on the disk, and within the user's budget."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from truesweep.analysis.outcomes import pareto_front, sign
from truesweep.errors import ConfigError
from truesweep.record.checkpoints import CheckpointFiles, drop_optimizer
from truesweep.record.frozen import point_id
from truesweep.runs.run import UNREADABLE, Run
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.protocols import ENDED
from truesweep.sweeps.settings import Sweep
from truesweep.text import quantity

OPTIMIZER, LAST = "optimizer", "last.ckpt"
"""What is dropped of a job: the optimizer's state, or the whole last checkpoint."""


def check_disk(jobs: Sequence[PlannedJob], path: Path) -> None:
    """Make sure that the checkpoints of new jobs fit on the disk.

    Raises:
        ConfigError: They do not.
    """
    needed = sum(job.disk for job in jobs)
    left, place = free(path)
    if needed > left:
        raise ConfigError(
            f"the checkpoints of {len(jobs)} jobs need about {quantity(needed, 'B')}, and "
            f"{quantity(left, 'B')} are free on {place}; make room, or start the sweep from a "
            "folder on a larger disk"
        )


def room(path: Path, jobs: Sequence[Run], budget: int | None) -> float:
    """Bytes that checkpoints of further jobs may take, which may be fewer than none.

    Args:
        path: Where a sweep is or will be.
        jobs: All that it has.
        budget: Bytes that the checkpoints of all its jobs may take, if there is a limit.
    """
    left = free(path)[0]
    return left if budget is None else min(left, budget - held(jobs))


def free(path: Path) -> tuple[int, Path]:
    """Bytes that are free where a folder is or will be, and the folder there that exists."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return shutil.disk_usage(place).free, place


def held(jobs: Sequence[Run]) -> int:
    """Bytes of all checkpoints of some jobs; a file with several names counts once."""
    return sum(dict(file for job in jobs for file in _files(job)).values())


def keep_within(budget: int, jobs: Sequence[Run], settings: Sweep) -> list[Run]:
    """Drop of a sweep's checkpoints what is missed least, until they take no more than a budget.

    Of jobs that have ended and are not the best: first the optimizer's state, worst first, then
    their last checkpoints. The weights of the best validation stay, and so does all of jobs that
    run, wait, or have failed and may be tried again.

    Args:
        budget: Bytes.
        jobs: All of the sweep.
        settings: By which objectives the best is chosen.

    Returns:
        The jobs that something was dropped of.
    """
    left = held(jobs)
    if left <= budget:
        return []
    dropped: dict[str, Run] = {}
    losers = _losers(jobs, settings)
    for what in (OPTIMIZER, LAST):
        for job in losers:
            if left <= budget:
                break
            if _drop(job, what):
                dropped[job.id] = job
                left = held(jobs)
    return list(dropped.values())


def _losers(jobs: Sequence[Run], settings: Sweep) -> list[Run]:
    """Jobs that are done for good and not the best, nor another seed of it; worst first."""
    ended = [job for job in jobs if job.state in ENDED]
    points: dict[str, list[Run]] = {}
    for job in ended:
        if job.state == "completed":
            points.setdefault(_point(job), []).append(job)
    means = np.array([_mean(point, settings) for point in points.values()])
    means = means.reshape(-1, len(settings.directions))
    leads = pareto_front(means, settings.directions)  # of one objective those with the best value
    badness: dict[str, float] = {}
    for point, mean, leading in zip(points.values(), means, leads, strict=True):
        worth = sign(settings.directions[0]) * float(mean[0])
        for job in point:
            badness[job.id] = -math.inf if leading else math.inf if math.isnan(worth) else worth
    losers = [job for job in ended if badness.get(job.id) != -math.inf]
    return sorted(losers, key=lambda job: badness.get(job.id, math.inf), reverse=True)


def _point(job: Run) -> str:
    """What it shares with other seeds; a job whose configuration cannot be read stands alone."""
    try:
        return point_id(job.read_config(), job.varies)
    except UNREADABLE:
        return job.id


def _mean(point: Sequence[Run], settings: Sweep) -> list[float]:
    """Each objective's mean over the seeds of a point; NaN where one has none."""
    columns = (
        [job.objective(name, mode) for job in point] for name, mode in settings.modes.items()
    )
    return [float(np.mean([math.nan if v is None else v for v in each])) for each in columns]


def _drop(job: Run, what: str) -> bool:
    """Drop a part of an ended job's checkpoints; False if it has none, or is being worked on."""
    before = job.status.get("dropped")
    last = job.checkpoints / "last.ckpt"
    if before in (LAST, what) or not last.exists():
        return False
    try:
        with job.claim():
            if job.state not in ENDED:  # somebody makes it longer
                return False
            job.update_status(dropped=what)  # told first, so that nothing goes on from what is left
            if what == LAST:
                CheckpointFiles().remove_checkpoint(last)
                return True
            for path in (last, job.checkpoints / "best.ckpt"):
                if path.is_file():  # sharded ones are folders
                    drop_optimizer(path)
    except UNREADABLE:  # it is damaged, or the disk is full: another one's turn
        return False
    return True


def _files(job: Run) -> Iterator[tuple[tuple[int, int], int]]:
    """A key and the size in bytes of each file of a job's checkpoints, of its branches' too."""
    for folder in (job.checkpoints, job.path / "branches"):
        for file in folder.rglob("*"):
            try:
                found = file.lstat()
            except FileNotFoundError:  # a job writes it anew
                continue
            if file.is_file():
                yield (found.st_dev, found.st_ino), found.st_size
