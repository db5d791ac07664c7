"""`model.depth=4`, `optimizer.lr<1e-3`, `state!=failed`: which runs are shown."""

import re
from collections.abc import Iterable, Mapping

from truesweep.dotted import nearest_key
from truesweep.errors import ConfigError, did_you_mean
from truesweep.text import Condition

_PATTERN = re.compile(r"\s*([\w./-]+?)\s*([<>=!].*)")


def parse(text: str, known: Iterable[str], short: Mapping[str, str]) -> tuple[str, Condition]:
    """Read a condition, and whose value has to meet it.

    Args:
        text: Such as `model.depth=4`.
        known: All keys that there are.
        short: Short names by key, which come before equal names.

    Raises:
        ConfigError: It is none, its key is unknown, or `<` is given something else than a number.
    """
    match = _PATTERN.fullmatch(text)
    condition = Condition.read(match[2]) if match is not None else None
    if match is None or condition is None:
        raise ConfigError(
            f"--filter {text!r}: expected KEY=VALUE, with = or !=, or with < > <= or "
            ">= and a number, such as 'model.depth=4' or 'optimizer.lr<1e-3'"
        )
    return find_key(match[1], known, short, "--filter"), condition


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
    near = did_you_mean(key, known, nearest_key) or did_you_mean(key, known)
    hint = near or f"; there are {', '.join(known[:12])}, …"
    raise ConfigError(f"{option} {key}: no run has such a key{hint}")
