"""A run's words: why it failed, what its model writes, how often its test split was looked at."""

from pathlib import Path
from typing import Any

from truesweep.runs.run import UNREADABLE, read_entries
from truesweep.runs.snapshot import Snapshot
from truesweep.secrets import scrub

TRACEBACK = "Traceback (most recent call last)"
TAIL = 20_000
"""Bytes at the end of a log in which its last error is looked for."""


def excerpts(run: Snapshot, brief: bool = False) -> dict[str, Any]:
    """The error with the end of its log, samples, and later scorings.

    Args:
        run: The run.
        brief: Shorter ones, where there are many runs.
    """
    broken = run.state in ("failed", "interrupted")
    rows, width = (1, 300) if brief else (3, 1200)
    return {
        "error": run.error,
        "log": scrub(_last_error(run, 1500 if brief else 4000)) if broken else "",
        "tables": _tables(run.directory.tables, rows, width),
        "evaluations": later_scorings(run),
    }


def _last_error(run: Snapshot, width: int) -> str:
    """The last traceback of the first rank that has one, or the end of the first rank's log."""
    logs = sorted((run.directory.path / "logs").glob("rank*.log"))
    ends = [_end(log) for log in logs]
    raised = [text[text.rfind(TRACEBACK) :] for text in ends if TRACEBACK in text]
    return (raised or ends or [""])[0].strip()[-width:]


def _end(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _tables(path: Path, rows: int, width: int) -> dict[str, Any]:
    """The first rows of each table, long texts cut."""
    try:
        tables = read_entries(path)
        return {
            name: [columns, [[_cut(cell, width) for cell in row] for row in _some(name, all, rows)]]
            for name, (columns, all) in tables.items()
        }
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, ValueError, AttributeError, TypeError) as error:
        return {"damaged": [["why"], [[str(error)]]]}


def _some(name: str, all: list[list[Any]], rows: int) -> list[list[Any]]:
    return all[: 40 if name == "classes" else rows]


def _cut(cell: Any, width: int) -> Any:
    return f"{cell[:width]}…" if isinstance(cell, str) and len(cell) > width else cell


def later_scorings(run: Snapshot) -> int:
    """How often the run's own test split was scored after the run itself had."""
    try:
        return max(0, len(run.directory.test_scorings) - 1)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0
