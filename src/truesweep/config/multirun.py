"""What a command line with `-m` asks for, and the configurations of its points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truesweep.config import secrets
from truesweep.config.axes import Axis
from truesweep.config.compose import PRIMARY, SWEEPS, Composed, Composer, choices
from truesweep.config.hydra_errors import as_config_errors
from truesweep.config.overrides import as_text, normalize, parse, split_hydras
from truesweep.config.redact import redact_overrides


@dataclass(frozen=True)
class Multirun:
    """A sweep as it was asked for, before any point is composed.

    Args:
        overrides: The command line without Hydra's own settings.
        node: The `sweeps` node, plain and resolved; empty where none is chosen.
        choices: The option chosen from each group, `sweeps` included.
        master: Hydra's own node, from which its plugins compose jobs.
        loader: What composes for Hydra's plugins.
    """

    overrides: list[str]
    node: dict[str, Any]
    choices: dict[str, str | None]
    master: DictConfig
    loader: ConfigLoader


def compose_multirun(overrides: Sequence[str], config_dirs: Sequence[Path | str] = ()) -> Multirun:
    """Compose the `sweeps` node and Hydra's own settings; what is swept is left aside.

    Args:
        overrides: The whole command line.
        config_dirs: As in `compose`.

    Raises:
        ConfigError: An override, an option or a file is wrong.
    """
    hydras, own = split_hydras(overrides)
    single = [override for override in own if not parse(override).is_sweep_override()]
    asked = [*hydras, *normalize(single, config_dirs)]
    loader = Composer(config_dirs).loader
    with as_config_errors(asked):
        tree = loader.load_configuration(PRIMARY, asked, RunMode.MULTIRUN, from_shell=False)
        raw = cast(dict[str, Any], OmegaConf.to_container(tree))
        node = secrets.resolve_keeping_secrets({SWEEPS: raw.get(SWEEPS)})[SWEEPS]
    master = OmegaConf.masked_copy(tree, "hydra")
    master.hydra.overrides.task = redact_overrides(own)  # some sweepers write them to a file
    return Multirun(own, node or {}, choices(tree), master, loader)


class PointComposer:
    """Composes the points of a sweep; those that share their groups' options only once.

    Args:
        fixed: The overrides that all points have in common.
        axes: What varies.
        config_dirs: As in `compose`.
    """

    def __init__(
        self, fixed: Sequence[str], axes: Sequence[Axis], config_dirs: Sequence[Path | str] = ()
    ) -> None:
        self._fixed = list(fixed)
        self._axes = {axis.key: axis for axis in axes}
        self._composer = Composer(config_dirs)

    def compose(self, point: Mapping[str, Any]) -> Composed:
        """The configuration of a point.

        Raises:
            ConfigError: As `compose`.
        """
        values = {key: value for key, value in point.items() if self._is_value(key, value)}
        chosen = [f"{key}={as_text(point[key])}" for key in point if key not in values]
        return self._composer.compose([*self._fixed, *chosen], values)

    def _is_value(self, key: str, value: Any) -> bool:
        """Whether setting it needs none of Hydra: a scalar under a plain dotted key."""
        group = key in self._axes and self._axes[key].group
        plain = not isinstance(value, dict | list) and not (isinstance(value, str) and "$" in value)
        return plain and not group and key.replace(".", "").replace("_", "").isalnum()
