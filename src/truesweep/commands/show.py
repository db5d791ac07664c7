"""`truesweep show`, and `truesweep train --cfg job`: what was composed, and where it comes from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from truesweep import dotted
from truesweep.config.origin import Origins, Source
from truesweep.config.overrides import as_text, is_override
from truesweep.errors import ConfigError
from truesweep.record.files import dump_json
from truesweep.record.frozen import freeze
from truesweep.runs.run import UNREADABLE, Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.terminal import console, warn

WIDEST = 44
"""Characters of a value in a column; longer ones push what stands behind them aside."""
LIMITS = {"trainer.max_epochs": "trainer.max_steps", "trainer.max_steps": "trainer.max_epochs"}
"""Who names one of these and not the other has that one alone."""


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
    for key, value in {**values, **helpers}.items():
        origin = _origin(key, value, made.origins)
        if key == "name" and value is None:
            value, origin = default_name(made.choices, made.overrides), "from what was asked"
        yield Entry(key, written.get(key, value), origin)


def _origin(key: str, value: Any, origins: Origins) -> str:
    """Where a value comes from, which need not be where it would stand."""
    other = LIMITS.get(key)
    if other and value is None and (where := origins(other)):
        return f"since {other} is given ({where})"
    return origins(key) or "default"


def of_directory(directory: Path) -> Iterator[Entry]:
    """The values of a run's configuration, or of what a sweep was asked for.

    Raises:
        ConfigError: It is the directory of neither.
    """
    if SweepDirectory.is_sweep(directory):
        sweep = SweepDirectory.open(directory)
        record, file = sweep.read(), sweep.asked
        latest = record.pop("asked")[-1]
        overrides: list[str] = latest["overrides"]
        swept: Mapping[str, Any] = {}
    else:
        run = Run.open(directory)
        record, file, swept = run.read_config(), run.config, run.varies
        overrides = _overrides(run)
    origins = Origins(overrides, (), [Source(file, "")], swept)
    for key, value in dotted.flatten(record).items():
        yield Entry(key, value, origins(key) or "default")


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
    values = [as_text(entry.value) for entry in entries]
    keys = max(len(entry.key) for entry in entries)
    width = min(WIDEST, max(map(len, values)))
    out = console()
    for entry, value in zip(entries, values, strict=True):
        line = Text.assemble(f"{entry.key:<{keys}}  {value:<{width}}  ", (entry.origin, "dim"))
        out.print(line, soft_wrap=True)
