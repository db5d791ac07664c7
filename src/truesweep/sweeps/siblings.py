"""Steps that jobs have in common: who comes later goes on from what others have kept.

So it is with jobs of a search, and with those that others start, in an order that nobody knows: by
another launcher of Hydra's, or by the commands of `--jobs json`.

A search proposes its points one by one, so that nobody knows beforehand which jobs there will be,
nor in what order. But where all axes list their values it is known which there may be. A job keeps
its state at the steps after which one that may come would part from it, and begins, when it is
started, with the furthest state that is there by then: it waits for none. What it comes to is bit
for bit what it would have come to by itself.

A job that may be paused or pruned begins with no state beyond the first validation that decides on
it, so that the search hears and decides the same as if the job had trained all its steps itself.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from truesweep.analysis.thaw import first_rung
from truesweep.config.space import Axis, Point, Space
from truesweep.errors import UserError
from truesweep.jobs.pausing import FORECAST
from truesweep.record.files import dump_json
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.protocols import ENDED
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.trunks import (
    LEAST_SHARE,
    MOST_STATES,
    Course,
    Shared,
    Trunks,
    groups,
    offer,
    status_of,
    take_over,
)
from truesweep.terminal import console

MOST = 50
"""Points that may have steps in common with one; where there are more, none is looked for."""
OPEN = ("running", "interrupted")
"""States of jobs that somebody works on, or will when a search is resumed."""


class Family:
    """Finds what the jobs of a search have in common with others that it may come to.

    Args:
        space: What the search varies.
        settings: The search's.
        plan: Gives the job at a point, with a seed.
    """

    def __init__(
        self, space: Space, settings: Sweep, plan: Callable[[Point, int | None], PlannedJob]
    ) -> None:
        self._space = space
        self._settings = settings
        self._plan = plan
        self._varied: list[list[Axis]] | None = None
        self._jobs: dict[str, PlannedJob | None] = {}
        self._courses: dict[str, Course] = {}

    def job(
        self, point: Point, seed: int | None, pruner: Mapping[str, Any] | None, room: float
    ) -> PlannedJob:
        """The job at a point, which knows what it shares with those that are like it.

        Args:
            point: The point.
            seed: Its seed, where points have several.
            pruner: What decides on the job, and on those like it, if anything does.
            room: Bytes for its checkpoints. Where these do not hold all states that it would keep,
                it keeps those that others begin with, or none.

        Raises:
            UserError: The job cannot run.
        """
        known = self._found([point], seed)
        job = known[0] if known else self._plan(point, seed)  # which says why it cannot
        if self._varied is None:
            self._varied = _varied(
                self._space, self._settings, lambda axes: self._may_share(axes, point, seed)
            )
        found = self._found(self._space.beside(point, self._varied), seed)
        others = [one for one in found if one.id != job.id]
        group = next((group for group in groups([job, *others]) if group[0] is job), [job])
        mine, *theirs = map(self._course, group)
        for replays in (True, False):
            related = _relate(mine, theirs, pruner, replays)
            if related.disk <= room:
                return related
        return job

    def _may_share(self, axes: Sequence[Axis], point: Point, seed: int | None) -> bool:
        """Whether points that differ in a dimension only may have steps in common."""
        rows = zip(*(axis.values for axis in axes), strict=True)
        values = [{a.key: v for a, v in zip(axes, row, strict=True)} for row in rows]
        other = next((one for one in values if {**point, **one} != point), {})
        return bool(groups(self._found([point, {**point, **other}], seed)))

    def _found(self, points: Iterable[Point], seed: int | None) -> list[PlannedJob]:
        """The jobs at some points, without those that cannot run; the same one once."""
        found: dict[str, PlannedJob] = {}
        for point in points:
            key = dump_json([point, seed])
            if key not in self._jobs:
                try:
                    self._jobs[key] = self._plan(point, seed)
                except UserError:
                    self._jobs[key] = None
            if (job := self._jobs[key]) is not None:
                found.setdefault(job.id, job)
        return list(found.values())

    def _course(self, job: PlannedJob) -> Course:
        if job.id not in self._courses:
            self._courses[job.id] = Course(job)
        return self._courses[job.id]


def _varied(
    space: Space, settings: Sweep, may_share: Callable[[Sequence[Axis]], bool]
) -> list[list[Axis]]:
    """The dimensions in which points may differ that have steps in common, if such points come.

    In an interval no two points agree, unless one is the other's neighbour in another dimension.
    """
    listed = [axes for axes in space.dimensions if axes[0].values]
    if len(listed) < len(space.dimensions) and settings.sampler != "climb":
        return []
    found = [axes for axes in listed if may_share(axes)]
    return found if math.prod(len(axes[0].values) for axes in found) <= MOST else []


def _relate(
    mine: Course, theirs: Sequence[Course], pruner: Mapping[str, Any] | None, replays: bool
) -> PlannedJob:
    """A job that knows which states of others it may begin with, and which it keeps for them.

    Args:
        mine: The job.
        theirs: Those that may share steps with it.
        pruner: What decides on all of them, if anything does.
        replays: Whether they may go on from steps that they have validated themselves.
    """
    taken = [_shared(mine, other, pruner, replays) for other in theirs]
    given = [_shared(other, mine, pruner, replays) for other in theirs]
    again = sorted((step, one.other) for one in taken for step in one.again)
    kept = {step for one in given for step in (one.alike, *one.again)}
    return replace(
        mine.job,
        siblings=tuple(
            (one.other, one.alike)
            for one, its in zip(taken, given, strict=True)
            if one.steps or its.steps
        ),
        replays=tuple((other, step) for step, other in again),
        branches=_few(sorted(kept - {0})),
    )


def _shared(one: Course, other: Course, pruner: Mapping[str, Any] | None, replays: bool) -> Shared:
    """What a job may begin with of another; nothing, if that is hardly worth a state."""
    most = one.job.steps
    if pruner is not None:
        every = pruner["warmup"] if pruner["name"] == FORECAST else one.job.validate_every
        most = first_rung(one.job.steps, one.job.validate_every, every)
    found = one.shared(other, replays, most)
    worth = found.steps >= max(1, LEAST_SHARE * most)
    return found if worth else Shared(other.job.id, 0, 0, ())


def _few(steps: Sequence[int]) -> tuple[int, ...]:
    """At most `MOST_STATES` of some steps, at even places among them."""
    number = min(len(steps), MOST_STATES)
    return tuple(steps[int(i)] for i in np.linspace(0, len(steps) - 1, number).round())


# -- jobs that are known, and started by others ----------------------------------------------------


def relate(jobs: Sequence[PlannedJob], room: float = math.inf) -> list[PlannedJob]:
    """Say of each job which states of others it may begin with, and which it keeps for them.

    In whatever order they are started, and beside each other or not. The longest come first, as
    most of their steps are others' too.

    Args:
        jobs: The jobs.
        room: Bytes for all checkpoints. Where these do not hold all states, jobs begin with states
            alone, and where those of these do not fit either, they share nothing.
    """
    for replays in (True, False):
        related = {
            mine.job.id: _relate(mine, [one for one in courses if one is not mine], None, replays)
            for courses in _courses(jobs)
            for mine in courses
        }
        found = [related.get(job.id, job) for job in jobs]
        if sum(job.disk for job in found) <= room:
            keeping = any(job.branches for job in found)
            return sorted(found, key=lambda job: -job.steps) if keeping else found
    return list(jobs)


def _courses(jobs: Sequence[PlannedJob]) -> list[list[Course]]:
    return [[Course(job) for job in group] for group in groups(jobs) if len(group) <= MOST]


def describe_related(jobs: Sequence[PlannedJob]) -> list[str]:
    """What such jobs save at most, or what they could share, in sentences."""
    if not any(job.branches for job in jobs):
        return offer(jobs)
    saved = 0
    for courses in _courses(jobs):
        for place, mine in enumerate(courses):
            shared = (_shared(mine, one, None, True) for one in courses[:place])
            kept = set(mine.job.siblings) | set(mine.job.replays)
            known = [one.steps for one in shared if any(one.other == name for name, _ in kept)]
            saved += max(known, default=0)
    whole = sum(job.steps for job in jobs)
    return [
        "each job begins with what others have kept by then, and waits for none: one after the "
        f"other, in this order, they train {whole - saved:,} steps in place of {whole:,}, and all "
        f"at once {whole:,} (sweeps.share=false trains each by itself)"
    ]


def describe(jobs: Sequence[PlannedJob], space: Space, settings: Sweep) -> list[str]:
    """What jobs of a search may share, in a sentence, if that is anything.

    Args:
        jobs: Some that it may come to, among them two that differ in one dimension only, of each.
        space: What it varies.
        settings: Its settings.
    """
    names = {frozenset(axis.name for axis in axes): axes for axes in space.dimensions}
    pairs: dict[frozenset[str], list[tuple[PlannedJob, PlannedJob]]] = {}
    for group in groups(jobs):
        for one, other in itertools.permutations(group, 2):
            differ = frozenset(k for k in one.varies if one.varies[k] != other.varies.get(k))
            if differ in names:
                pairs.setdefault(differ, []).append((one, other))
    varied = _varied(space, settings, lambda axes: frozenset(a.name for a in axes) in pairs)
    pruner = {"name": settings.pruner, "warmup": settings.pruner_warmup}
    deciding = pruner if settings.pruner else None
    courses = {job.id: Course(job) for job in jobs if varied}
    shares: list[tuple[float, int, int]] = []
    keys: dict[str, None] = {}
    for axes in varied:
        for one, other in pairs[frozenset(axis.name for axis in axes)]:
            found = _shared(courses[one.id], courses[other.id], deciding, replays=True)
            if found.steps:
                shares.append((found.steps / one.steps, found.steps, one.steps))
                keys |= dict.fromkeys(axis.name for axis in axes)
    if not shares:
        return offer(jobs) if varied else []
    _, steps, total = max(shares)
    return [
        f"points that differ in {', '.join(keys)} only share steps: one that comes later begins "
        f"with what others have kept, after up to {steps:,} of {total:,} steps "
        "(sweeps.share=false trains each from its start)"
    ]


# -- while jobs run --------------------------------------------------------------------------------


@contextmanager
def started_by_itself(job: Run) -> Iterator[None]:
    """Have a job begin with what others have kept, and remove in the end what none needs any more.

    For one that no driver starts.
    """
    if not any(job.place.get(key) for key in ("siblings", "trunk", "replays")):
        yield
        return
    sweep = SweepDirectory(job.path.parent)
    shares = Siblings(sweep) if job.place.get("siblings") else Either(sweep, sweep.jobs())
    if not job.status and (found := shares.branch(job)):
        name, step = found
        console().print(f"Going on from step {step:,} of {name}, which is the same until there")
    yield
    if job.state in ENDED:
        shares.tidy(job)


class Siblings:
    """Which states jobs begin with that wait for none, and which may still be needed.

    Args:
        sweep: The sweep's directory.
    """

    def __init__(self, sweep: SweepDirectory) -> None:
        self._sweep = sweep

    def is_trunk(self, job: Run) -> bool:
        """Whether others wait for a job: none does."""
        return False

    def is_ready(self, job: Run, unfinished: Collection[Run]) -> bool:
        """Whether a job need not wait for another's state: it never does."""
        return True

    def branch(self, job: Run) -> tuple[str, int] | None:
        """Have a job begin with the furthest state that is there; the other's id and the step.

        Raises:
            BusyError: Another driver has begun it.
        """
        found = [
            (other, step)
            for other, most in self._states(job, "siblings")
            for step in branches.kept(other)
            if step <= most
        ]
        return take_over(job, sorted(found, key=lambda one: one[1], reverse=True))

    def tidy(self, job: Run | None = None) -> None:
        """Remove the states that no job needs any more.

        Args:
            job: One that has ended or waits: of those that it shares steps with. None: the search
                is over, unless another driver is still at it.
        """
        if job is not None:
            states = [*self._states(job, "siblings"), *self._states(job, "replays")]
            family = {one.id: one for one in [job, *(other for other, _ in states)]}
            self.tidy_among(family.values())
            return
        jobs = self._sweep.jobs()
        if not any(one.state in OPEN for one in jobs):
            for one in jobs:
                branches.forget_all(one)

    def tidy_among(self, family: Collection[Run]) -> None:
        """Remove the states of some jobs that none of them needs any more."""
        for one in family:
            for step in branches.kept(one):
                if not any(self._may_need(other, one, step) for other in family):
                    branches.forget(one, step)

    def _may_need(self, run: Run, other: Run, step: int) -> bool:
        """Whether a job that may be made yet, or is not done, may go on from another's state."""
        status = status_of(run) if Run.is_at(run.path) else {}
        if not status:  # it has not begun, or it is not known whether it has
            return True
        if (other.id, step) not in {(one.id, at) for one, at in self._states(run, "replays")}:
            return False
        return run.state not in ENDED and int(status.get("saved_step") or 0) < step

    def _states(self, job: Run, key: str) -> list[tuple[Run, int]]:
        """States of other jobs, made yet or not, that a job's place in the search names."""
        named = job.place.get(key) or []
        return [(Run(self._sweep.path / str(name)), int(step)) for name, step in named]


