"""Compose one configuration, or a sweep's: the shipped groups, the user's own, overrides."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truesweep import dotted
from truesweep.compat import config_loader
from truesweep.config.interpolation import (
    is_written,
    resolve_all,
    resolve_node,
    saying_what_is_there,
)
from truesweep.config.messages import as_config_errors
from truesweep.config.origin import Origins, Source, find_choice, find_line
from truesweep.config.overrides import (
    as_text,
    chooses,
    named,
    normalize,
    overlap,
    parse,
    refuse_sweeps,
    split_hydras,
    takes_back,
)
from truesweep.config.precedence import settle, update
from truesweep.config.roots import search_roots, shown
from truesweep.config.space import Axis, in_order
from truesweep.errors import ConfigError
from truesweep.secrets import redact_overrides

PRIMARY = "train"
OURS = {"hydra/launcher": "local", "hydra/sweeper": "truesweep"}
"""What takes the place of Hydra's own plugins where nothing is chosen."""
SEVERAL = ("logger",)
"""Groups of which several options may be chosen at once, as in `logger=[wandb,csv]`."""
SWEEPS = "sweeps"
"""The node that says what a sweep varies; no part of any job."""


@dataclass(frozen=True)
class Composed:
    """A configuration before it is checked.

    Args:
        config: Plain and resolved; secrets stand as `${oc.env:NAME}`.
        overrides: The overrides as they were given, secrets redacted.
        choices: The option chosen from each group; None where a group is empty.
        origins: Tells where a key came from, and in which folders the groups were looked up.
        sweeps: The `sweeps` node, which is no part of the configuration; unresolved.
        written: The values that are interpolations, as they are written, and all helper values,
            by dotted key.
        for_sweeps: What files say of Hydra's launcher and sweeper, each with its place; a single
            run uses none.
    """

    config: dict[str, Any]
    overrides: list[str]
    choices: dict[str, str | None]
    origins: Origins = field(repr=False, compare=False)
    sweeps: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    written: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    for_sweeps: Sequence[str] = field(default=(), repr=False, compare=False)

    def told(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Where the values of a configuration come from that was made of this one.

        Args:
            config: With every default; what was `auto` is settled in it.
        """
        return self.origins.told(dotted.flatten(config), dotted.flatten(self.config))


@dataclass(frozen=True)
class _Tree:
    """What files and overrides say, unresolved, the options chosen, and the files."""

    raw: dict[str, Any]
    choices: dict[str, str | None]
    sources: list[Source]
    for_sweeps: list[str]


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


def recompose(file: Path, config: dict[str, Any], overrides: Sequence[str]) -> Composed:
    """A frozen configuration with some values changed, as if all of it had been composed.

    Args:
        file: Where it lies.
        config: What it says.
        overrides: `key=value` with dotted keys.

    Raises:
        ConfigError: A change does not fit it.
    """
    origins = Origins(overrides, [], [Source(file, "")])
    return Composed(update(config, overrides), redact_overrides(overrides), {}, origins)


class Composer:
    """Composes one configuration or many; what only differs in values is read from files once.

    Args:
        config_dirs: As in `compose`.

    Raises:
        ConfigError: One of `config_dirs` is no folder.
    """

    def __init__(self, config_dirs: Sequence[Path | str] = ()) -> None:
        self.roots = search_roots(config_dirs)
        self.loader = config_loader(self.roots, SEVERAL)
        self._trees: dict[tuple[str, ...], _Tree] = {}

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
        asked = normalize(overrides, self.roots)
        tree, swept = self._tree(asked), values or {}
        raw = copy.deepcopy(tree.raw)
        for key, value in swept.items():
            dotted.put(raw, key, copy.deepcopy(value))
        said = {**named(overrides), **swept}
        settle(raw, tree.sources, said)
        node = raw.pop(SWEEPS, None)
        origins = Origins(overrides, self.roots, tree.sources, swept)
        _refuse_missing(raw, origins)
        with as_config_errors(asked, self.roots, origins):
            of_files = (value for source in tree.sources for value in source.values.values())
            config = resolve_all(raw, [*of_files, node])
        _refuse_nul(config, origins)
        written = {key: leaf for key, leaf in dotted.flatten(raw).items() if is_written(key, leaf)}
        given = [*overrides, *(f"{key}={as_text(value)}" for key, value in swept.items())]
        sweeps = {} if said.get(SWEEPS, "") is None else node or {}
        return Composed(
            config=config,
            overrides=redact_overrides(given),
            choices=tree.choices,
            origins=origins,
            sweeps=sweeps,
            written=written,
            for_sweeps=tree.for_sweeps,
        )

    def load(self, asked: Sequence[str]) -> tuple[DictConfig, list[Source]]:
        """Hydra's own composition of normalized overrides, and the files that took part.

        Raises:
            ConfigError: A file sets what has no effect.
        """
        found = self.loader.compute_defaults_list(PRIMARY, list(asked), RunMode.MULTIRUN)
        chosen = found.overrides.override_choices
        # Not in our files, where it would win over what an experiment or a sweep chooses.
        ours = [f"{group}={name}" for group, name in OURS.items() if group not in chosen]
        sources = _sources(found.defaults, self.roots)
        refuse_hydras(sources, chosen)
        try:
            tree = self.loader.load_configuration(
                PRIMARY, [*asked, *ours], run_mode=RunMode.MULTIRUN, from_shell=False
            )
        except (AssertionError, AttributeError, ConfigCompositionException) as error:
            set_here = [o.lstrip("+") for o in asked if o.lstrip("+").startswith("hydra.")]
            if not set_here or not _is_below_null(error):
                raise
            raise ConfigError(
                f"{', '.join(set_here)}: Hydra cannot set this on the command line, where its "
                "plugin leaves it null; let it stand under `hydra:` in a file that experiment=NAME "
                "chooses"
            ) from None
        return tree, sources

    def _tree(self, asked: list[str]) -> _Tree:
        if tuple(asked) not in self._trees:
            with as_config_errors(asked, self.roots):
                tree, sources = self.load(asked)
            raw = cast(dict[str, Any], OmegaConf.to_container(tree))
            del raw["hydra"]
            for_sweeps = _for_sweeps(sources, tree.hydra.runtime.choices)
            self._trees[tuple(asked)] = _Tree(raw, choices(tree), sources, for_sweeps)
        return self._trees[tuple(asked)]


def _is_below_null(error: Exception) -> bool:
    """Whether Hydra failed at a key below one that its plugin leaves null, as 1.4 says."""
    if isinstance(error, ConfigCompositionException):
        return str(error.__cause__).endswith("is None")
    return True  # 1.3 fails at an assertion or an attribute of None, and nowhere else by these


def choices(tree: DictConfig) -> dict[str, str | None]:
    """The option chosen from each group, Hydra's own aside; None where a group is empty."""
    chosen: dict[str, str | None] = dict(tree.hydra.runtime.choices)
    return {group: chosen[group] for group in sorted(chosen) if not group.startswith("hydra/")}


def _sources(defaults: Sequence[Any], roots: Sequence[Path]) -> list[Source]:
    """The files of Hydra's list of defaults, its own aside."""
    sources = []
    for item in defaults:
        name = str(item.config_path)
        if not name.startswith("hydra/"):
            files = [root / f"{name.removesuffix('.yaml')}.yaml" for root in roots]
            path = next((file for file in files if file.is_file()), files[-1])
            sources.append(Source(path, item.package or "", name.rpartition("/")[0]))
    return sources


def refuse_hydras(sources: Sequence[Source], chosen: Mapping[str, str | None]) -> None:
    """Refuse Hydra's own settings in files, but for those that a sweep uses.

    Args:
        sources: The files.
        chosen: The options that they, or the command line, choose in place of others, by group.

    Raises:
        ConfigError: There are some.
    """
    for source in sources:
        for key in source.values:
            if key.startswith("hydra.") and f"hydra/{key.split('.')[1]}" not in OURS:
                raise _not_used(key, f"{shown(source.path)}:{find_line(source, key)}")
    for group, name in chosen.items():
        if group.startswith("hydra/") and group not in OURS:
            lines = ((source, find_choice(source, group)) for source in sources)
            where = next((f"{shown(source.path)}:{line}" for source, line in lines if line), "")
            raise _not_used(f"{group}={name}", where)


def _not_used(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"{what}: Hydra's own runtime is not used; of its settings only hydra.launcher and "
        "hydra.sweeper can be set. A run lies in outputs/NAME/ID, and name=NAME sets the name "
        f"({where or 'command line'})"
    )


def _for_sweeps(sources: Sequence[Source], chosen: Mapping[str, str | None]) -> list[str]:
    """What files say of Hydra's launcher and sweeper, each with its place; see `refuse_hydras`."""
    return [
        *(
            f"{group}={chosen[group]}"
            for group in OURS
            if chosen.get(group, OURS[group]) != OURS[group]
        ),
        *(
            f"{key} ({shown(source.path)}:{find_line(source, key)})"
            for source in sources
            for key in source.values
            if key.startswith("hydra.")
        ),
    ]


def _refuse_missing(raw: dict[str, Any], origins: Origins) -> None:
    missing = [key for key, value in dotted.leaves(raw) if value == "???"]
    if missing:
        lines = [f"{key}: is required; give it as {key}=VALUE ({origins(key)})" for key in missing]
        raise ConfigError("\n".join(lines))


def _refuse_nul(config: dict[str, Any], origins: Origins) -> None:
    """Refuse a character that ends a text wherever the operating system reads it."""
    for key, value in dotted.leaves(config):
        if isinstance(value, str) and "\0" in value:
            where = origins(key.partition("[")[0])
            raise ConfigError(f"{key}: has a NUL character, which no name has; remove it ({where})")


@dataclass(frozen=True)
class Multirun:
    """A sweep as it was asked for, before any point is composed.

    Args:
        overrides: The command line without Hydra's own settings.
        node: The `sweeps` node, plain and resolved; empty where none is chosen.
        raw_node: The same, unresolved.
        choices: The option chosen from each group, `sweeps` included.
        name: What the command line or a file names the sweep, resolved.
        raw_name: The same, unresolved.
        fixed: The configuration without what is swept, unresolved.
        launcher: The node of Hydra's launcher, plain and resolved.
        sweeper: That of its sweeper.
        origins: Tells where the keys of the `sweeps` node and of Hydra's own came from.
        master: Hydra's own node, from which its plugins compose jobs.
        loader: What composes for Hydra's plugins.
    """

    overrides: list[str]
    node: dict[str, Any]
    raw_node: dict[str, Any]
    choices: dict[str, str | None]
    name: Any
    raw_name: Any
    fixed: dict[str, Any]
    launcher: dict[str, Any]
    sweeper: dict[str, Any]
    origins: Origins = field(repr=False, compare=False)
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
    composer = Composer(config_dirs)
    single = _unswept(own, composer.roots)
    asked = [*hydras, *normalize(single, composer.roots)]
    with as_config_errors(asked, composer.roots):
        tree, sources = composer.load(asked)
        raw = cast(dict[str, Any], OmegaConf.to_container(tree))
        node = resolve_node(raw, SWEEPS)
        with saying_what_is_there(raw):
            launcher, sweeper = (
                cast(dict[str, Any], OmegaConf.to_container(tree.hydra[name], resolve=True))
                for name in ("launcher", "sweeper")
            )
    name = raw.get("name")
    if isinstance(name, str) and "${" in name:
        name = composer.compose(single).config["name"]
    master = OmegaConf.masked_copy(tree, "hydra")
    _normalize_params(master.hydra.sweeper, composer.roots)
    master.hydra.overrides.task = redact_overrides(own)  # some sweepers write them to a file
    return Multirun(
        overrides=own,
        node=node,
        raw_node=raw.get(SWEEPS) or {},
        choices=choices(tree),
        name=name,
        raw_name=raw.get("name"),
        fixed=raw,
        launcher=launcher,
        sweeper=sweeper,
        origins=Origins(overrides, composer.roots, sources),
        master=master,
        loader=composer.loader,
    )


def _unswept(overrides: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Overrides without those that vary; what one deletes may be theirs, and is set before it."""
    lines: list[str] = []
    for override in overrides:
        parsed = parse(override)
        if takes_back(parsed, parsed, roots):
            key, _, value = override.strip().lstrip("~").partition("=")
            lines.append(f"{key}={value or 0}")
        if not parsed.is_sweep_override():
            lines.append(override)
    return lines


def _normalize_params(sweeper: DictConfig, roots: Sequence[Path]) -> None:
    """Rewrite the keys of what another sweeper varies, as `normalize` does those of overrides.

    Raises:
        ConfigError: A value does not follow Hydra's grammar.
    """
    params = sweeper.get("params")
    for key, value in list(params.items()) if isinstance(params, DictConfig) else []:
        line = f"{key!s}={value}" if isinstance(value, str) else f"{key!s}=VALUE"
        try:
            name = normalize([line], roots)[0].partition("=")[0]
        except ConfigError as error:
            raise ConfigError(f"hydra.sweeper.params.{key!s}: {error}") from None
        if name != key:
            params[name] = params.pop(key)


class PointComposer:
    """Composes the points of a sweep; those that share their groups' options only once.

    Args:
        fixed: The overrides that all points have in common.
        axes: What varies.
        config_dirs: As in `compose`.
        sweeps: The `sweeps` node by which they are planned, unresolved; None: it does not matter.
    """

    def __init__(
        self,
        fixed: Sequence[str],
        axes: Sequence[Axis],
        config_dirs: Sequence[Path | str] = (),
        sweeps: Mapping[str, Any] | None = None,
    ) -> None:
        self._composer = Composer(config_dirs)
        self._entries = in_order(fixed, axes)
        self._sweeps = sweeps
        self._values = {axis.key for axis in axes if self._is_plain(axis)}

    def compose(self, point: Mapping[str, Any]) -> Composed:
        """The configuration of a point.

        Raises:
            ConfigError: As `compose`, or an option that is swept has a `sweeps` node of its own.
        """
        swept = {axis.key for axis in self._entries if isinstance(axis, Axis)}
        values = {
            key: value
            for key, value in point.items()
            if _is_scalar(value) and (key in self._values or key not in swept)
        }
        lines = []
        for entry in self._entries:
            if isinstance(entry, str):
                lines.append(entry)
            elif entry.key in point and entry.key not in values:
                lines.append(entry.override(point[entry.key]))
        composed = self._composer.compose(lines, values)
        if self._sweeps is not None and composed.sweeps != self._sweeps:
            self._refuse(point)
        return composed

    def _is_plain(self, axis: Axis) -> bool:
        """Whether setting it needs none of Hydra: a dotted key that nothing later touches."""
        later = self._entries[self._entries.index(axis) + 1 :]
        touched = (_key(entry, self._composer.roots) for entry in later)
        name = axis.key.replace(".", "").replace("_", "")
        return (
            name.isalnum()
            and not axis.group
            and not any(overlap(axis.key, key) for key in touched if key is not None)
        )

    def _refuse(self, point: Mapping[str, Any]) -> None:
        axes = [entry for entry in self._entries if isinstance(entry, Axis) and entry.group]
        chosen = ", ".join(f"{axis.name}={point[axis.key]}" for axis in axes if axis.key in point)
        raise ConfigError(
            f"{chosen}: has a `sweeps` node of its own, which is not read where it is swept. "
            "Give it a sweep of its own, or move the node to a file that sweeps=NAME chooses"
        )


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list) and not (isinstance(value, str) and "$" in value)


def _key(entry: str | Axis, roots: Sequence[Path]) -> str | None:
    """The dotted key that an override or an axis sets; None where it chooses an option."""
    if isinstance(entry, Axis):
        merged = any(isinstance(value, Mapping) for value in entry.values)
        return None if entry.group and not merged else entry.name
    parsed = parse(entry)
    return None if chooses(parsed, roots) else parsed.key_or_group
