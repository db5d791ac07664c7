"""Steps that several jobs of a sweep have in common: the longest job trains them, once for all.

Two trainings that differ only in their length, in how their rate declines, in the shares of a
mixture's sources, in how patient their early stopping is, in how often they are saved or in what
only their end asks for, are the same up to the step at which their rates or samples part, or one of
them may stop. One of such jobs keeps its state there (a branch), and the others go on from it, and
others again from these: their directories, records and figures are what they would have been.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from truesweep import dotted
from truesweep.data.mixture import without_order
from truesweep.errors import ConfigError
from truesweep.jobs.parts import make, task_class
from truesweep.optim.schedules import Schedule
from truesweep.record.frozen import fingerprint
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.planned import PlannedJob
from truesweep.text import plural

LENGTHS = ("trainer.max_steps", "trainer.max_epochs")
AT_NO_STEP = tuple(
    f"callbacks.checkpoint.{key}" for key in ("every_n_steps", "keep_optimizer", "background")
)
"""Keys that change neither what a step does nor what a validation says."""
HARNESS = "callbacks.harness"
OWN = "truesweep."
"""The package whose tasks are known not to use the keys of an evaluation in a step."""
PATIENCE = "callbacks.early_stopping.patience"
LEAST_SHARE = 0.1
"""Of a job's steps that are shared, or waiting for the other job is not worth it."""
SHARDED = ("fsdp", "deepspeed", "model_parallel")
"""Strategies whose checkpoints are more than one file."""


def share(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Say of each job from which other it goes on, and of the others which states they keep.

    In all, no step is trained twice that need not be: jobs go on from the one that they have most
    steps in common with (a spanning tree of these, from the longest job on).
    """
    trunk: dict[str, tuple[str, int]] = {}
    for group in _groups(jobs):
        first = max(group, key=lambda job: (job.steps, _patience(job) or 0))
        best = {job.id: (0, first) for job in group if job is not first}
        courses = {job.id: _Course(job) for job in group}
        new = first
        while best:
            for job in group:
                if job.id in best:
                    steps = courses[job.id].common_steps(courses[new.id])
                    best[job.id] = max(best[job.id], (steps, new), key=lambda found: found[0])
            new = max((job for job in group if job.id in best), key=lambda job: best[job.id][0])
            steps, other = best.pop(new.id)
            if steps >= max(1, LEAST_SHARE * new.steps):
                trunk[new.id] = other.id, steps
    kept: dict[str, set[int]] = {}
    for name, step in trunk.values():
        kept.setdefault(name, set()).add(step)
    return [
        replace(job, trunk=trunk.get(job.id), branches=tuple(sorted(kept.get(job.id, ()))))
        for job in jobs
    ]


def _groups(jobs: Sequence[PlannedJob]) -> list[list[PlannedJob]]:
    """Jobs whose steps and validations may be the same for a while, where there are several."""
    groups: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        if str(job.config["trainer"].get("strategy", "")).startswith(SHARDED):
            continue
        same = copy.deepcopy({**job.config, "scheduler": None})
        for key in (*LENGTHS, *AT_NO_STEP):
            dotted.put(same, key, None)
        for key in _at_the_end(job):
            dotted.put(same, key, None)
        # The first batches of another order are other data to overfit to.
        if job.mix is not None and not job.trainer.overfit_batches:
            same["data"] = without_order(same["data"])
        if _patience(job) is not None:  # else it keeps no count, which others would go on from
            dotted.put(same, PATIENCE, True)
        groups.setdefault(fingerprint(same), []).append(job)
    return [group for group in groups.values() if len(group) > 1]


def _at_the_end(job: PlannedJob) -> list[str]:
    """Keys that count only when a job's last step is done."""
    task = task_class(job.config)
    own = task.__module__.startswith(OWN) or "ends_by" in vars(
        task
    )  # what is inherited may be used otherwise
    keys = [f"task.{key}" for key in task.ends_by(job.config["task"])] if own else []
    harness = dotted.get(job.config, HARNESS) or {}
    between = harness.get("tasks") and harness.get("every_n_steps")
    return keys if between else [*keys, HARNESS]


class _Course:
    """What a training does at each of its steps, as far as jobs of a group may differ in it."""

    def __init__(self, job: PlannedJob) -> None:
        self.job = job
        schedule: Schedule = make(job.config, "scheduler")
        self.rates = np.array([schedule.factor(step, job.steps) for step in range(job.steps)])

    def common_steps(self, other: "_Course") -> int:
        """After how many steps two trainings of a group are in the same state at the latest.

        They have had the same rates, samples and validations, the next step has the same rate, and
        each has a step left. Where their patience differs, none can have stopped.
        """
        one, its = self.job, other.job
        most = [min(one.steps, its.steps) - 1]
        if one.validate_every != its.validate_every:
            most.append(min(one.validate_every, its.validate_every) - 1)
        patience = _patience(one), _patience(its)
        if patience[0] != patience[1]:
            most.append(min(p for p in patience if p) * one.validate_every - 1)
        parted = np.flatnonzero(self.rates[: most[0] + 1] != other.rates[: most[0] + 1])
        if len(parted):
            most.append(int(parted[0]) - 1)
        if one.mix is not None and its.mix is not None:
            samples = one.mix.same_until(its.mix)
            most += [] if samples is None else [samples]
        return max(0, min(most))


def _patience(job: PlannedJob) -> int | None:
    patience: int | None = dotted.get(job.config, PATIENCE)
    return patience


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
