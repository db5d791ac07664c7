"""The points of a sweep, and jobs that are known to start: all is checked before job 0."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from truesweep.config.compose import Composed, PointComposer
from truesweep.config.space import Point, Space
from truesweep.errors import ConfigError, UserError
from truesweep.jobs.parts import complete
from truesweep.jobs.plan import Planner, data_key
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory, job_id
from truesweep.sweeps.disk import room
from truesweep.sweeps.planned import PlannedJob, trainer_of
from truesweep.sweeps.request import Asked
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.siblings import Family, describe_related, relate
from truesweep.sweeps.trunks import describe, groups, share
from truesweep.text import label, labels

PROBES = 20
"""Random points of a search's space that are checked beforehand, besides its corners."""
UNTOLD = 100
"""Points that a search is taken to come to where it has hours alone."""


def choose_points(asked: Asked, notes: list[str]) -> list[Point]:
    """All points of a grid, or random ones; of a search some that it may come to.

    Args:
        asked: The sweep.
        notes: Gets what the user may want to know.

    Raises:
        ConfigError: The space does not fit the method.
    """
    settings, space = asked.settings, asked.space
    if settings.method == "search":
        points = _probes(space)
    elif settings.method == "grid":
        points = space.grid()
        if settings.jobs is not None and len(points) > settings.jobs:
            raise ConfigError(
                f"the grid has {len(points)} points, more than sweeps.jobs={settings.jobs}; "
                "raise it, or try some of them with sweeps.method=random"
            )
    else:
        assert settings.jobs is not None, "random points have a number"
        points = space.sample(settings.jobs)
        if len(points) < settings.jobs:
            notes.append(f"the space has no more than {len(points)} points")
    if not points:
        raise ConfigError("every point of the space is excluded; mend sweeps.exclude")
    return points


def _probes(space: Space) -> list[Point]:
    """Points of a search's space: each value, or each end, of every axis, and some by chance."""
    middle = space.sample(PROBES)
    corners = [
        {**middle[0], **dict(zip((axis.key for axis in axes), values, strict=True))}
        for axes in space.dimensions
        if middle
        for values in zip(*(axis.values or (axis.low, axis.high) for axis in axes), strict=True)
    ]
    probes: list[Point] = []
    for point in [*corners, *middle]:
        if point not in probes and not space.excluded(point):
            probes.append(point)
    return probes


def base_seed(asked: Asked) -> int:
    """The configuration's own seed, from which a number of seeds counts up."""
    return int(asked.example()["seed"])


def choose_seeds(asked: Asked) -> Sequence[int | None]:
    """The seeds of each point; all points come to their first before any comes to its second."""
    if asked.settings.seeds == 1:
        return [None]
    return asked.settings.seed_list(base_seed(asked))


PRECISION = "trainer.precision"
NAMED = 3
"""How many jobs a problem names."""


@dataclass(frozen=True)
class SweepPlan:
    """All jobs of a grid or of random points; of a search, some of those it may come to.

    Args:
        jobs: In the order in which they start.
        notes: What the user may want to know, such as duplicates that were dropped.
        ids: The job's id for each point that was asked for, duplicates included.
        decided: Settings of a search that were left to its plan, by name.
    """

    jobs: list[PlannedJob]
    notes: list[str]
    ids: list[str]
    decided: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A job before it is checked.

    Args:
        compose: Gives its configuration.
        varies: The swept keys and their values.
    """

    compose: Callable[[], Composed]
    varies: dict[str, Any]


class Problems:
    """What is wrong with which jobs, each problem once.

    Args:
        total: The number of jobs.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._found: dict[str, list[str]] = {}

    @contextmanager
    def of(self, varies: Mapping[str, Any]) -> Iterator[None]:
        """Note a problem of a job in place of raising it."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self._found.setdefault(line, []).append(label(varies))

    def refuse(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: There are problems.
        """
        if self._found:
            lines = [f"{line}\n  {self._where(jobs)}" for line, jobs in self._found.items()]
            raise ConfigError("\n".join(lines))

    def _where(self, jobs: Sequence[str]) -> str:
        if len(jobs) == self._total:
            return f"in all {self._total} jobs"
        return f"in {len(jobs)} of {self._total} jobs: {some(jobs)}"


