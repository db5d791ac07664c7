"""Compose one configuration from the shipped groups, the user's own and overrides."""

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
from truesweep.config import secrets
from truesweep.config.hydra_errors import as_config_errors
from truesweep.config.origin import Origins, Source
from truesweep.config.overrides import as_text, normalize, refuse_sweeps
from truesweep.config.redact import redact_overrides
from truesweep.config.roots import search_roots
from truesweep.errors import ConfigError

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
            config = secrets.resolve_keeping_secrets(raw)
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
