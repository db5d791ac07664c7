"""What a sweep varies: Hydra's multirun grammar read into axes, and the points that they span.

The only place that knows sweep syntax: `a=1,2`, `choice()`, `range()`, `interval()`, `glob()`,
`shuffle()`, `sort()` and `tag()`, on the command line or as text in a sweep's `space`.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
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
from truesweep.config.overrides import (
    as_text,
    chooses,
    covers,
    only_chooses,
    overlap,
    parse,
    takes_back,
)
from truesweep.config.roots import options
from truesweep.dotted import flatten, nearest_key
from truesweep.errors import ConfigError, did_you_mean
from truesweep.text import ORDER, Condition
from truesweep.text import value as typed

MOST_VALUES = 10_000
"""More values than any sweep lists; a longer range is an interval."""
FEWEST_VALUES = 500
"""An interval has at least as many, however narrow it is."""
TAGS = ("log",)
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
        place: How many of the sweep's fixed overrides, and of its axes, were written before it.
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
    place: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The key without the signs before it."""
        return self.key.lstrip("+~")

    def override(self, value: Any) -> str:
        """The override that sets this key to a value."""
        return f"{self.key}={as_text(value)}"

    def draw(self, rng: random.Random) -> Any:
        """A value by chance, as `rounded`."""
        if self.values and not self.log:
            return rng.choice(self.values)
        assert self.low is not None
        assert self.high is not None
        # Each value of a range has the room up to the middle between it and its neighbours.
        half = (self.step or 0) / 2
        low = max(self.low - half, self.low / 2) if self.log else self.low - half
        high = self.high + half
        number = low * (high / low) ** rng.random() if self.log else rng.uniform(low, high)
        return self.rounded(number)

    def rounded(self, number: float) -> Any:
        """The value of a range next to a number, or an interval's number to four digits.

        More digits where the interval is so narrow that four would leave it few values.
        """
        assert self.low is not None
        assert self.high is not None
        if self.values:
            return min(self.values, key=lambda value: abs(value - number))
        if self.kind == "int":
            return round(number)
        wanted = (self.high - self.low) / FEWEST_VALUES
        exponent = math.floor(math.log10(abs(number) or 1.0))
        digits = max(4, min(17, math.ceil(exponent - math.log10(wanted)) + 1))
        return min(max(float(f"{number:.{digits}g}"), self.low), self.high)


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
    said: list[Override] = []
    for later in map(parse, [*_lines(space), *overrides]):
        said = _added(said, later, roots)
    axes: list[Axis] = []
    fixed: list[str] = []
    for one in said:
        if one.is_sweep_override():
            place = len(fixed), len(axes)
            axes.append(replace(_axis(one, roots, seed), text=str(one.input_line), place=place))
        else:
            fixed.append(str(one.input_line))
    for first, second in itertools.combinations(axes, 2):
        if first.name == second.name:
            raise ConfigError(
                f"{first.text} {second.text}: {first.name} is swept twice; let the second "
                f"sweep a key of its own, such as {first.name}.KEY=VALUE,VALUE"
            )
    return axes, fixed


def _added(said: list[Override], later: Override, roots: Sequence[Path]) -> list[Override]:
    """Overrides with a later one in the place of what it leaves nothing of, or at the end."""
    kept: list[Override] = []
    at = None
    for index, earlier in enumerate(said):
        if not _is_idle(earlier, later, roots):
            kept.append(earlier)
        elif any(takes_back(one, earlier, roots) for one in [*said[index + 1 :], later]):
            kept.append(_first(earlier, roots) if earlier.is_sweep_override() else earlier)
        elif at is None:
            at = len(kept)
    at = len(kept) if at is None else at
    # Which option is chosen does not depend on the order, what is set in it does.
    setting = [o.key_or_group for o in kept[at:] if not only_chooses(o, roots)]
    if not only_chooses(later, roots) and any(overlap(later.key_or_group, key) for key in setting):
        at = len(kept)
    return [*kept[:at], later, *kept[at:]]


def _first(override: Override, roots: Sequence[Path]) -> Override:
    """A sweep's first value alone: what a later override deletes has to be set before."""
    axis = _axis(override, roots, seed=0)
    return parse(axis.override(axis.values[0] if axis.values else axis.low))


def _is_idle(earlier: Override, later: Override, roots: Sequence[Path]) -> bool:
    """Whether an override may be left out as another comes later."""
    again = earlier.get_key_element().lstrip("+") == later.get_key_element().lstrip("+")
    return (again or earlier.is_sweep_override()) and covers(later, earlier, roots)


