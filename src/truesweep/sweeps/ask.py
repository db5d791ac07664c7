"""From a command line with `-m` to a sweep: its settings, its space and its name."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from truesweep.config.compose import Multirun, PointComposer, compose_multirun
from truesweep.config.overrides import parse
from truesweep.config.roots import search_roots
from truesweep.config.schema import check_settings
from truesweep.config.space import Axis, Space, exclusions, pairings, read_axes
from truesweep.dotted import flatten
from truesweep.errors import ConfigError
from truesweep.jobs.plan import NAME_LENGTH, default_name, one_limit
from truesweep.secrets import redact_overrides
from truesweep.sweeps.settings import Sweep
from truesweep.text import unique_end


@dataclass(frozen=True)
class Asked:
    """A sweep as it was asked for.

    Args:
        name: The sweep's name.
        settings: The `sweeps` node.
        space: What varies.
        fixed: The overrides that all jobs have in common.
        overrides: The command line, secrets redacted.
        config_dirs: The user's own folders of configuration.
        multirun: What Hydra's plugins need.
    """

    name: str
    settings: Sweep
    space: Space
    fixed: list[str]
    overrides: list[str]
    config_dirs: list[Path]
    multirun: Multirun

    @property
    def lines(self) -> list[str]:
        """All that was asked, a named sweep's space included, in Hydra's grammar."""
        return [*self.fixed, *(axis.text for axis in self.space.axes)]

    def composer(self) -> PointComposer:
        """Composes the sweep's points."""
        return PointComposer(self.fixed, self.space.axes, self.config_dirs)


def ask(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Asked:
    """Read a sweep's command line.

    Raises:
        ConfigError: An override, the `sweeps` node or its space is wrong.
    """
    multirun = compose_multirun(overrides, config_dirs)
    settings: Sweep = check_settings(Sweep, multirun.node, "sweeps")
    roots = search_roots(config_dirs)
    axes, fixed = read_axes(settings.space, multirun.overrides, roots, settings.seed)
    _refuse(axes, settings)
    names = [f"{axis.name}=" for axis in axes]
    given = _values(fixed)
    typed = {parse(line).key_or_group for line in multirun.overrides}
    return Asked(
        name=_name(multirun, settings, axes, fixed),
        settings=settings,
        space=Space(
            axes,
            pairings(settings.zip, given),
            exclusions(settings.exclude, given),
            settings.seed,
            replaced=frozenset(typed & flatten(settings.space).keys()),
        ),
        fixed=[*one_limit([*fixed, *names]), *fixed],
        overrides=redact_overrides(overrides),
        config_dirs=list(config_dirs),
        multirun=multirun,
    )


def _refuse(axes: Sequence[Axis], settings: Sweep) -> None:
    for axis in axes:
        if axis.name == "name" or axis.name.partition(".")[0] == "sweeps":
            raise ConfigError(f"{axis.name}: belongs to the whole sweep and cannot vary in it")
        if axis.name == "seed" and settings.seeds != 1:
            raise ConfigError("seed is swept and sweeps.seeds is given; leave one of them out")
    if not axes and settings.seeds == 1:
        raise ConfigError(
            "nothing varies: give several values, as in optimizer.lr=1e-3,3e-3, or a named sweep, "
            "sweeps=NAME"
        )


def _name(multirun: Multirun, settings: Sweep, axes: Sequence[Axis], fixed: Sequence[str]) -> str:
    """What was given, or task, named sweep, fixed values and swept keys, but not their values."""
    name = _values(fixed).get("name")
    if name is not None:
        return _checked_name(str(name))
    common = [o for o in fixed if o.split("=")[0].split(".")[0] not in ("sweeps", "name")]
    of_space = flatten(settings.space).keys()
    common = [o for o in common if o.split("=")[0] not in of_space]
    named = multirun.choices.get("sweeps") or ""
    parts = [default_name(multirun.choices, redact_overrides(common))]
    parts += [named] if named != parts[0] else []
    keys = [axis.name for axis in axes]
    parts += [unique_end(key, keys) for key in keys if key not in of_space]
    text = re.sub(r"[^\w.=+-]+", "-", "_".join(filter(None, parts)))
    if len(text) <= NAME_LENGTH:
        return text
    return f"{text[: NAME_LENGTH - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _values(fixed: Sequence[str]) -> dict[str, Any]:
    """What overrides set, by key."""
    return {o.key_or_group: o.value() for o in map(parse, fixed) if not o.is_delete()}


def _checked_name(name: str) -> str:
    """A name that stays a folder in `outputs/sweeps/`.

    Raises:
        ConfigError: It leads elsewhere.
    """
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ConfigError(f"name={name}: is no folder in outputs/sweeps; give it as in name=first")
    return name
