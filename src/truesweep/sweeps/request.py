"""From a command line with `-m` to a sweep: its settings, its space and its name."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from truesweep.config.checks import name_is_a_folder
from truesweep.config.compose import Multirun, PointComposer, compose_multirun
from truesweep.config.overrides import named, parse
from truesweep.config.roots import search_roots
from truesweep.config.schema import check_settings
from truesweep.config.space import Axis, Space, exclusions, in_order, pairings, read_axes
from truesweep.dotted import flatten
from truesweep.errors import ConfigError
from truesweep.figures import Declared
from truesweep.jobs.names import NAME_LENGTH, described
from truesweep.jobs.parts import declared_figures
from truesweep.secrets import redact_overrides
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.launchers import check_sweeper, is_ours
from truesweep.sweeps.settings import AUTO, Sweep
from truesweep.text import unique_end

UNNAMED = ("sweeps", "hydra", "name", "logger", "callbacks")
"""Groups that no name tells of."""


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
        ordered = in_order(self.fixed, self.space.axes)
        return [entry if isinstance(entry, str) else entry.text for entry in ordered]

    def composer(self) -> PointComposer:
        """Composes the sweep's points."""
        return PointComposer(self.fixed, self.space.axes, self.config_dirs, self.multirun.raw_node)

    def example(self) -> dict[str, Any]:
        """The configuration of one of the points."""
        point = next(iter(self.space.sample(1)), {})
        return self.composer().compose(point).config


def ask(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Asked:
    """Read a sweep's command line.

    Raises:
        ConfigError: An override, the `sweeps` node or its space is wrong.
    """
    multirun = compose_multirun(overrides, config_dirs)
    settings: Sweep = check_settings(Sweep, multirun.node, "sweeps")
    roots = search_roots(config_dirs)
    axes, fixed = read_axes(settings.space, multirun.overrides, roots, settings.seed)
    ours = is_ours(multirun.sweeper)
    if ours:
        check_sweeper(multirun.sweeper)
    else:
        _refuse_repeated(in_order(fixed, axes))
    _refuse(axes, settings, ours=ours)
    settings = settings.settled(_declared(multirun))
    if not ours and settings.pruner == AUTO:  # which another sweeper knows nothing of
        settings = replace(settings, pruner=None)
    given = named(fixed)
    typed = {parse(line).key_or_group for line in multirun.overrides} | named(
        [line for line in multirun.overrides if not parse(line).is_sweep_override()]
    ).keys()
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
        fixed=fixed,
        overrides=redact_overrides(overrides),
        config_dirs=list(config_dirs),
        multirun=multirun,
    )


def _declared(multirun: Multirun) -> Declared:
    """What the task that all jobs have declares; what its check will refuse declares nothing."""
    with suppress(ConfigError):
        return declared_figures(multirun.fixed)
    return {}


def _refuse(axes: Sequence[Axis], settings: Sweep, *, ours: bool) -> None:
    """Refuse what cannot vary, and nothing that varies unless another sweeper has its own space."""
    for axis in axes:
        if axis.name == "name" or axis.name.partition(".")[0] == "sweeps":
            raise ConfigError(f"{axis.name}: belongs to the whole sweep and cannot vary in it")
        if settings.method == "search" and axis.log and axis.values and axis.step != 1:
            raise ConfigError(
                f"{axis.text}: a search takes no steps on a logarithmic scale; leave out the step, "
                "or write tag(log, interval(…))"
            )
        if axis.name == "seed" and settings.seeds != 1:
            raise ConfigError("seed is swept and sweeps.seeds is given; leave one of them out")
    if ours and not axes and settings.seeds == 1:
        raise ConfigError(
            "nothing varies: give several values, as in optimizer.lr=1e-3,3e-3, or a named sweep, "
            "sweeps=NAME"
        )


def _refuse_repeated(entries: Sequence[str | Axis]) -> None:
    """Refuse what other sweepers read as the last setting alone, as in `model={…} model={…}`."""
    keys = [e.name if isinstance(e, Axis) else parse(e).key_or_group for e in entries]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{key}: is set {keys.count(key)} times, of which another sweeper than ours takes "
                f"the last alone; write one setting, or keys of their own such as {key}.KEY=VALUE"
            )


def _name(multirun: Multirun, settings: Sweep, axes: Sequence[Axis], fixed: Sequence[str]) -> str:
    """What was given, or task, named sweep, fixed values and swept keys, but not their values."""
    if multirun.name is not None:
        return _given_name(multirun, axes)
    of_space = flatten(settings.space).keys()
    common = [o for o in of_jobs(fixed) if o.split("=")[0] not in of_space]
    named = multirun.choices.get("sweeps") or ""
    keys = [axis.name for axis in axes]
    swept = [unique_end(key, keys) for key in keys if key not in of_space]

    def called(start: str) -> str:
        parts = [start, *([named] if named != start else []), *swept]
        return _short(re.sub(r"[^\w.=+-]+", "-", "_".join(filter(None, parts))))

    start = described(multirun.choices, redact_overrides(common))
    # A name is part of its jobs' ids, so that this one stays as it was: what stands before the keys
    # is cut, and sweeps may have one name. The second of them has one that tells all.
    name = called(start[:NAME_LENGTH])
    return called(start) if _is_anothers(name, multirun.overrides) else name


def of_jobs(overrides: Sequence[str]) -> list[str]:
    """Overrides without those that are of the sweep alone: its settings and its name."""
    return [o for o in overrides if o.partition("=")[0].split(".")[0] not in ("sweeps", "name")]


def _short(text: str) -> str:
    """A name as it is or, where that is too long, its beginning and what tells it from others."""
    if len(text) <= NAME_LENGTH:
        return text
    return f"{text[: NAME_LENGTH - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _is_anothers(name: str, overrides: Sequence[str]) -> bool:
    """Whether there is a sweep of a name, and none that has the same fixed values."""
    sweep = SweepDirectory.called(name)
    if not sweep.asked.is_file():
        return False
    own = _fixed(redact_overrides(overrides))
    return all(_fixed(command["overrides"]) != own for command in sweep.read()["asked"])


def _fixed(overrides: Sequence[str]) -> set[str]:
    """What is the same in all jobs that are asked for, as far as a name tells of it."""
    parsed = {line: parse(line) for line in overrides}
    return {
        line
        for line, one in parsed.items()
        if not one.is_sweep_override() and re.split(r"[./]", one.key_or_group)[0] not in UNNAMED
    }


def _given_name(multirun: Multirun, axes: Sequence[Axis]) -> str:
    """The name that the command line or a file gives.

    Raises:
        ConfigError: It is no folder, or differs from job to job.
    """
    name, written = str(multirun.name), str(multirun.raw_name)
    for axis in axes:
        if re.search(rf"\$\{{{re.escape(axis.name)}\b", written):
            raise ConfigError(f"name={written}: is the whole sweep's, and {axis.name} varies in it")
    problems = name_is_a_folder({"name": name})
    if problems:
        raise ConfigError(problems[0])
    return name
