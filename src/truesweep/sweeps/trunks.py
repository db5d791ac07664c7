"""Steps that several jobs of a sweep have in common: the longest job trains them, once for all.

Two trainings that differ only in their length, in how their rate declines, in the shares of a
mixture's sources, in how patient their early stopping is, in how often they are saved or in what
only their end asks for, are the same up to the step at which their rates or samples part, or one of
them may stop. One of such jobs keeps its state there (a branch), and the others go on from it, and
others again from these: their directories, records and figures are what they would have been.

Where only their validations differ, a job validates the states that another has kept at the steps
at which its own validations are due, one after the other, and trains none of these steps.
"""

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from truesweep import dotted
from truesweep.data.mixture import without_order
from truesweep.jobs.parts import make, task_class
from truesweep.optim.schedules import Schedule
from truesweep.record.frozen import fingerprint
from truesweep.runs import branches
from truesweep.runs.run import UNREADABLE, BusyError, Run
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.protocols import ENDED
from truesweep.text import plural

INTERVAL = "trainer.val_check_interval"
VALIDATIONS = (
    *(INTERVAL, "data.eval_batch_size", "callbacks.early_stopping"),
    *("callbacks.checkpoint.monitor", "callbacks.checkpoint.mode"),
)
"""Keys of which validations are made, and what follows from them."""
MOST_STATES = 20
"""Validations of a job that are made up from states of another."""
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
UNTRIED = ("fsdp_", "deepspeed")
"""How strategies begin that share weights among ranks otherwise than `fsdp`, whose ranks write one
checkpoint as a whole."""


def share(jobs: Sequence[PlannedJob], room: float = math.inf) -> list[PlannedJob]:
    """Say of each job from which others it goes on, and of the others which states they keep.

    In all, no step is trained twice that need not be: jobs go on from the one that they have most
    steps in common with (a spanning tree of these, from the longest job on).

    Args:
        jobs: The jobs.
        room: Bytes for all checkpoints. Where these do not hold what validations are made up from,
            jobs share the steps before their validations differ.
    """
    shared = _share(jobs, replays=True)
    if sum(job.disk for job in shared) > room:
        shared = _share(jobs, replays=False)
    return shared


@dataclass(frozen=True)
class Shared:
    """What a job has in common with another.

    Args:
        other: The other's id.
        alike: Steps after which also their records are the same; it begins with that state.
        steps: Steps that are the same training.
        again: After which of these, in order, the state is needed beyond `alike`: those that it
            validates itself, and the last.
    """

    other: str
    alike: int
    steps: int
    again: tuple[int, ...]


def _share(jobs: Sequence[PlannedJob], replays: bool) -> list[PlannedJob]:
    found: dict[str, Shared] = {}
    for group in groups(jobs):
        found |= _tree(group, replays)
    kept: dict[str, set[int]] = {job.id: set() for job in jobs}
    trunk: dict[str, tuple[str, int]] = {}
    again: dict[str, tuple[tuple[str, int], ...]] = {}
    for name, part in reversed(found.items()):  # those that go on from a job come after it
        if part.alike:
            trunk[name] = _first(part.other, part.alike, found, "alike"), part.alike
        # What others need of a job it has, too, also where it is not the one that trains it.
        needed = {step for step in kept[name] if part.alike < step <= part.steps}
        steps = sorted(needed.union(part.again))
        again[name] = tuple((_first(part.other, step, found, "steps"), step) for step in steps)
        for other, step in (*([trunk[name]] if part.alike else []), *again[name]):
            kept[other].add(step)
    return [
        replace(
            job,
            trunk=trunk.get(job.id),
            replays=again.get(job.id, ()),
            branches=tuple(sorted(kept[job.id])),
        )
        for job in jobs
    ]


def _first(name: str, step: int, found: Mapping[str, Shared], what: str) -> str:
    """From a job on, the one that does a step itself, and does not take it from another."""
    while name in found and step <= getattr(found[name], what):
        name = found[name].other
    return name


