"""The points of a sweep: combinations of its axes' values, some paired, some left out."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truesweep.config.axes import Axis
from truesweep.config.names import nearest_key
from truesweep.errors import ConfigError, did_you_mean
from truesweep.text import ORDER, Condition

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
            for name in rule:
                self._axis(name, f"sweeps.exclude[{index}]")

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
                    f"{axis.name}: a grid cannot list what lies between {axis.low:g} and "
                    f"{axis.high:g}; give values, or sweeps.method=random or search"
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
                rng.choice(_side(axes)) if axes[0].values else {axes[0].key: axes[0].draw(rng)}
                for axes in self.dimensions
            ]
            point = self._joined(parts)
            if point not in points and not self.excluded(point):
                points.append(point)
            if len(points) == count:
                break
        return points

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
