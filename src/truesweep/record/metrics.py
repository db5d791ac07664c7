"""`metrics.jsonl`: the record of a run that is always written, and written first."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from truesweep.record.files import dump_json, write_atomic
from truesweep.record.rows import Row, parse, scalars


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
            lines = [line for line, row in parse(self.path) if row["step"] <= step]
            write_atomic(self.path, b"".join(lines))
        self._opened = False

    def _open(self) -> None:
        """Take up the file where its last whole row ends."""
        self.path.touch()
        rows = parse(self.path)
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
