"""A job that is known to start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from truesweep.data.mixture import Mix
from truesweep.errors import ConfigError, nearest
from truesweep.jobs.parts import make
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import SHARED, Run
from truesweep.sweeps.directory import SweepDirectory, job_id
from truesweep.sweeps.settings import Sweep

BYTES_PER_PARAMETER = 2 * 3 * 4
"""Of two checkpoints: weights and two moments of the optimizer, fp32."""
COSTS = ("parameters", "train/seconds", "train/steps", "train/tokens")
"""What `results.json` tells of a job besides its validation; an objective, next to a loss."""


@dataclass(frozen=True)
class PlannedJob:
    """A job that is known to start.

    Args:
        config: The whole configuration, checked.
        overrides: What was asked for it, secrets redacted.
        varies: The swept keys and their values.
        label: The same, in short.
        parameters: The model's parameters.
        steps: Optimizer steps.
        validate_every: Optimizer steps between validations.
        tokens: Training tokens.
        trainer: On what it trains.
        origin: Where its numbers come from and what they are, for its provenance.
        metrics: The names of what its validations report.
        warnings: What the user should know before it starts.
        trunk: The id of a job that is the same up to a step, and that step; see `trunks`.
        replays: Ids of jobs that train the same up to later steps, and these, which it validates
            itself, in order.
        branches: The steps after which others go on from this job.
        siblings: Ids of jobs of a search that share steps with it, either way, and the step up to
            which it may begin with theirs; it begins with the furthest state that one of them has
            kept by then. See `siblings`.
        mix: How it goes through the sources of a mixture, if its data are one.
        tasks: The names of its figures of lm-evaluation-harness, which the end tells.
    """

    config: dict[str, Any]
    overrides: list[str]
    varies: dict[str, Any]
    label: str
    parameters: int
    steps: int
    validate_every: int
    tokens: int
    trainer: TrainerSettings
    origin: dict[str, Any]
    metrics: tuple[str, ...]
    warnings: tuple[str, ...]
    trunk: tuple[str, int] | None = None
    replays: tuple[tuple[str, int], ...] = ()
    branches: tuple[int, ...] = ()
    siblings: tuple[tuple[str, int], ...] = ()
    mix: Mix | None = None
    tasks: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name of its directory."""
        return job_id(self.config)

    @property
    def devices(self) -> int:
        """Devices that it needs on each node."""
        return self.trainer.local_ranks()

    @property
    def nodes(self) -> int:
        """Nodes that it needs."""
        return self.trainer.num_nodes

    @property
    def late(self) -> tuple[str, ...]:
        """The names of its figures that only its end tells."""
        return (*self.tasks, *COSTS)

    @property
    def shared_steps(self) -> int:
        """Its steps that others train for it."""
        return max(step for _, step in (self.trunk or ("", 0), *self.replays))

    @property
    def disk(self) -> int:
        """Bytes that its checkpoints take, about."""
        return self.parameters * BYTES_PER_PARAMETER * (2 + len(self.branches)) // 2

    def is_placed(self, sweep: SweepDirectory) -> bool:
        """Whether its directory says the same of the steps that it shares."""
        run = sweep.find(self.config)
        place = {} if run is None else run.place
        own: dict[str, Any] = {key: getattr(self, key) for key in SHARED}
        return all(_plain(place.get(key)) == _plain(shared) for key, shared in own.items())

    def add_to(
        self,
        sweep: SweepDirectory,
        number: int,
        provenance: Mapping[str, Any],
        trial: Mapping[str, Any] | None = None,
    ) -> Run:
        """Its directory, a new one or the one it has."""
        return sweep.add(
            self.config,
            self.overrides,
            self.varies,
            label=self.label,
            number=number,
            provenance={**provenance, **self.origin},
            devices=self.devices,
            nodes=self.nodes,
            trial=trial,
            trunk=self.trunk,
            replays=self.replays,
            branches=self.branches,
            siblings=self.siblings,
        )


def _plain(shared: Any) -> Any:
    """What is shared as values for JSON; nothing is an empty list, whatever it was."""
    if isinstance(shared, list | tuple):
        return [_plain(one) for one in shared]
    return [] if shared is None else shared


@cache
def trainer_of(job: Run) -> TrainerSettings:
    """On what a job trains, as its configuration says."""
    trainer: TrainerSettings = make(job.read_config(), "trainer")
    return trainer


def check_objectives(
    jobs: Sequence[PlannedJob], settings: Sweep, key: str = "sweeps.objective="
) -> None:
    """Make sure that every job will have what jobs are compared by.

    Args:
        jobs: The jobs.
        settings: Says what that is.
        key: How that is set, for the messages.

    Raises:
        ConfigError: An objective is missing from a job, or is found on the test split, or nothing
            tells its direction.
    """
    for name in settings.objectives:
        if name.startswith("test/"):
            raise ConfigError(
                f"{key}{name}: a test split that configurations are chosen by is one "
                f"more validation split; set {key}val/{name.removeprefix('test/')}"
            )
        for job in jobs:
            _check_objective(name, job, key, pruned=settings.pruner is not None)
    _ = settings.directions


def _check_objective(name: str, job: PlannedJob, key: str, pruned: bool) -> None:
    known = job.metrics if pruned else (*job.metrics, *job.late)
    if name in known:
        return
    if name in job.late:
        raise ConfigError(
            f"{key}{name}: is known at the end only, and a pruner compares jobs "
            f"before; set sweeps.pruner=null, or an objective of {', '.join(known)}"
        )
    raise ConfigError(
        f"{key}{name}: {job.label or 'the job'} will not report it; "
        f"set {key}{(*nearest(name, known), known[0])[0]}; there are {', '.join(known)}"
    )