def some(jobs: Sequence[str]) -> str:
    """The first of some jobs."""
    return "; ".join(jobs[:NAMED]) + ("; …" if len(jobs) > NAMED else "")


def plan_sweep(asked: Asked, together: bool = True) -> SweepPlan:
    """Compose and check every job of a sweep; of a search, the corners and some random points.

    Args:
        asked: The sweep.
        together: Whether our driver runs the jobs, so that one can wait for another's state.

    Raises:
        UserError: With all problems of all jobs.
    """
    notes: list[str] = []
    points = choose_points(asked, notes)
    composer = asked.composer()
    candidates = [
        _candidate(composer, point, seed) for seed in choose_seeds(asked) for point in points
    ]
    plan = plan_candidates(asked.name, candidates, notes)
    if asked.settings.method == "search" or not asked.settings.share:
        return plan
    sweep = SweepDirectory.called(asked.name)
    new, old = sharing(sweep, plan.jobs, asked.settings, together)
    told = describe(new) if together else describe_related(new)
    jobs = {job.id: job for job in [*old, *new]}
    order = plan.jobs if together else [*old, *new]
    return replace(plan, jobs=[jobs[job.id] for job in order], notes=[*plan.notes, *told])


def sharing(
    sweep: SweepDirectory, jobs: Sequence[PlannedJob], settings: Sweep, together: bool = True
) -> tuple[list[PlannedJob], list[PlannedJob]]:
    """Jobs that are new to a sweep, each knowing what it shares with the others; and the old ones.

    Args:
        sweep: The sweep's directory, which need not exist.
        jobs: Those that are known to start.
        settings: The sweep's.
        together: Whether our driver runs the jobs, so that one can wait for another's state.
    """
    old = [job for job in jobs if sweep.find(job.config) is not None]
    known = {job.id for job in old}
    new = [job for job in jobs if job.id not in known]
    if not settings.share:
        return new, old
    left = room(sweep.path, sweep.jobs(), settings.budget)
    find = share if together else relate
    begun = _as_begun(sweep, find(jobs, left), known) if old and new else {}
    return [begun.get(job.id, job) for job in find(new, left)], old


def _as_begun(
    sweep: SweepDirectory, jobs: Sequence[PlannedJob], known: Collection[str]
) -> dict[str, PlannedJob]:
    """Of jobs that share steps with old ones those that the old ones count on, by their ids.

    Their command was killed before all had a directory, or a directory was deleted.

    Args:
        sweep: The sweep's directory.
        jobs: All, each as it would be if all were new.
        known: The ids of the old ones.
    """
    planned = {job.id: job for job in jobs}
    found: dict[str, PlannedJob] = {}
    for group in groups(jobs):
        if all(planned[one.id].is_placed(sweep) for one in group if one.id in known):
            found |= {one.id: one for one in group if one.id not in known}
    return found


def plan_candidates(
    name: str, candidates: Sequence[Candidate], notes: Sequence[str] = ()
) -> SweepPlan:
    """Check every one of many jobs; the same one is planned once.

    Raises:
        UserError: With all problems of all jobs.
    """
    problems = Problems(len(candidates))
    found: dict[str, _Checked] = {}
    ids: list[str] = []
    same: list[str] = []
    for candidate in candidates:
        with problems.of(candidate.varies):
            checked = _check(candidate, name)
            ids.append(job_id(checked.config))
            twin = found.setdefault(ids[-1], checked)
            if twin is not checked:
                same.append(f"{label(candidate.varies)} is {label(twin.varies)}")
    problems.refuse()
    jobs = _plan_all(list(found.values()), problems)
    problems.refuse()
    # What planning settles may make jobs the same.
    settled = {before: job.id for before, job in zip(found, jobs, strict=True)}
    first = {job.id: job for job in reversed(jobs)}
    twins = [(job, first[job.id]) for job in jobs if first[job.id] is not job]
    same += [f"{job.label} is {twin.label}" for job, twin in twins]
    unique = _labelled([job for job in jobs if first[job.id] is job])
    return SweepPlan(unique, [*notes, *_note_same(same)], [settled[one] for one in ids])