def _tree(group: Sequence[PlannedJob], replays: bool) -> dict[str, Shared]:
    """Of each job of a group but the first, what it has in common with one before it."""
    first = max(group, key=lambda job: (job.steps, -job.validate_every, _patience(job) or math.inf))
    courses = {job.id: Course(job) for job in group}
    nothing = Shared(first.id, 0, 0, ())
    best = {job.id: nothing for job in group if job is not first}
    new, found = first.id, dict[str, Shared]()
    while best:
        for name, before in best.items():
            shared = courses[name].shared(courses[new], replays)
            best[name] = max(before, shared, key=lambda one: (one.steps, one.alike))
        new = max(best, key=lambda name: best[name].steps)
        shared = best.pop(new)
        if shared.steps >= max(1, LEAST_SHARE * courses[new].job.steps):
            found[new] = shared
    return found


def groups(jobs: Sequence[PlannedJob]) -> list[list[PlannedJob]]:
    """Jobs whose steps and validations may be the same for a while, where there are several."""
    groups: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        if str(job.config["trainer"].get("strategy", "")).startswith(UNTRIED):
            continue
        same = copy.deepcopy({**job.config, "scheduler": None, "targets": _callbacks(job)})
        for key in (*LENGTHS, *AT_NO_STEP, *_at_the_end(job), *_of_validations(job)):
            dotted.put(same, key, None)
        # The first batches of another order are other data to overfit to.
        if job.mix is not None and not job.trainer.overfit_batches:
            same["data"] = without_order(same["data"])
        groups.setdefault(fingerprint(same), []).append(job)
    return [group for group in groups.values() if len(group) > 1]


def _at_the_end(job: PlannedJob) -> list[str]:
    """Keys that count only when a job's last step is done."""
    task = task_class(job.config)
    # What another package's task inherits may be used otherwise there.
    own = task.__module__.startswith(OWN) or "ends_by" in vars(task)
    keys = [f"task.{key}" for key in task.ends_by(job.config["task"])] if own else []
    return keys if _harness_between(job) else [*keys, HARNESS]


def _of_validations(job: PlannedJob) -> list[str]:
    """Keys of which validations are made, and what follows from them; no step does."""
    task = task_class(job.config)
    own = task.__module__.startswith(OWN) or "validates_by" in vars(task)
    keys = [f"task.{key}" for key in task.validates_by()] if own else []
    return [*keys, *VALIDATIONS]


def _harness_between(job: PlannedJob) -> bool:
    """Whether tasks of lm-evaluation-harness are scored while it trains."""
    harness = dotted.get(job.config, HARNESS) or {}
    return bool(harness.get("tasks") and harness.get("every_n_steps"))


def _can_replay(job: PlannedJob) -> bool:
    """Whether nothing but validations goes on at the steps that another trains for it."""
    own = all(target.startswith(OWN) for target in _callbacks(job).values())
    return own and not _harness_between(job)


def _callbacks(job: PlannedJob) -> dict[str, str]:
    """The classes of its callbacks, by their names in the configuration."""
    nodes = (job.config.get("callbacks") or {}).items()
    return {name: str(node.get("_target_")) for name, node in nodes if isinstance(node, Mapping)}


