"""Steps that several jobs of a sweep have in common: the longest job trains them, once for all.

Two trainings that differ only in their length, in how their rate declines, in how patient their
early stopping is or in how often they are saved, are the same up to the step at which their rates
part, or one of them may stop. The longest of such jobs keeps its state there (a branch), and the
others go on from it: their directories, records and figures are what they would have been.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

from truesweep import dotted
from truesweep.errors import ConfigError
from truesweep.jobs.parts import make
from truesweep.optim.schedules import Schedule
from truesweep.record.frozen import fingerprint
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.planned import PlannedJob
from truesweep.text import plural

LENGTHS = ("max_steps", "max_epochs")
PATIENCE = "callbacks.early_stopping.patience"
LEAST_SHARE = 0.1
"""Of a job's steps that are shared, or waiting for the other job is not worth it."""
SHARDED = ("fsdp", "deepspeed", "model_parallel")
"""Strategies whose checkpoints are more than one file."""


def share(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Say of each job from which other it goes on, and of the others which states they keep."""
    trunk: dict[str, tuple[str, int]] = {}
    for group in _groups(jobs):
        longest = max(group, key=lambda job: (job.steps, _patience(job) or 0))
        for job in group:
            steps = 0 if job is longest else common_steps(job, longest)
            if steps >= max(1, LEAST_SHARE * job.steps):
                trunk[job.id] = longest.id, steps
    kept: dict[str, set[int]] = {}
    for other, step in trunk.values():
        kept.setdefault(other, set()).add(step)
    return [
        replace(job, trunk=trunk.get(job.id), branches=tuple(sorted(kept.get(job.id, ()))))
        for job in jobs
    ]


def _groups(jobs: Sequence[PlannedJob]) -> list[list[PlannedJob]]:
    """Jobs that differ in length, schedule, patience and saving only, where there are several."""
    groups: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        trainer = {k: v for k, v in job.config["trainer"].items() if k not in LENGTHS}
        if str(trainer.get("strategy", "")).startswith(SHARDED):
            continue
        same = copy.deepcopy({**job.config, "trainer": trainer, "scheduler": None})
        if _patience(job) is not None:  # else it keeps no count, which others would go on from
            dotted.put(same, PATIENCE, True)
        dotted.put(same, "callbacks.checkpoint.every_n_steps", None)
        groups.setdefault(fingerprint(same), []).append(job)
    return [group for group in groups.values() if len(group) > 1]


def common_steps(job: PlannedJob, longer: PlannedJob) -> int:
    """After how many steps two trainings of one group are in the same state at the latest.

    They have had the same rates and validations, the next step has the same rate, and each has a
    step left. Where their patience differs, none can have stopped.
    """
    one, other = _schedule(job), _schedule(longer)
    most = min(job.steps, longer.steps) - 1
    patience = _patience(job), _patience(longer)
    if patience[0] != patience[1]:
        most = min(most, min(p for p in patience if p) * job.validate_every - 1)
    for step in range(most + 1):
        rates = one.factor(step, job.steps), other.factor(step, longer.steps)
        due = step > 0 and (step % job.validate_every == 0) != (step % longer.validate_every == 0)
        if rates[0] != rates[1] or due:
            return max(0, step - 1)
    return max(0, most)


def _patience(job: PlannedJob) -> int | None:
    patience: int | None = dotted.get(job.config, PATIENCE)
    return patience


def _schedule(job: PlannedJob) -> Schedule:
    schedule: Schedule = make(job.config, "scheduler")
    return schedule


def describe(jobs: Sequence[PlannedJob]) -> list[str]:
    """What is saved, or could be, in sentences."""
    saved = sum(job.trunk[1] for job in jobs if job.trunk)
    if saved:
        whole = sum(job.steps for job in jobs)
        number = sum(job.trunk is not None for job in jobs)
        goes = "goes" if number == 1 else "go"
        return [
            f"{plural(number, 'job')} {goes} on from steps that another trains: "
            f"{whole - saved:,} steps in place of {whole:,} (sweeps.share=false trains each by "
            "itself)"
        ]
    lengths = max((len({job.steps for job in group}) for group in _groups(jobs)), default=1)
    if lengths == 1:
        return []
    return [
        f"{lengths} lengths are trained each from its start, since their rates or validations "
        "differ early. With scheduler=wsd, scheduler.warmup and trainer.val_check_interval in "
        "steps, the longest would train for all of them up to the decay"
    ]


# -- while jobs run --------------------------------------------------------------------------------


class Trunks:
    """Which jobs wait for another's state, and which states are still needed.

    Args:
        jobs: The sweep's.
    """

    def __init__(self, jobs: Sequence[Run]) -> None:
        self._runs = {job.id: job for job in jobs}
        places = {job.id: job.place for job in jobs}
        self._branches = {name: place.get("branches") or [] for name, place in places.items()}
        self._trunk = {
            name: (str(place["trunk"][0]), int(place["trunk"][1]))
            for name, place in places.items()
            if place.get("trunk")
        }

    def is_trunk(self, job: Run) -> bool:
        """Whether others go on from a job."""
        return bool(self._branches.get(job.id))

    def is_ready(self, job: Run, unfinished: Collection[Run]) -> bool:
        """Whether a job need not wait for another's state.

        Args:
            job: A job that is to be started.
            unfinished: The jobs that run or will.
        """
        if job.id not in self._trunk or job.status:
            return True
        name, step = self._trunk[job.id]
        trunk = self._runs.get(name)
        if trunk is None or branches.is_kept(trunk, step):
            return True
        may_come = step in self._branches[name] and trunk in unfinished
        return not may_come or int(trunk.status.get("saved_step") or 0) > step

    def branch(self, job: Run) -> tuple[str, int] | None:
        """Have a job go on from another's state, if that is there; the other's id and the step."""
        if job.id not in self._trunk:
            return None
        name, step = self._trunk[job.id]
        try:
            adopted = name in self._runs and branches.adopt(job, self._runs[name], step)
        except ConfigError:  # another driver has begun it
            return None
        self._forget(name, step)
        return (name, step) if adopted else None

    def tidy(self) -> None:
        """Remove the states that no job needs any more."""
        for trunk in set(self._trunk.values()):
            self._forget(*trunk)

    def _forget(self, name: str, step: int) -> None:
        needed = [self._runs[one] for one, trunk in self._trunk.items() if trunk == (name, step)]
        if name in self._runs and all(run.status for run in needed):
            branches.forget(self._runs[name], step)
