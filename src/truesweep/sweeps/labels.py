"""What varies, in short and unique: `lr=3e-4 depth=6`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Varies = Mapping[str, Any]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key, or as many parts as tell it from the others."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[-count:])
            if not any(other != key and f".{other}".endswith(f".{name}") for other in keys):
                break
        names[key] = name
    return names


def label(varies: Varies, digits: int | None = 4) -> str:
    """One job's values.

    Args:
        varies: The swept keys and their values.
        digits: Significant digits of numbers; None: all, and whole paths.
    """
    names = short_names(list(varies))
    return " ".join(f"{names[key]}={_shown(value, digits)}" for key, value in varies.items())


def labels(jobs: Sequence[Varies]) -> list[str]:
    """A label for each job, with all digits and whole paths where less does not tell them apart."""
    short = [label(varies) for varies in jobs]
    count = Counter(short)
    full = [
        text if count[text] == 1 else label(varies, None)
        for text, varies in zip(short, jobs, strict=True)
    ]
    seen: Counter[str] = Counter()
    for index, text in enumerate(full):
        seen[text] += 1
        if seen[text] > 1:
            full[index] = f"{text} #{seen[text]}"
    return full


def _shown(value: Any, digits: int | None) -> str:
    if isinstance(value, float):
        plain = repr(value) if digits is None else f"{value:.{digits}g}"
        return min(plain, _scientific(plain), key=len)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return ",".join(_shown(item, digits) for item in value)
    text = str(value)
    if digits is None:
        return text
    return text.rstrip("/").rsplit("/", 1)[-1] if "/" in text else text


def _scientific(plain: str) -> str:
    """Such as `3e-4`, with no more digits than `plain` has."""
    digits = len(plain.replace("-", "").replace(".", "").lstrip("0").partition("e")[0]) or 1
    mantissa, _, exponent = f"{float(plain):.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if exponent else plain
