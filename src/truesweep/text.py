"""How numbers, times and names are written: in the terminal, the report and W&B alike.

A *value* is what somebody chose (a rate, a depth, a path) and is written as it would be typed. A
*figure* was measured, and keeps its digits. A *count* (tokens, parameters, operations) has three of
them and a prefix.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from operator import eq, ge, gt, le, lt, ne
from statistics import median
from typing import Any, NamedTuple

PREFIXES = ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E"))
EXACT = 10_000
"""Counts below it are written in full."""
NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""What is no number, as JSON has it."""
_POWER = re.compile(r"(?<=[=\[,:])-?\d[\d.]*e[-+]?\d+(?=[ ,\]}]|$)")
_PATH = re.compile(r"[\w.~@:+/-]+")

SPACELESS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
"""A character of Thai, Lao, Burmese, Khmer, kana or Chinese: no spaces stand between words."""


def count_spaceless(text: str) -> int:
    """How many of a text's characters have no spaces between their words."""
    return 0 if text.isascii() else len(SPACELESS.findall(text))


def rounded(number: float, digits: int) -> float:
    """A number with so many significant digits."""
    return float(f"{number:.{digits}g}")


def number(value: Any) -> float | None:
    """What is a number, or text that reads as one; None for everything else, booleans too."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def finite(value: Any) -> float | None:
    """A number as it is, if it is finite as a float; None for all else, text and booleans too."""
    found = None if isinstance(value, str) else number(value)
    kept: float | None = value if found is not None and math.isfinite(found) else None
    return kept


# Values.


def value(chosen: Any, digits: int | None = 4) -> str:
    """A value as it is typed: `0.001`, `3e-5`, `true`, `[0.9,0.95]`.

    Args:
        chosen: The value.
        digits: Significant digits of numbers, and of a path the last part; None: all there is.
    """
    if chosen is None or isinstance(chosen, bool):
        return "null" if chosen is None else str(chosen).lower()
    if isinstance(chosen, float):
        return _typed(chosen, digits)
    if isinstance(chosen, list | tuple):
        return f"[{','.join(value(item, digits) for item in chosen)}]"
    if isinstance(chosen, Mapping):
        return f"{{{','.join(f'{key}:{value(item, digits)}' for key, item in chosen.items())}}}"
    text = str(chosen)
    short = text.rstrip("/").rpartition("/")[2] or text
    return text if digits is None or not _PATH.fullmatch(text) else short


def _typed(chosen: float, digits: int | None) -> str:
    """A plain decimal where that is short: `0.0001`, but `1e-5`."""
    if not math.isfinite(chosen):
        return NOT_FINITE[str(chosen)]
    exact = Decimal(repr(chosen))
    if digits is not None:  # of which those before the point are not rounded away
        digits = max(digits, exact.adjusted() + 1)
        while not chosen.is_integer() and rounded(chosen, digits).is_integer():
            digits += 1  # 0.99998 is not 1
        exact = Decimal(repr(rounded(chosen, digits)))
    exponent = exact.adjusted()
    if not exact:
        return "0"
    if -4 <= exponent < 6:
        return f"{exact.normalize():f}"
    return f"{exact.scaleb(-exponent).normalize():f}e{exponent}"


def values(column: Iterable[Any]) -> list[str]:
    """Values of one key, in short, or whole where short does not tell them apart."""
    column = list(column)
    return _distinct([value(v) for v in column], [value(v, digits=None) for v in column])


def _distinct(short: Sequence[str], whole: Sequence[str]) -> list[str]:
    meant: dict[str, set[str]] = {}
    for few, all_of_it in zip(short, whole, strict=True):
        meant.setdefault(few, set()).add(all_of_it)
    return [w if len(meant[s]) > 1 else s for s, w in zip(short, whole, strict=True)]


# Figures.


def figure(measured: float | str | None, digits: int = 4) -> str:
    """A measured number by itself, with its last zeros: `1.490`, `22.60`, `12,346`, `1.2e-7`.

    Nothing for None; text, as JSON holds what is not finite, as it is.
    """
    if measured is None or isinstance(measured, str):
        return measured or ""
    if isinstance(measured, int):
        return f"{measured:,}"
    if not math.isfinite(measured):
        return NOT_FINITE[str(measured)]
    mantissa, _, power = f"{measured:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if measured and not -4 <= exponent < 6:
        return f"{mantissa}e{exponent}"
    return f"{measured:,.{max(0, digits - 1 - exponent)}f}"


def figures(
    column: Iterable[float | str | None], digits: int, decimals: int | None = None
) -> list[str]:
    """The figures of a column, which all have the same decimals.

    Args:
        column: The figures.
        digits: Significant digits that the one in the middle has, and so decides for all.
        decimals: Digits after the point, in place of that.
    """
    column = list(column)
    if decimals is None:
        decimals = _decimals(column, digits)
    return [_figure(measured, digits, decimals) for measured in column]


def _decimals(column: Sequence[float | str | None], digits: int) -> int:
    sizes = [abs(f) for f in column if isinstance(f, float) and f and math.isfinite(f)]
    typical = rounded(median(sizes), digits) if sizes else 1.0
    return max(0, digits - 1 - math.floor(math.log10(typical)))


def _figure(measured: float | str | None, digits: int, decimals: int) -> str:
    if not isinstance(measured, float) or not math.isfinite(measured) or abs(measured) >= 1e6:
        return figure(measured, digits)
    text = f"{measured:,.{decimals}f}"
    # What the others' digits would not show has its own.
    return figure(measured, 2) if measured and not text.strip("-0.,") else text


def signed(difference: float, digits: int = 2) -> str:
    """A difference, always with its sign: `+0.012`."""
    return f"{'+' * (difference >= 0)}{figure(difference, digits)}"


# Counts, shares, times.


def count(amount: float | None, exact: int = EXACT) -> str:
    """An amount in three digits and a prefix: `93.4G`; below `exact` in full; nothing for None."""
    return "".join(_count(amount, exact))


def quantity(amount: float, unit: str) -> str:
    """An amount of a unit that takes the prefix: `93.4 GFLOP`, `1.20 GB`."""
    digits, prefix = _count(amount, EXACT)
    return f"{digits} {prefix}{unit}"


def _count(amount: float | None, exact: int) -> tuple[str, str]:
    if amount is None:
        return "", ""
    if not math.isfinite(amount) or abs(amount) < exact:
        return _in_full(amount), ""
    amount = rounded(amount, 3)
    size, prefix = next((p for p in reversed(PREFIXES) if abs(amount) >= p[0]), (1.0, ""))
    return figure(amount / size, digits=3), prefix


def _in_full(amount: float) -> str:
    whole = isinstance(amount, int) or amount.is_integer() or abs(amount) >= 100
    return figure(round(amount) if whole and math.isfinite(amount) else amount, digits=3)


def counts(column: Iterable[float | None]) -> list[str]:
    """The counts of a column: all in full, or all from a thousand on with a prefix."""
    column = list(column)
    large = any(amount is not None and abs(amount) >= EXACT for amount in column)
    return [count(amount, exact=1000 if large else EXACT) for amount in column]


def plural(amount: int, noun: str) -> str:
    """`1 run`, `16 runs`, `81.9k tokens`."""
    return f"{count(amount)} {noun}{'s' * (amount != 1)}"


def percent(share: float) -> str:
    """A share of one in two digits: `0.25 %`, `2.5 %`, `25 %`; `under 0.01 %`, but not nothing."""
    hundredths = 100 * share
    if 0 < hundredths < 0.005:
        return "under 0.01 %"
    if not hundredths or abs(hundredths) >= 9.95:
        return f"{hundredths:.0f} %"
    return f"{hundredths:.{1 if abs(hundredths) >= 0.995 else 2}f} %"


def duration(seconds: float | None) -> str:
    """`8.4 s`, `84 s`, `4:10 min`, `1:52 h`; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 99.5:
        return f"{seconds:.{int(0 < seconds < 9.95)}f} s"
    unit, whole = ("min", round(seconds)) if seconds < 3599.5 else ("h", round(seconds / 60))
    return f"{whole // 60}:{whole % 60:02d} {unit}"