def in_order(fixed: Sequence[str], axes: Sequence[Axis]) -> list[str | Axis]:
    """Overrides and axes as they were written: a later one may change what an earlier one sets."""
    ordered: list[str | Axis] = []
    in_place = sorted(axes, key=lambda axis: axis.place)
    for index in range(len(fixed) + 1):
        ordered += [axis for axis in in_place if axis.place[0] == index]
        ordered += fixed[index : index + 1]
    return ordered


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
    sweep: Any = parsed_value(override)
    if isinstance(sweep, Glob):
        return Axis(key, values=_options(override, sweep, roots), group=True)
    for tag in sweep.tags:
        if tag not in TAGS:
            hint = did_you_mean(tag, TAGS) or f"; there is {', '.join(TAGS)}"
            raise ConfigError(f"{override.input_line}: there is no tag {tag}{hint}")
    if isinstance(sweep, ChoiceSweep):
        group = chooses(override, roots)
        axis = Axis(key, values=tuple(_elements(override, sweep, roots)), group=group)
    elif isinstance(sweep, RangeSweep):
        axis = _range(key, sweep)
    else:
        axis = _interval(key, sweep)
    tagged = "log" in sweep.tags and axis.low is not None  # a choice has no scale
    if tagged and (axis.low or 0) <= 0:
        raise ConfigError(f"{override.input_line}: a logarithmic scale needs numbers above zero")
    log = tagged or _is_logarithmic(axis)
    return replace(axis, log=log, values=_order(axis, getattr(sweep, "shuffle", False), seed))


def _elements(override: Override, sweep: ChoiceSweep, roots: Sequence[Path]) -> Iterator[Any]:
    """The values of a choice; a range, a glob or another choice among them are their own values."""
    for item in sweep.list:
        if isinstance(item, ChoiceSweep):
            yield from _elements(override, item, roots)
        elif isinstance(item, RangeSweep):
            yield from _range(override.get_key_element(), item).values
        elif isinstance(item, Glob):
            yield from _options(override, item, roots)
        elif isinstance(item, IntervalSweep):
            raise ConfigError(
                f"{override.input_line}: an interval has no list of values to stand in; write the "
                "interval alone, or values alone"
            )
        else:
            yield plain_value(item)


def _order(axis: Axis, shuffled: bool, seed: int) -> tuple[Any, ...]:
    values = list(axis.values)
    if shuffled:
        random.Random(f"{seed} {axis.name}").shuffle(values)
    return tuple(values)


def _options(override: Override, glob: Glob, roots: Sequence[Path]) -> tuple[str, ...]:
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


Point = dict[str, Any]
"""A value for each swept key, by the axis's key, in the order of the axes."""

MOST_POINTS = 10_000
TRIES = 100
"""Draws for each wanted point before a space counts as used up."""


