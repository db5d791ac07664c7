"""Hydra's launcher nodes as executors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any

from annotated_types import Gt

from truesweep.config.schema import check_settings
from truesweep.errors import ConfigError
from truesweep.jobs.compiling import choose
from truesweep.sweeps.local import LocalPool
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.protocols import Executor
from truesweep.sweeps.settings import Sweep

PACKAGE = "hydra_plugins.truesweep"
POINTS_AT_ONCE = 8
"""Of a search where slots set no limit: few enough that most are chosen by what others gave."""


@dataclass(kw_only=True)
class LocalSettings:
    """The slots of this machine.

    Args:
        slots: How many jobs of one device run beside each other; None: one a GPU, or one a core.
    """

    slots: Annotated[int, Gt(0)] | None = None


def is_ours(launcher: Mapping[str, Any]) -> bool:
    """Whether a launcher's node names one of ours, and not another plugin's."""
    return str(launcher.get("_target_", PACKAGE)).startswith(PACKAGE)


def _slurm() -> tuple[type[Any], Callable[[Any], Executor]]:
    from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings

    return SlurmSettings, SlurmExecutor


def _ray() -> tuple[type[Any], Callable[[Any], Executor]]:
    from truesweep.sweeps.ray.executor import RayExecutor
    from truesweep.sweeps.ray.settings import RaySettings

    return RaySettings, RayExecutor


CLUSTERS = {"SlurmLauncher": ("slurm", _slurm), "RayLauncher": ("ray", _ray)}
"""By the class that a launcher's node names: its name, which is its extra's, and what it needs."""


def make_executor(launcher: Mapping[str, Any]) -> Executor:
    """What runs jobs, as a launcher's node says; without one, or for another plugin's, a pool.

    Raises:
        ConfigError: The node has a wrong key or value, or its package is missing.
    """
    settings = {key: value for key, value in launcher.items() if key != "_target_"}
    if is_cluster(launcher):
        name, load = CLUSTERS[_class(launcher)]
        try:
            its_settings, its_executor = load()
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"hydra/launcher={name} needs {error.name}; type pip install 'truesweep[{name}]'"
            ) from None
        return its_executor(check_settings(its_settings, settings, "hydra.launcher"))
    if not is_ours(launcher):
        settings = {}
    _refuse_clusters(settings)
    local: LocalSettings = check_settings(LocalSettings, settings, "hydra.launcher")
    return LocalPool(local.slots)


def _refuse_clusters(settings: Mapping[str, Any]) -> None:
    """Say of which launchers a key is that slots do not have.

    Raises:
        ConfigError: There is one of a cluster's.
    """
    unknown = [key for key in settings if key not in {each.name for each in fields(LocalSettings)}]
    if not unknown:
        return
    having = []
    for name, load in CLUSTERS.values():
        with suppress(ModuleNotFoundError):  # its package
            having += [name] * (unknown[0] in {each.name for each in fields(load()[0])})
    if having:
        raise ConfigError(
            f"hydra.launcher.{unknown[0]}: is no key of the slots of this machine; it is one of "
            f"hydra/launcher={' or '.join(having)}"
        )


def points_at_once(settings: Sweep, launcher: Mapping[str, Any]) -> int | None:
    """How many points a search tries beside each other; None: as many as there is room for."""
    return settings.parallel or (POINTS_AT_ONCE if is_cluster(launcher) else None)


def is_cluster(launcher: Mapping[str, Any]) -> bool:
    """Whether a launcher's node names one of ours whose jobs leave this machine."""
    return is_ours(launcher) and _class(launcher) in CLUSTERS


def _class(launcher: Mapping[str, Any]) -> str:
    return str(launcher.get("_target_", "")).rpartition(".")[2]


def check_sweeper(sweeper: Mapping[str, Any]) -> None:
    """Refuse settings of a sweeper that has none: ours is set by the `sweeps` node.

    Raises:
        ConfigError: There is one.
    """
    for key in sweeper:
        if key == "params":
            raise ConfigError(
                "hydra.sweeper.params: is not for this sweeper; write what varies as "
                "sweeps.space.KEY=VALUES, or as KEY=VALUES on the command line"
            )
        if key != "_target_":
            raise ConfigError(f"hydra.sweeper.{key}: no such key; a sweep is set by sweeps.KEY")


def describe(executor: Executor | None) -> str:
    """Where an executor's jobs run, in words."""
    return "another launcher of Hydra's" if executor is None else executor.where


def check_room(executor: Executor, jobs: Sequence[PlannedJob]) -> None:
    """Make sure that there can be room for each job, before it has a directory.

    Raises:
        ConfigError: One of them needs more than there is.
    """
    for job in _kinds(jobs):
        executor.check(job.trainer, job.label)


def check_compiler(executor: Executor | None, jobs: Sequence[PlannedJob]) -> list[str]:
    """Make sure that jobs of this machine that are to be compiled can be.

    What other machines have is not known here: jobs there say it themselves.

    Returns:
        What the user may want to know.

    Raises:
        ConfigError: One of them cannot be compiled.
    """
    if not isinstance(executor, LocalPool):
        return []
    notes = [choose(job.trainer).note for job in _kinds(jobs)]
    return list(dict.fromkeys(filter(None, notes)))


def _kinds(jobs: Sequence[PlannedJob]) -> Collection[PlannedJob]:
    """One job of each kind of trainer."""
    return {str(job.trainer): job for job in jobs}.values()
