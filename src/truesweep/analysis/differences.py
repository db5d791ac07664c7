"""What differs between two or more nested dicts: configurations, versions, results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from truesweep.dotted import flatten


class Absent(Enum):
    """Stands where one side has no such key."""

    ABSENT = "absent"

    def __str__(self) -> str:
        return "—"


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Difference:
    """One key of which two sides hold different values.

    Args:
        key: The path of the key, joined by dots.
        a: The first side's value, or `ABSENT`.
        b: The second side's value, or `ABSENT`.
    """

    key: str
    a: Any
    b: Any


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The keys in which two nested dicts differ, in the order of `a`, then what only `b` has.

    Dicts are compared key by key; everything else, lists included, as a whole. NaN equals NaN; a
    bool equals no number, but 1 equals 1.0.
    """
    return [Difference(key, *sides) for key, sides in varying([a, b]).items()]


def varying(dicts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which any of several nested dicts differ, with all their values in order."""
    flat = [flatten(d) for d in dicts]
    columns = {
        key: [one.get(key, ABSENT) for one in flat]
        for key in dict.fromkeys(key for one in flat for key in one)
    }
    return {
        key: values
        for key, values in columns.items()
        if any(not _same(values[0], value) for value in values[1:])
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    both_nan = isinstance(a, float) and isinstance(b, float) and a != a and b != b
    return both_nan or bool(a == b)
