"""What a sweep varies: Hydra's multirun grammar, read into axes.

The only place that knows sweep syntax: `a=1,2`, `choice()`, `range()`, `interval()`, `glob()`,
`shuffle()`, `sort()` and `tag()`, on the command line or as text in a sweep's `space`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
)

from truesweep.compat import parsed_value, plain_value
from truesweep.config.overrides import as_text, parse
from truesweep.config.roots import is_group, options
from truesweep.dotted import flatten
from truesweep.errors import ConfigError

MOST_VALUES = 10_000
"""More values than any sweep lists; a longer range is an interval."""
LOGARITHMIC = ("lr", "learning_rate")
"""Last parts of keys whose intervals lie on a logarithmic scale, tagged or not: nobody means nine
tenths of the draws to go to the upper decade of a learning rate."""


@dataclass(frozen=True)
class Axis:
    """One swept key.

    Args:
        key: Dotted key or group, with `+`, `++` or `@package` where they were written.
        kind: `choice`, or numbers from `low` to `high`, both included: `int` or `float`.
        values: The values in their order; empty where there are too many to list.
        low: The smallest number.
        high: The largest number.
        step: The distance of neighbours; None: any number between.
        log: Whether the numbers are spread evenly on a logarithmic scale.
        group: Whether it chooses among the options of a group.
        text: The override as it was written.
    """

    key: str
    kind: Literal["choice", "int", "float"] = "choice"
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    group: bool = False
    text: str = ""

    @property
    def name(self) -> str:
        """The key without the signs before it."""
        return self.key.lstrip("+~")

    def override(self, value: Any) -> str:
        """The override that sets this key to a value."""
        return f"{self.key}={as_text(value)}"

    def draw(self, rng: random.Random) -> Any:
        """A value by chance, numbers to four digits."""
        if self.values:
            return rng.choice(self.values)
        assert self.low is not None
        assert self.high is not None
        if self.log:
            number = self.low * (self.high / self.low) ** rng.random()
        else:
            number = rng.uniform(self.low, self.high)
        return round(number) if self.kind == "int" else float(f"{number:.4g}")


def read_axes(
    space: Mapping[str, Any], overrides: Sequence[str], roots: Sequence[Path], seed: int = 0
) -> tuple[list[Axis], list[str]]:
    """The axes of a sweep, and the overrides that all its jobs have in common.

    Args:
        space: Keys with a list of values or with text in the sweep grammar; one value is fixed.
        overrides: The command line; a key that stands there replaces that of the space.
        roots: The folders in which groups are looked up.
        seed: Decides what `shuffle` does.

    Raises:
        ConfigError: One of them cannot be read, or varies nothing.
    """
    asked: dict[str, Override] = {}
    for line in [*_lines(space), *overrides]:
        parsed = parse(line)
        asked[parsed.get_key_element().lstrip("+")] = parsed
    axes = [
        replace(_axis(o, roots, seed), text=str(o.input_line))
        for o in asked.values()
        if o.is_sweep_override()
    ]
    fixed = [str(o.input_line) for o in asked.values() if not o.is_sweep_override()]
    return axes, fixed


def _lines(space: Mapping[str, Any]) -> list[str]:
    """The space as overrides. Text is taken as it is written, so that it may be a sweep."""
    return [
        f"{key}={','.join(map(as_text, given))}"
        if isinstance(given, list)
        else f"{key}={given if isinstance(given, str) else as_text(given)}"
        for key, given in flatten(space).items()
    ]


def _axis(override: Override, roots: Sequence[Path], seed: int) -> Axis:
    key = override.get_key_element()
    group = is_group(override.key_or_group, roots)
    sweep: Any = parsed_value(override)
    if isinstance(sweep, Glob):
        return Axis(key, values=_matches(override, sweep, roots), group=group)
    if isinstance(sweep, ChoiceSweep):
        axis = Axis(key, values=tuple(map(plain_value, sweep.list)), group=group)
    elif isinstance(sweep, RangeSweep):
        axis = _range(key, sweep)
    else:
        axis = _interval(key, sweep)
    tagged = "log" in sweep.tags and axis.low is not None  # a choice has no scale
    if tagged and (axis.low or 0) <= 0:
        raise ConfigError(f"{override.input_line}: a logarithmic scale needs numbers above zero")
    log = tagged or _is_logarithmic(axis)
    return replace(axis, log=log, values=_order(axis, getattr(sweep, "shuffle", False), seed))


def _order(axis: Axis, shuffled: bool, seed: int) -> tuple[Any, ...]:
    values = list(axis.values)
    if shuffled:
        random.Random(f"{seed} {axis.name}").shuffle(values)
    return tuple(values)


def _matches(override: Override, glob: Glob, roots: Sequence[Path]) -> tuple[str, ...]:
    names = options(override.key_or_group, roots)
    found = tuple(glob.filter(names))
    if not found:
        what = f"of {', '.join(names)}" if names else f"as {override.key_or_group} is no group"
        raise ConfigError(f"{override.input_line}: matches nothing, {what}")
    return found


def _range(key: str, sweep: RangeSweep) -> Axis:
    assert sweep.start is not None
    assert sweep.stop is not None
    line = f"{key}=range({sweep.start},{sweep.stop},{sweep.step})"
    count = (sweep.stop - sweep.start) / sweep.step if sweep.step else 0
    if count <= 0:
        raise ConfigError(f"{line}: is empty; a range ends before its second number")
    if count > MOST_VALUES:
        raise ConfigError(f"{line}: has {count:,.0f} values; write int(interval(…)) and draw some")
    values = tuple(sweep.range())
    kind: Literal["int", "float"] = "int" if isinstance(values[0], int) else "float"
    return Axis(key, kind, values, min(values), max(values), abs(sweep.step))


def _interval(key: str, sweep: IntervalSweep) -> Axis:
    assert sweep.start is not None
    assert sweep.end is not None
    if not sweep.start < sweep.end:
        raise ConfigError(f"{key}=interval({sweep.start},{sweep.end}): the lower end comes first")
    kind: Literal["int", "float"] = "int" if isinstance(sweep.start, int) else "float"
    return Axis(key, kind, low=sweep.start, high=sweep.end)


def _is_logarithmic(axis: Axis) -> bool:
    between = axis.kind == "float" and axis.step is None and (axis.low or 0) > 0
    return between and axis.name.rpartition(".")[2] in LOGARITHMIC
