"""Compose one configuration, or a sweep's: the shipped groups, the user's own, overrides."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truesweep import dotted
from truesweep.compat import config_loader
from truesweep.config.messages import as_config_errors
from truesweep.config.origin import Origins, Source
from truesweep.config.overrides import as_text, normalize, parse, refuse_sweeps, split_hydras
from truesweep.config.roots import search_roots
from truesweep.config.secrets import resolve_keeping_secrets
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.secrets import redact_overrides

PRIMARY = "train"
SWEEPS = "sweeps"
"""The node that says what a sweep varies; no part of any job."""


@dataclass(frozen=True)
class Composed:
    """A configuration before it is checked.

    Args:
        config: Plain and resolved; secrets stand as `${oc.env:NAME}`.
        overrides: The overrides as they were given, secrets redacted.
        choices: The option chosen from each group; None where a group is empty.
        roots: The folders in which the groups were looked up.
        origins: Tells where a key came from.
    """

    config: dict[str, Any]
    overrides: list[str]
    choices: dict[str, str | None]
    roots: tuple[Path, ...]
    origins: Origins = field(repr=False, compare=False)


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[Path | str] = ()) -> Composed:
    """Compose `train.yaml` with overrides in Hydra's grammar.

    Nothing of Hydra's runtime is started: no working directory, no logging, no global state.

    Args:
        overrides: As on the command line; `optimizer.lr=1` needs no leading `+`.
        config_dirs: Folders with groups of the user's own, ahead of the shipped ones.

    Raises:
        ConfigError: An override, an option or a file is wrong, or a mandatory value is missing.
    """
    refuse_sweeps(overrides)
    return Composer(config_dirs).compose(overrides)


class Composer:
    """Composes one configuration or many; what only differs in values is read from files once.

    Args:
        config_dirs: As in `compose`.

    Raises:
        ConfigError: One of `config_dirs` is no folder.
    """

    def __init__(self, config_dirs: Sequence[Path | str] = ()) -> None:
        self.roots = search_roots(config_dirs)
        self.loader = config_loader(self.roots)
        self._config_dirs = config_dirs
        self._trees: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str | None]]] = {}

    def compose(
        self, overrides: Sequence[str], values: Mapping[str, Any] | None = None
    ) -> Composed:
        """Compose with overrides, and then set values.

        Args:
            overrides: As on the command line.
            values: Further plain values by dotted key, each as `key=value` would set it.

        Raises:
            ConfigError: As `compose`.
        """
        asked = normalize(overrides, self._config_dirs)
        raw, chosen = self._tree(asked)
        swept = values or {}
        for key, value in swept.items():
            dotted.put(raw, key, copy.deepcopy(value))
        origins = Origins(
            overrides, self.roots, lambda: _sources(self.loader, asked, self.roots), swept
        )
        _refuse_missing(raw, origins)
        with as_config_errors(asked, origins):
            config = resolve_keeping_secrets(raw)
        given = [*overrides, *(f"{key}={as_text(value)}" for key, value in swept.items())]
        return Composed(config, redact_overrides(given), chosen, self.roots, origins)

    def _tree(self, asked: list[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
        """What the files and overrides say, unresolved, and the options chosen."""
        if tuple(asked) not in self._trees:
            with as_config_errors(asked):
                tree = self.loader.load_configuration(
                    PRIMARY, asked, run_mode=RunMode.RUN, from_shell=False
                )
            raw = cast(dict[str, Any], OmegaConf.to_container(tree))
            del raw["hydra"]
            raw.pop(SWEEPS, None)
            self._trees[tuple(asked)] = raw, choices(tree)
        raw, chosen = self._trees[tuple(asked)]
        return copy.deepcopy(raw), chosen


def choices(tree: DictConfig) -> dict[str, str | None]:
    """The option chosen from each group, Hydra's own aside; None where a group is empty."""
    chosen: dict[str, str | None] = dict(tree.hydra.runtime.choices)
    return {group: chosen[group] for group in sorted(chosen) if not group.startswith("hydra/")}


def _sources(loader: ConfigLoader, overrides: list[str], roots: Sequence[Path]) -> list[Source]:
    defaults = loader.compute_defaults_list(PRIMARY, overrides, RunMode.RUN).defaults
    return [
        Source(_find(str(item.config_path), roots), item.package or "")
        for item in defaults
        if not str(item.config_path).startswith("hydra/")
    ]


def _find(config: str, roots: Sequence[Path]) -> Path:
    files = [root / f"{config.removesuffix('.yaml')}.yaml" for root in roots]
    return next((file for file in files if file.is_file()), files[-1])


def _refuse_missing(raw: dict[str, Any], origins: Origins) -> None:
    missing: list[str] = []
    dotted.map_leaves(raw, lambda key, value: missing.append(key) if value == "???" else None)
    if missing:
        lines = [f"{key}: is required; give it as {key}=VALUE ({origins(key)})" for key in missing]
        raise ConfigError("\n".join(lines))


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
        node = resolve_keeping_secrets({SWEEPS: raw.get(SWEEPS)})[SWEEPS]
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
