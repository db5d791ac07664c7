"""The rows of a `metrics.jsonl`, read by all who want to know how a run goes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truesweep.errors import DataError

Row = dict[str, Any]

AXES = ("step", "tokens", "time")
"""What curves are drawn against, and rates are made of: whole numbers, and seconds."""

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""What `dump_json` writes for the numbers that JSON lacks."""


def scalars(metrics: Mapping[str, Any]) -> Row:
    """`metrics` with tensors and NumPy numbers of one element as Python's numbers."""
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()
    }


def read(path: str | Path) -> list[Row]:
    """Read the whole rows of a `metrics.jsonl`, NaN and infinities as floats again.

    Raises:
        DataError: a line other than the last is not a JSON object of numbers with a `step`.
    """
    return [row for _, row in parse(Path(path))]


def read_objects(path: Path) -> list[Row]:
    """Read the JSON objects, one a line, of a file that is only added to.

    Raises:
        DataError: A line is none; the last one may be cut short, as a kill leaves it.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines) or line.endswith(b"\n"):
            raise DataError(f"{path}, line {number}, is no JSON object. Remove the line.")
    return rows


def parse(path: Path) -> list[tuple[bytes, Row]]:
    """The lines of `path` and their rows, without a last line that a kill cut short."""
    lines = path.read_bytes().splitlines(keepends=True)
    rows: list[tuple[bytes, Row]] = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append((line, row))
        elif number < len(lines):
            raise DataError(
                f"{path}, line {number}, is not a JSON object of numbers with a step: "
                f"{line[:80]!r}. Remove the line."
            )
    return rows


def _row(line: bytes) -> Row | None:
    """The row that `line` holds, or None if it is not a whole one."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    row = {k: float(v) if isinstance(v, str) and v in NOT_FINITE else v for k, v in row.items()}
    if not all(v is None or isinstance(v, int | float) for v in row.values()):
        return None
    return row if all(type(row.get(axis, 0)) in (int, float) for axis in AXES) else None