class JobMaker:
    """Makes the jobs of a search one by one; what they share is composed and built once.

    Relative paths are relative to the folder in which it was made.

    Args:
        asked: The sweep.
        sweep: Its directory.
        provenance: Where the jobs' numbers will come from, but for the data.
    """

    def __init__(self, asked: Asked, sweep: SweepDirectory, provenance: Mapping[str, Any]) -> None:
        self._asked = asked
        self._sweep = sweep
        self._provenance = provenance
        self._folder = Path.cwd()
        self._composer = asked.composer()
        self._planner = Planner()
        first = next((job for job in sweep.jobs() if job.problem is None), None)
        self._precision = None if first is None else trainer_of(first).precision
        shares = asked.settings.share
        self._family = Family(asked.space, asked.settings, self._plan) if shares else None

    def __call__(self, point: Point, seed: int, trial: Mapping[str, Any]) -> Run:
        """The job at a point, with a directory.

        Raises:
            UserError: It cannot run.
        """
        settings, jobs = self._asked.settings, self._sweep.jobs()
        own = seed if settings.seeds != 1 else None
        with chdir(self._folder):
            if self._family is None:
                job = self._plan(point, own)
            else:
                left = room(self._sweep.path, jobs, settings.budget) / self._to_come(len(jobs))
                job = self._family.job(point, own, trial.get("pruner"), left)
        return job.add_to(self._sweep, len(jobs), self._provenance, trial)

    def _to_come(self, made: int) -> int:
        """How many jobs there may be yet, this one included."""
        settings = self._asked.settings
        points = UNTOLD if settings.jobs is None else settings.jobs
        return max(1, points * len(settings.seed_list(0)) - made)

    def _plan(self, point: Point, seed: int | None) -> PlannedJob:
        candidate = _candidate(self._composer, point, seed)
        return _plan(self._planner, _check(candidate, self._asked.name, self._precision))


@dataclass(frozen=True)
class _Checked:
    config: dict[str, Any]
    composed: Composed
    varies: dict[str, Any]


def _candidate(composer: PointComposer, point: Point, seed: int | None) -> Candidate:
    whole = point if seed is None else {**point, "seed": seed}
    varies = {key.lstrip("+~"): value for key, value in whole.items()}
    return Candidate(partial(composer.compose, whole), varies)


def _check(candidate: Candidate, name: str, precision: str | None = None) -> _Checked:
    """Check a job.

    Args:
        candidate: The job.
        name: The sweep's.
        precision: What `trainer.precision=auto` is, if it does not vary; None: what this machine
            takes. A search that another machine goes on with compares like with like.
    """
    composed = candidate.compose()
    trainer = composed.config.get("trainer") or {}
    if precision and trainer.get("precision") == "auto" and PRECISION not in candidate.varies:
        composed.config["trainer"] = {**trainer, "precision": precision}
    config = complete(composed.config, composed.origins)
    return _Checked({**config, "name": name}, composed, candidate.varies)


def _plan_all(checked: Sequence[_Checked], problems: Problems) -> list[PlannedJob]:
    """Plan jobs, those with the same data one after the other, so that data are loaded once."""
    planner = Planner()
    planned: dict[int, PlannedJob] = {}
    for index in sorted(range(len(checked)), key=lambda i: data_key(checked[i].config)):
        with problems.of(checked[index].varies):
            planned[index] = _plan(planner, checked[index])
    return [planned[index] for index in sorted(planned)]


def _plan(planner: Planner, checked: _Checked) -> PlannedJob:
    plan = planner.plan(checked.config, checked.composed.overrides)
    plan = replace(plan, origins=checked.composed.told(plan.config))
    epochs = plan.total_steps / plan.steps_per_epoch
    return PlannedJob(
        config=plan.config,
        overrides=plan.overrides,
        varies=checked.varies,
        label=label(checked.varies),
        parameters=plan.parameters.total,
        steps=plan.total_steps,
        validate_every=plan.trainer.validate_every(plan.steps_per_epoch),
        tokens=round(epochs * plan.prepared.stats["train"]["tokens"]),
        trainer=plan.trainer,
        origin=plan.origin,
        metrics=plan.metrics,
        warnings=plan.warnings,
        mix=plan.prepared.mix,
        tasks=plan.tasks,
    )


def _labelled(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    names = labels([job.varies for job in jobs])
    return [replace(job, label=name) for job, name in zip(jobs, names, strict=True)]


def _note_same(same: Sequence[str]) -> list[str]:
    if not same:
        return []
    return [f"left out, {len(same)} the same as others: {some(same)}"]