class Course:
    """What a training does at each of its steps, as far as jobs of a group may differ in it."""

    def __init__(self, job: PlannedJob) -> None:
        self.job = job
        schedule: Schedule = make(job.config, "scheduler")
        self.rates = np.array([schedule.factor(step, job.steps) for step in range(job.steps)])
        keys = [key for key in _of_validations(job) if key != INTERVAL]
        settings = {key: dotted.get(job.config, key) for key in keys}
        if _patience(job) is not None:  # else it keeps no count, which others would go on from
            settings["callbacks.early_stopping"] = {**settings["callbacks.early_stopping"]}
            settings["callbacks.early_stopping"]["patience"] = True
        at_end = dict.fromkeys(_at_the_end(job))
        self.validations = fingerprint({**settings, **at_end, INTERVAL: job.validate_every})

    def shared(self, other: "Course", replays: bool, most: int | None = None) -> Shared:
        """What it may take from another training of its group.

        Args:
            other: The other.
            replays: Whether it may go on from steps that it has validated itself.
            most: The most steps that it may take; None: all.
        """
        steps = self._same_steps(other)
        steps = steps if most is None else min(steps, most)
        same = self._same_validations(other)
        alike = steps if same is None else min(steps, same)
        every = self.job.validate_every
        if not replays or alike == steps or not _can_replay(self.job):
            return Shared(other.job.id, alike, alike, ())
        if alike < min(every, other.job.validate_every):  # no validation yet
            alike = 0
        due = range(every * (alike // every + 1), steps, every)
        again = (*due[:MOST_STATES], *([steps] if len(due) < MOST_STATES else []))
        return Shared(other.job.id, alike, again[-1], again)

    def _same_steps(self, other: "Course") -> int:
        """After how many steps two trainings are in the same state at the latest.

        They have had the same rates and samples, the next step has the same rate, and each has a
        step left.
        """
        one, its = self.job, other.job
        most = [min(one.steps, its.steps) - 1]
        parted = np.flatnonzero(self.rates[: most[0] + 1] != other.rates[: most[0] + 1])
        if len(parted):
            most.append(int(parted[0]) - 1)
        if one.mix is not None and its.mix is not None:
            samples = one.mix.same_until(its.mix)
            most += [] if samples is None else [samples]
        return max(0, min(most))

    def _same_validations(self, other: "Course") -> int | None:
        """After how many steps both have recorded the same, and neither has stopped; None: all."""
        one, its = self.job, other.job
        if self.validations != other.validations:
            return min(one.validate_every, its.validate_every) - 1
        patience = _patience(one), _patience(its)
        if patience[0] == patience[1]:
            return None
        return min(p for p in patience if p) * one.validate_every - 1


def _patience(job: PlannedJob) -> int | None:
    patience: int | None = dotted.get(job.config, PATIENCE)
    return patience


def describe(jobs: Sequence[PlannedJob]) -> list[str]:
    """What is saved, or could be, in sentences."""
    saved = sum(job.shared_steps for job in jobs)
    if saved:
        whole = sum(job.steps for job in jobs)
        number = sum(job.shared_steps > 0 for job in jobs)
        goes = "goes" if number == 1 else "go"
        return [
            f"{plural(number, 'job')} {goes} on from steps that another trains: "
            f"{whole - saved:,} steps in place of {whole:,} (sweeps.share=false trains each by "
            "itself)"
        ]
    return offer(jobs)


def offer(jobs: Sequence[PlannedJob]) -> list[str]:
    """What several lengths that share no steps would share them by, in a sentence."""
    lengths = max((len({job.steps for job in group}) for group in groups(jobs)), default=1)
    if lengths == 1:
        return []
    return [
        f"{lengths} lengths are trained each from its start, since their rates "
        "differ early. With scheduler=wsd and scheduler.warmup in "
        "steps, the longest would train for all of them up to the decay"
    ]


# -- while jobs run --------------------------------------------------------------------------------


def status_of(run: Run) -> dict[str, Any] | None:
    """A run's status; None if that cannot be read, so that it is not known what the run needs."""
    try:
        return run.status
    except UNREADABLE:
        return None


def take_over(run: Run, states: Iterable[tuple[Run, int]]) -> tuple[str, int] | None:
    """Have a run that has not begun go on from the first of some states that can be had.

    Args:
        run: The run. If a file of it cannot be read, it is left to itself, and will say so.
        states: Of other runs: those, and their steps.

    Returns:
        The other's id and the step; None if it begins by itself.

    Raises:
        BusyError: Another process works on the run.
    """
    try:
        branches.clear(run)
        for other, step in states:
            if branches.adopt(run, other, step):
                return other.id, step
    except BusyError:
        raise
    except UNREADABLE:
        pass
    return None


class Trunks:
    """Which jobs wait for others' states, and which states are still needed.

    Args:
        jobs: The sweep's.
    """

    def __init__(self, jobs: Sequence[Run]) -> None:
        self._runs = {job.id: job for job in jobs}
        places = {job.id: job.place for job in jobs}
        self._all_known = all(places.values())
        self._branches = {name: place.get("branches") or [] for name, place in places.items()}
        self._trunk = {
            name: (str(place["trunk"][0]), int(place["trunk"][1]))
            for name, place in places.items()
            if place.get("trunk")
        }
        self._replays = {
            name: [(str(other), int(step)) for other, step in place.get("replays") or []]
            for name, place in places.items()
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
        if status_of(job) != {}:
            return True
        return not any(self._may_come(*state, unfinished) for state in self._states(job.id))

    def _may_come(self, name: str, step: int, unfinished: Collection[Run]) -> bool:
        """Whether a state is not there yet, and will be."""
        trunk = self._runs.get(name)
        if trunk is None or branches.is_kept(trunk, step):
            return False
        if step not in self._branches[name] or trunk not in unfinished:
            return False
        status = status_of(trunk)
        return status is not None and int(status.get("saved_step") or 0) <= step

    def branch(self, job: Run) -> tuple[str, int] | None:
        """Have a job go on from another's state, if that is there; the other's id and the step.

        Raises:
            BusyError: Another driver has begun it.
        """
        if job.id not in self._trunk:
            return None
        name, _ = self._trunk[job.id]
        states = [self._trunk[job.id], *reversed(self._last_of_trunk(job.id))]
        known = [(self._runs[name], step) for _, step in states if name in self._runs]
        branch = take_over(job, known)
        for state in states:
            self._forget(*state)
        return branch

    def _last_of_trunk(self, name: str) -> list[tuple[str, int]]:
        """What a trunk has kept where it stopped early, before the state that a job waits for."""
        other, step = self._trunk.get(name, ("", 0))
        if other not in self._runs:
            return []
        kept = [at for at in branches.kept(self._runs[other]) if at < step]
        return [(other, at) for at in kept if at not in self._branches[other]]

    def tidy(self, job: Run | None = None) -> None:
        """Remove the states that no job needs any more.

        Args:
            job: One that has ended: of those that it has needed, while jobs that have failed may
                be tried again. None: the sweep is over.
        """
        names = self._runs if job is None else [job.id]
        over = (*ENDED, "failed") if job is None else ENDED
        states = {state for name in names for state in self._states(name)}
        states |= {state for name in names for state in self._last_of_trunk(name)}
        if job is None and self._all_known:  # also those of jobs that did not come
            states |= {(one.id, at) for one in self._runs.values() for at in branches.kept(one)}
        for state in states:
            self._forget(*state, over)

    def _states(self, name: str) -> list[tuple[str, int]]:
        """The states of others that a job goes on from, by their ids and steps, in order."""
        trunk = [self._trunk[name]] if name in self._trunk else []
        return [*trunk, *self._replays.get(name, [])]

    def _forget(self, name: str, step: int, over: Collection[str] = ENDED) -> None:
        state = name, step
        if name in self._runs and not any(self._needs(one, state, over) for one in self._runs):
            branches.forget(self._runs[name], step)

    def _needs(self, name: str, state: tuple[str, int], over: Collection[str]) -> bool:
        """Whether a job that is in none of the states that are `over` is to go on from a state."""
        if state not in self._states(name) and state not in self._last_of_trunk(name):
            return False
        run = self._runs[name]
        status = status_of(run)
        if not status:  # it has not begun, or it is not known whether it has
            return True
        if state not in self._replays[name]:
            return False
        return run.state not in over and int(status.get("saved_step") or 0) < state[1]