@dataclass(frozen=True)
class Space:
    """What a sweep varies.

    Args:
        axes: The swept keys.
        zip: Lists of keys whose values go together.
        exclude: Combinations that are left out; see `settings.Sweep`.
        seed: Decides what is drawn.
        replaced: Keys whose values are not those that `exclude` was written for; a combination of
            theirs may have no point.

    Raises:
        ConfigError: Keys are not swept, or paired axes differ in length.
    """

    axes: Sequence[Axis]
    zip: Sequence[Sequence[str]] = ()
    exclude: Sequence[Mapping[str, Any]] = ()
    seed: int = 0
    replaced: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for names in self.zip:
            self._check_pairing(names)
        paired = [name for names in self.zip for name in names]
        for name in paired:
            if paired.count(name) > 1:
                raise ConfigError(f"sweeps.zip: {name} stands there twice; name each key once")
        for index, rule in enumerate(self.exclude):
            for name, wanted in rule.items():
                self._check_condition(f"sweeps.exclude[{index}]", name, wanted)

    def _check_condition(self, where: str, name: str, wanted: Any) -> None:
        """Make sure that what an axis of numbers is compared with is a number."""
        axis = self._axis(name, where)
        numeric = axis.kind != "choice" or any(type(v) in (int, float) for v in axis.values)
        for item in wanted if isinstance(wanted, list) else [wanted]:
            if numeric and isinstance(item, str) and Condition.orders_text(item):
                raise ConfigError(
                    f"{where}: {name}: {item!r} compares with what is no number; "
                    "write a number, as in '>= 0.01'"
                )

    @property
    def dimensions(self) -> list[list[Axis]]:
        """The axes, those that are paired in one list, in the order of each list's first."""
        lists = {name: list(names) for names in self.zip for name in names}
        joined: dict[str, list[Axis]] = {}
        for axis in self.axes:
            names = lists.get(axis.name, [axis.name])
            joined.setdefault(names[0], [self._axis(name, "sweeps.zip") for name in names])
        return list(joined.values())

    def grid(self) -> list[Point]:
        """All combinations that are not excluded; the last axis changes fastest.

        Raises:
            ConfigError: An axis is endless, there are too many points, or an exclusion has none.
        """
        for axis in self.axes:
            if not axis.values:
                raise ConfigError(
                    f"{axis.name}: a grid cannot list what lies between {typed(axis.low)} and "
                    f"{typed(axis.high)}; give values, or sweeps.method=random or search"
                )
        sides = [_side(axes) for axes in self.dimensions]
        if math.prod(map(len, sides)) > MOST_POINTS:
            raise ConfigError(
                f"the grid has {math.prod(map(len, sides)):,} points, more than {MOST_POINTS:,}; "
                "give fewer values, or sweeps.method=random"
            )
        points = [self._joined(parts) for parts in itertools.product(*sides)]
        self._refuse_idle_exclusions(points)
        return [point for point in points if not self.excluded(point)]

    def sample(self, count: int) -> list[Point]:
        """Different points by chance, fewer if the space has no more; the first stay the same."""
        rng = random.Random(self.seed)
        points: list[Point] = []
        for _ in range(count * TRIES):
            parts = [
                rng.choice(_side(axes)) if _is_listed(axes) else {axes[0].key: axes[0].draw(rng)}
                for axes in self.dimensions
            ]
            point = self._joined(parts)
            if point not in points and not self.excluded(point):
                points.append(point)
            if len(points) == count:
                break
        return points

    def beside(self, point: Point, dimensions: Sequence[Sequence[Axis]]) -> list[Point]:
        """The points that differ from one in some dimensions only, all of them listed; it, too."""
        sides = [
            _side(axes) if axes in dimensions else [{axis.key: point[axis.key] for axis in axes}]
            for axes in self.dimensions
        ]
        points = [self._joined(parts) for parts in itertools.product(*sides)]
        return [point for point in points if not self.excluded(point)]

    def excluded(self, point: Mapping[str, Any]) -> bool:
        """Whether a point is one of those that are left out."""
        return any(_matches(rule, point) for rule in self.exclude)

    def _joined(self, parts: Sequence[Mapping[str, Any]]) -> Point:
        together = {key: value for part in parts for key, value in part.items()}
        return {axis.key: together[axis.key] for axis in self.axes}

    def _axis(self, name: str, where: str) -> Axis:
        for axis in self.axes:
            if axis.name == name:
                return axis
        swept = [axis.name for axis in self.axes]
        there = f"; swept are {', '.join(swept) or 'no keys'}"
        hint = did_you_mean(name, swept, nearest_key) or there
        raise ConfigError(f"{where}: {name} is not swept{hint}")

    def _check_pairing(self, names: Sequence[str]) -> None:
        axes = [self._axis(name, "sweeps.zip") for name in names]
        for axis in axes:
            if not axis.values:
                raise ConfigError(f"sweeps.zip: {axis.name} has no list of values to pair")
        if len({len(axis.values) for axis in axes}) > 1:
            lengths = ", ".join(f"{axis.name} has {len(axis.values)}" for axis in axes)
            raise ConfigError(f"sweeps.zip: {lengths} values; paired axes need the same number")

    def _refuse_idle_exclusions(self, points: Sequence[Point]) -> None:
        for index, rule in enumerate(self.exclude):
            if self.replaced & rule.keys():
                continue
            if not any(_matches(rule, point) for point in points):
                wanted = ", ".join(f"{key}: {value}" for key, value in rule.items())
                raise ConfigError(
                    f"sweeps.exclude[{index}]: no point of the grid has {{{wanted}}}; "
                    "mend or remove it"
                )


def pairings(given: Sequence[Sequence[str]], fixed: Mapping[str, Any]) -> list[list[str]]:
    """The pairs that are left of a sweep some of whose keys are fixed."""
    left = ([name for name in names if name not in fixed] for names in given)
    return [names for names in left if len(names) > 1]


def exclusions(
    given: Sequence[Mapping[str, Any]], fixed: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The combinations that are left of a sweep some of whose keys are fixed."""
    return [
        {name: wanted for name, wanted in rule.items() if name not in fixed}
        for rule in given
        if all(_meets(fixed[name], wanted) for name, wanted in rule.items() if name in fixed)
    ]


def _is_listed(axes: Sequence[Axis]) -> bool:
    """Whether each value of a dimension is as likely as any other."""
    return len(axes) > 1 or bool(axes[0].values and not axes[0].log)


def _side(axes: Sequence[Axis]) -> list[Point]:
    """The values of one dimension, as parts of points."""
    rows = zip(*(axis.values for axis in axes), strict=True)
    return [{a.key: value for a, value in zip(axes, row, strict=True)} for row in rows]


def _matches(rule: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    values = {key.lstrip("+~"): value for key, value in point.items()}
    return all(_meets(values[name], wanted) for name, wanted in rule.items())


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and not isinstance(value, list):
        return any(_meets(value, item) for item in wanted)
    if isinstance(wanted, str) and type(value) in (int, float):
        condition = Condition.read(wanted)
        if condition is not None and condition.sign in ORDER:
            return condition.accepts(value)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