# Names.


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """For each dotted key the shortest end of it that no other key has: `lr` for `optimizer.lr`.

    A node's class, `optimizer._target_`, goes by the node's name.
    """
    keys = list(dict.fromkeys(keys))
    plain = [key.removesuffix("._target_") for key in keys]
    if len(set(plain)) < len(keys):
        plain = keys
    return {key: unique_end(name, plain) for key, name in zip(keys, plain, strict=True)}


def unique_end(key: str, keys: Iterable[str]) -> str:
    """The last part of a dotted key, or as many parts as tell it from the other keys."""
    parts, others = key.split("."), [f".{other}" for other in keys if other != key]
    ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    return next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), key)


def label(chosen: Mapping[str, Any], digits: int | None = 4) -> str:
    """What was chosen, by short names that are unique among its keys: `lr=3e-5 depth=6`."""
    names = short_names(chosen)
    return " ".join(f"{names[key]}={value(v, digits)}" for key, v in chosen.items())


def labels(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """A label for each job, each another: whole values where short ones leave two alike.

    Jobs that are alike are numbered.
    """
    jobs = list(jobs)
    found = _distinct([label(job) for job in jobs], [label(job, digits=None) for job in jobs])
    seen: Counter[str] = Counter()
    for index, name in enumerate(found):
        seen[name] += 1
        if seen[name] > 1:
            found[index] = f"{name} #{seen[name]}"
    return found


def relabel(kept: str) -> str:
    """A label that an earlier version made, with its numbers written as today: `lr=0.001`."""
    return _POWER.sub(lambda found: value(float(found[0]), digits=None), kept)


# Conditions.

ORDER: dict[str, Callable[[Any, Any], bool]] = {"<": lt, ">": gt, "<=": le, ">=": ge}
_SIGNS = ORDER | {"=": eq, "!=": ne}
_CONDITION = re.compile(r"\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


class Condition(NamedTuple):
    """What a value must meet: a sign, and what it is compared with, as it was written."""

    sign: str
    bound: str

    @classmethod
    def read(cls, text: str) -> "Condition | None":
        """Read `>= 0.01` or `=muon`; None where the text is no condition.

        `<` and the like compare numbers, so that `<fast` is none.
        """
        match = _CONDITION.fullmatch(text)
        if match is None or (match[1] in ORDER and number(match[2]) is None):
            return None
        return cls(match[1].replace("==", "="), match[2])

    @classmethod
    def orders_text(cls, text: str) -> bool:
        """Whether a text asks for an order, as in `>= abc`, where there are no numbers to order."""
        match = _CONDITION.fullmatch(text)
        return match is not None and match[1] in ORDER and number(match[2]) is None

    def accepts(self, found: Any) -> bool:
        """Whether a value meets it; numbers are compared as numbers, all else as it is typed."""
        left, right = number(found), number(self.bound)
        if left is not None and right is not None:
            return bool(_SIGNS[self.sign](left, right))
        same = value(found, digits=None) == self.bound
        return self.sign not in ORDER and same == (self.sign == "=")
