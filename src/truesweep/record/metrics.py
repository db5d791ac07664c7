"""`metrics.jsonl`: the record of a run that is always written, and written first."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from truesweep.errors import DataError
from truesweep.record.files import dump_json, write_atomic

Row = dict[str, Any]

# What `dump_json` writes for the numbers that JSON lacks.
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class MetricsFile(Logger):
    """Appends one JSON object per logged step to `directory/metrics.jsonl`, on rank 0.

    A row holds `step` (optimizer steps), `tokens` (trained on so far), `time` (seconds since the
    run started, going on over resumes) and the values logged. What is logged again for the last
    step joins its row. A row is with the operating system before `log_metrics` returns, so it
    outlives the process; a row cut in half by a kill is removed when the file is next opened.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__()
        self.path = Path(directory) / "metrics.jsonl"
        self._started = time.monotonic()
        self._opened = False

    @property
    @override
    def name(self) -> str:
        return "metrics"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in `config.yaml`."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write `metrics`, numbers or tensors of one element, as the values at optimizer `step`."""
        assert step is not None, "metrics are logged against an optimizer step"
        if not self._opened:
            self._open()
        join = self._last.get("step") == step
        row = {
            "step": step,
            "tokens": self._last.get("tokens", 0),
            "time": round(self._earlier + time.monotonic() - self._started, 3),
        }
        self._write((self._last if join else {}) | row | scalars(metrics), join)

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Drop the rows after `step`, from which training goes on, so that none stands twice."""
        if self.path.exists():
            lines = [line for line, row in _parse(self.path) if row["step"] <= step]
            write_atomic(self.path, b"".join(lines))
        self._opened = False

    def _open(self) -> None:
        """Take up the file where its last whole row ends."""
        self.path.touch()
        rows = _parse(self.path)
        self._last: Row = rows[-1][1] if rows else {}
        self._end = sum(len(line) for line, _ in rows)  # bytes
        self._start = self._end - (len(rows[-1][0]) if rows else 0)  # of the last row
        self._earlier = float(self._last.get("time", 0.0))  # seconds before this process
        self._opened = True

    def _write(self, row: Row, join: bool) -> None:
        """Write `row` over the last one if it is to `join` that, after it otherwise."""
        with self.path.open("r+b", buffering=0) as file:
            self._start = file.seek(self._start if join else self._end)
            self._end = self._start + file.write(f"{dump_json(row)}\n".encode())
            file.truncate(self._end)
        self._last = row


def scalars(metrics: Mapping[str, Any]) -> Row:
    """`metrics` with tensors and NumPy numbers of one element as Python's numbers."""
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()
    }


def read(path: str | Path) -> list[Row]:
    """Read the whole rows of a `metrics.jsonl`, NaN and infinities as floats again.

    Raises:
        DataError: a line other than the last is not a JSON object with a `step`.
    """
    return [row for _, row in _parse(Path(path))]


def _parse(path: Path) -> list[tuple[bytes, Row]]:
    """The lines of `path` and their rows, without a last line that a kill cut short."""
    lines = path.read_bytes().splitlines(keepends=True)
    rows: list[tuple[bytes, Row]] = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append((line, row))
        elif number < len(lines):
            raise DataError(
                f"{path}, line {number}, is not a JSON object with a step: {line[:80]!r}. "
                "Remove the line."
            )
    return rows


def _row(line: bytes) -> Row | None:
    """The row that `line` holds, or None if it is not a whole one."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return {key: float(value) if value in _NOT_FINITE else value for key, value in row.items()}
