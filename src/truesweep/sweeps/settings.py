"""The `sweeps` node: what is varied, how points are chosen, how much may be spent."""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt, Len

from truesweep.errors import ConfigError
from truesweep.figures import (
    BUILT_IN,
    Declared,
    Direction,
    Mode,
    as_direction,
    as_mode,
    mode,
    require_mode,
)

Method = Literal["grid", "random", "search"]
Sampler = Literal["tpe", "cmaes", "gp", "nsga2", "qmc", "random", "grid", "climb"]
Pruner = Literal["auto", "none", "median", "halving", "hyperband", "forecast"]
AUTO: Final = "auto"
"""The pruner that a search's plan decides on."""
FORECAST_SAMPLERS = ("tpe", "gp", "qmc", "random", "grid", "climb")
"""Samplers that need not know how a point has ended before they suggest the next."""

SEVERAL = "jobs with several objectives cannot be pruned or paused"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB|TB)", re.IGNORECASE)
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_PASSWORD = re.compile(r"://[^/@:]*:(?!\$\{)[^/@]+@")


@dataclass(kw_only=True, frozen=True)
class Sweep:
    """What a sweep varies and how.

    Args:
        space: Swept keys, each with a list of values or a sweep in Hydra's grammar, such as
            `choice(1,2)`, `range(1,9)` or `tag(log, interval(1e-4, 1e-2))`; a single value is
            fixed. `key=a,b` on the command line adds to them or replaces them.
        zip: Lists of keys whose values go together, the first with the first.
        exclude: Combinations that are left out, each a mapping of some keys to a value, a list of
            values, or a comparison such as `">= 0.01"`.
        method: `grid`, all combinations; `random`, `jobs` points drawn from the space; `search`,
            points that Optuna chooses by the results so far.
        sampler: How a search chooses; `climb` tries the neighbours of the best point so far.
        start: The point that a search tries first, by key; `prior`: what a published law and the
            user's earlier sweeps say of the learning rate and the batch size. None: any.
        objective: Metrics by which jobs are compared; several make a search multi-objective.
        direction: One for each objective; None: as their metrics declare.
        pruner: Stops jobs of a search that are not promising; None or `none`: each is trained to
            its end. `forecast` pauses them: each point is begun, then those go on whose forecast
            final value leads. `auto`: that wherever it can work, as the plan says.
        pruner_startup: Jobs that end before the median pruner stops any.
        pruner_warmup: Optimizer steps that every job gets; of `forecast` also those after which a
            job that leads is compared again, by default a twentieth of its training.
        pruner_reduction: Of so many jobs halving and hyperband keep one at each rung.
        parallel: Points that a search tries at once, as it learns from those that have ended only;
            None: as many as this machine has slots for, and 8 on a cluster.
        jobs: Budget: points to try (random, search); for a grid the most it may have. A search
            counts those of its earlier spaces, and one that failed and is tried again only once.
        hours: Budget: no job starts later than this after the command. A `resume`, which asks for
            more, has as many hours again.
        seeds: Seeds per point, counted up from `seed`, or the seeds themselves.
        seed: Decides what is shuffled, drawn or sampled.
        retries: How often a failed job is tried again, from its last checkpoint.
        fail_fast: Stop the sweep at the first job that fails after its retries.
        stall_minutes: A job that reports nothing for so long is stopped and counts as failed;
            None: it is waited for.
        storage: Optuna's storage, for several drivers that share one search: a file or a
            database's URL; None: `study.journal` in the sweep's directory.
        share: Whether jobs that differ in their length only, or the like, go on from the steps that
            they have in common, trained once; no result depends on it.
        dashboard: Whether a sweep that is logged to W&B gets a workspace there, or offline a file
            of it; None: if W&B's package for workspaces is installed.
        disk: Budget of the sweep's checkpoints, such as `20GB`: of jobs that have ended and are not
            the best, the optimizer's state and then last checkpoints are dropped, worst first;
            None: all are kept.
        settle: At its end, train leaders that cannot be told apart with further seeds until it is
            known which is the better one, as `truesweep duel` does.
    """

    space: dict[str, Any] = field(default_factory=dict)
    zip: list[Annotated[list[str], Len(2)]] = field(default_factory=list)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    method: Method = "grid"
    sampler: Sampler = "tpe"
    start: dict[str, Any] | Literal["prior"] | None = None
    objective: str | Annotated[list[str], Len(1)] = "val/loss"
    direction: Direction | list[Direction] | None = None
    pruner: Pruner | None = AUTO
    pruner_startup: Annotated[int, Ge(0)] = 5
    pruner_warmup: Annotated[int, Ge(0)] = 0
    pruner_reduction: Annotated[int, Ge(2)] = 3
    parallel: Annotated[int, Gt(0)] | None = None
    jobs: Annotated[int, Gt(0)] | None = None
    hours: Annotated[float, Gt(0)] | None = None
    seeds: Annotated[int, Gt(0)] | Annotated[list[int], Len(1)] = 1
    seed: Annotated[int, Ge(0)] = 0
    retries: Annotated[int, Ge(0)] = 0
    fail_fast: bool = False
    stall_minutes: Annotated[float, Gt(0)] | None = None
    storage: str | None = None
    share: bool = True
    dashboard: bool | None = None
    disk: str | None = None
    settle: bool = False

    def __post_init__(self) -> None:
        if self.pruner == "none" or (self.pruner == AUTO and self.method != "search"):
            object.__setattr__(self, "pruner", None)
        if isinstance(self.direction, list) and len(self.direction) != len(self.objectives):
            raise ConfigError(
                f"sweeps.direction has {len(self.direction)} entries for "
                f"{len(self.objectives)} objectives; give one for each"
            )
        if self.method == "random" and self.jobs is None:
            raise ConfigError("sweeps.method=random: how many points? Give sweeps.jobs=20, say")
        if self.method == "search" and self.jobs is None and self.hours is None:
            raise ConfigError(
                "sweeps.method=search has no end; give a budget, sweeps.jobs=30 or sweeps.hours=2"
            )
        if self.pruner is not None and self.method != "search":
            raise ConfigError(
                f"sweeps.pruner={self.pruner} needs sweeps.method=search; set that or pruner=null"
            )
        if self.pruner not in (None, AUTO) and len(self.objectives) > 1:
            raise ConfigError(f"sweeps.pruner: {SEVERAL}")
        if self.pruner == "forecast" and self.against_forecasts is not None:
            raise ConfigError(self.against_forecasts)
        if self.disk is not None and _SIZE.fullmatch(self.disk) is None:
            raise ConfigError(
                f"sweeps.disk={self.disk}: is no size; give one in MB, GB or TB, such as 20GB"
            )
        if self.start is not None and self.method != "search":
            raise ConfigError("sweeps.start needs sweeps.method=search; set that or start=null")
        if self.storage is not None and _PASSWORD.search(self.storage):
            raise ConfigError(
                "sweeps.storage: holds a password, which would be written into every job's "
                "directory; let it stand in the environment, as in "
                "'postgresql://user:${oc.env:DB_PASSWORD}@host/name'"
            )

    @property
    def against_forecasts(self) -> str | None:
        """Why jobs cannot be paused by forecasts, as far as these settings tell; None: they can."""
        if len(self.objectives) > 1:
            return SEVERAL
        if self.jobs is None and self.sampler != "climb":
            return (
                "sweeps.pruner=forecast begins every point before it goes on with any; say how "
                "many there are to be: sweeps.jobs=30"
            )
        if self.sampler not in FORECAST_SAMPLERS:
            return (
                f"sweeps.sampler={self.sampler} chooses by jobs that have ended, and "
                "sweeps.pruner=forecast pauses them; choose sampler=tpe, or another pruner"
            )
        return None

    @property
    def budget(self) -> int | None:
        """Bytes that the sweep's checkpoints may take; None: without limit."""
        found = _SIZE.fullmatch(self.disk or "")
        return None if found is None else int(float(found[1]) * _BYTES[found[2].upper()])

    @property
    def objectives(self) -> list[str]:
        """The metrics, as a list."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    @property
    def directions(self) -> list[Direction]:
        """A direction for each of the objectives.

        Raises:
            ConfigError: None is given, and nothing declares it.
        """
        if isinstance(self.direction, list):
            return list(self.direction)
        remedy = "Say it: sweeps.direction=minimize or sweeps.direction=maximize"
        return [
            self.direction or as_direction(require_mode(name, BUILT_IN, "sweeps.objective", remedy))
            for name in self.objectives
        ]

    @property
    def modes(self) -> dict[str, Mode]:
        """`min` or `max` by objective, as callbacks and `Run.objective` have it."""
        return dict(zip(self.objectives, map(as_mode, self.directions), strict=True))

    def settled(self, declared: Declared) -> "Sweep":
        """The same with every direction that a task declares written out.

        Args:
            declared: The task's declarations.
        """
        found = [mode(name, declared) for name in self.objectives]
        if self.direction is not None or None in found:
            return self
        return replace(self, direction=[as_direction(one) for one in found if one])

    def seed_list(self, first: int) -> list[int]:
        """The seeds of each point, given the configuration's own."""
        if isinstance(self.seeds, int):
            return [first + i for i in range(self.seeds)]
        return list(self.seeds)
