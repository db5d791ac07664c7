"""`model.depth=4`, `optimizer.lr<1e-3`, `state!=failed`: which runs are shown."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from truesweep.config.names import nearest, nearest_key
from truesweep.errors import ConfigError

_PATTERN = re.compile(r"\s*([\w./-]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Filter:
    """A condition on one value of a run.

    Args:
        key: Whose value.
        sign: `=`, `!=`, `<`, `>`, `<=` or `>=`.
        value: What it is compared to, as the user wrote it.
    """

    key: str
    sign: str
    value: str

    def accepts(self, value: Any) -> bool:
        """Whether a run with this value stays; numbers are compared as numbers."""
        left, right = number(value), number(self.value)
        if self.sign in _ORDER:
            return left is not None and right is not None and _ORDER[self.sign](left, right)
        same = left == right if left is not None and right is not None else self._reads(value)
        return same if self.sign == "=" else not same

    def _reads(self, value: Any) -> bool:
        return written(value) == self.value


def parse(text: str, known: Iterable[str], short: Mapping[str, str]) -> Filter:
    """Read a condition.

    Args:
        text: Such as `model.depth=4`.
        known: All keys that there are.
        short: Short names by key, which come before equal names.

    Raises:
        ConfigError: It is none, its key is unknown, or `<` is given something else than a number.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--filter {text!r}: expected KEY=VALUE, with = != < > <= or >=, "
            "such as 'model.depth=4' or 'optimizer.lr<1e-3'"
        )
    key, sign, value = match.groups()
    if sign in _ORDER and number(value) is None:
        raise ConfigError(f"--filter {text!r}: {sign} compares numbers, and {value!r} is none")
    return Filter(find_key(key, known, short, "--filter"), sign.replace("==", "="), value)


def find_key(key: str, known: Iterable[str], short: Mapping[str, str], option: str) -> str:
    """A key by its short name, its whole name, or the end of it that only one key has.

    Raises:
        ConfigError: There is no such key, or there are several.
    """
    for whole, name in short.items():
        if name == key:
            return whole
    known = list(known)
    ends = [name for name in known if name == key or name.endswith(f".{key}")]
    if key in known or len(ends) == 1:
        return key if key in known else ends[0]
    if ends:
        raise ConfigError(f"{option} {key}: several keys end so: {', '.join(ends)}")
    near = nearest_key(key, known) or nearest(key, known)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known[:12])}, …"
    raise ConfigError(f"{option} {key}: no run has such a key; {hint}")


def number(value: Any) -> float | None:
    """A value as a number, if it is one or reads as one."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def written(value: Any) -> str:
    """A value as it is written in a configuration."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(written(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
