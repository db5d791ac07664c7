"""`truesweep show`, and `truesweep train --cfg job`: what was composed, and where it comes from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from truesweep import dotted
from truesweep.config.origin import LIMITS, Origins, Source, since
from truesweep.config.overrides import as_text, is_override, is_readable, named
from truesweep.errors import ConfigError
from truesweep.record.files import dump_json
from truesweep.record.frozen import freeze
from truesweep.runs.run import UNREADABLE, Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.terminal import console, warn

WIDEST = 44
"""Characters of a value in a column; longer ones push what stands behind them aside."""

ASKED = "asked"
"""The key of what was typed for a sweep: what it varies above all, or a duel's contenders."""


@dataclass(frozen=True)
class Entry:
    """A value of a configuration.

    Args:
        key: Dotted.
        value: Plain; where interpolations were not resolved, text with `${…}`.
        origin: A file and line, `command line`, `swept` or `default`.
    """

    key: str
    value: Any
    origin: str


def show(
    arguments: Sequence[str], config_dirs: Sequence[Path], resolve: bool, as_json: bool
) -> int:
    """Print a composed configuration, or that of a run or a sweep, each value with its origin.

    Args:
        arguments: Overrides, or one directory.
        config_dirs: The user's own folders of configuration.
        resolve: Whether to show the values of interpolations, and not how they are written.
        as_json: Print JSON: `config`, nested, and `origins` by dotted key.
    """
    if arguments and not is_override(arguments[0]):
        if len(arguments) > 1:
            raise ConfigError(f"{' '.join(arguments[1:])}: a directory is shown as it is")
        found = list(of_directory(Path(arguments[0])))
    else:
        found = list(composed(arguments, config_dirs, resolve))
    if as_json:
        origins = {entry.key: entry.origin for entry in found}
        print(dump_json({"config": _nested(found), "origins": origins}, indent=2))
    else:
        _print(found)
    return 0


def print_composed(
    what: str, overrides: Sequence[str], config_dirs: Sequence[Path], resolve: bool
) -> int:
    """Print a configuration as YAML, as Hydra's `--cfg job` does.

    Raises:
        ConfigError: Hydra's own configuration is asked for.
    """
    if what != "job":
        raise ConfigError(f"--cfg {what}: Hydra's own runtime is not used; write --cfg job")
    print(freeze(_nested(list(composed(overrides, config_dirs, resolve)))), end="")
    return 0


def composed(
    overrides: Sequence[str], config_dirs: Sequence[Path], resolve: bool
) -> Iterator[Entry]:
    """The values of a configuration that overrides compose; see `show`.

    Raises:
        ConfigError: It is wrong.
    """
    import truesweep.libraries  # noqa: F401  # quicker than by what needs them
    from truesweep.config.compose import compose  # not for a run's directory, which is read only
    from truesweep.jobs.names import default_name
    from truesweep.jobs.parts import complete

    made = compose(overrides, config_dirs)
    config = complete(made.config, made.origins)
    written = {} if resolve else made.written
    helpers = {key: value for key, value in written.items() if key.startswith("vars.")}
    values = {**dotted.flatten(config), **{f"sweeps.{k}": v for k, v in made.sweeps.items()}}
    origins = made.origins.told({**values, **helpers}, dotted.flatten(made.config))
    for key, value in {**values, **helpers}.items():
        if key == "name" and value is None:
            value = default_name(made.choices, made.overrides)
        yield Entry(key, written.get(key, value), origins.get(key, "default"))


def of_directory(directory: Path) -> Iterator[Entry]:
    """The values of a run's configuration, or of what a sweep was asked for.

    Raises:
        ConfigError: It is the directory of neither.
    """
    if SweepDirectory.is_sweep(directory):
        sweep = SweepDirectory.open(directory)
        record = sweep.read()
        latest = record.pop("asked")[-1]
        record.pop("settled", None)  # what came of it was not asked for
        record.get("duel", {}).pop("answer", None)
        yield Entry(ASKED, latest["overrides"], "command line")
        known, folder = latest.get("origins"), Path(latest["directory"])
        lines = [line for line in latest["overrides"] if is_readable(line)]  # none of a duel
        origins = Origins(lines, (), [Source(sweep.asked, "")])
    else:
        run = Run.open(directory, or_sweep=True)
        record, known, folder = run.read_config(), _recorded(run), run.started_in
        origins = Origins(_overrides(run), (), [Source(run.config, "")], run.varies)
    for key, value in dotted.flatten(record).items():
        if known is None:  # of an earlier version
            yield Entry(key, value, origins(key) or "default")
        else:
            yield Entry(key, value, since(known.get(key, "default"), key, value, folder))


def _recorded(run: Run) -> dict[str, str] | None:
    """Where the values of a run came from when it was started, and those that changed since."""
    provenance = run.read_provenance()
    if "origins" not in provenance:
        return None
    origins = dict(provenance["origins"])
    for change in provenance.get("changes", []):
        given = named(change["overrides"])
        where = {key: f"resumed with {key}={as_text(value)}" for key, value in given.items()}
        limits = given.keys() & LIMITS.keys()
        others = {LIMITS[key]: f"since {key} is given ({where[key]})" for key in limits}
        origins |= others | where
    return origins


def _overrides(run: Run) -> list[str]:
    """The overrides that a run keeps; none, and a warning, where they are damaged."""
    try:
        return run.read_overrides()
    except UNREADABLE as error:
        warn([str(error)], stderr=True)
        return []


def _nested(entries: Sequence[Entry]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for entry in entries:
        dotted.put(nested, entry.key, entry.value)
    return nested


def _print(entries: Sequence[Entry]) -> None:
    entries = [one for entry in entries for one in _rows(entry)]
    values = [as_text(entry.value) for entry in entries]
    keys = max(len(entry.key) for entry in entries)
    width = min(WIDEST, max(map(len, values)))
    out = console()
    for entry, value in zip(entries, values, strict=True):
        line = Text.assemble(f"{entry.key:<{keys}}  {value:<{width}}  ", (entry.origin, "dim"))
        out.print(line, soft_wrap=True)


def _rows(entry: Entry) -> list[Entry]:
    """An entry; of what was typed a row for each argument."""
    return [replace(entry, value=one) for one in entry.value] if entry.key == ASKED else [entry]