class Either:
    """Which jobs wait for others' states, and which begin with what is there, in one sweep.

    A driver may have begun it, and `--jobs json` may have added to it, or the other way round.

    Args:
        sweep: The sweep's directory.
        jobs: All of it.
    """

    def __init__(self, sweep: SweepDirectory, jobs: Sequence[Run]) -> None:
        self._siblings = Siblings(sweep)
        self._family = {job.id: job for job in jobs if job.place.get("siblings")}
        self._trunks = Trunks([job for job in jobs if job.id not in self._family])

    def _of(self, job: Run) -> Trunks | Siblings:
        return self._siblings if job.id in self._family else self._trunks

    def is_trunk(self, job: Run) -> bool:
        """Whether others wait for a job."""
        return self._of(job).is_trunk(job)

    def is_ready(self, job: Run, unfinished: Collection[Run]) -> bool:
        """Whether a job need not wait for another's state."""
        return self._of(job).is_ready(job, unfinished)

    def branch(self, job: Run) -> tuple[str, int] | None:
        """Have a job go on from another's state, if one is there; the other's id and the step.

        Raises:
            BusyError: Another driver has begun it.
        """
        return self._of(job).branch(job)

    def tidy(self, job: Run | None = None) -> None:
        """Remove the states that no job needs any more: of those that one has shared, or all."""
        if job is not None:
            self._of(job).tidy(job)
            return
        self._trunks.tidy()
        self._siblings.tidy_among(self._family.values())
