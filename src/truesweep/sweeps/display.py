"""A sweep on screen: a live table on a terminal, a line for every event elsewhere."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from truesweep.sweeps.progress import DONE, Board, Row, counts, seconds_left
from truesweep.sweeps.source import ENDED

STYLES = {
    "running": "cyan",
    "completed": "green",
    "pruned": "yellow",
    "failed": "bold red",
    "preempted": "magenta",
    "interrupted": "magenta",
    "queued": "dim",
}
ORDER = ("running", "failed", "interrupted", "preempted", "pruned", "completed", "queued")
AROUND = 8
"""Lines of a terminal that are not for jobs: heading, frame, counts."""


class Display:
    """Shows how a sweep goes, as it goes.

    Args:
        name: The sweep's name.
        objective: The metric in the column of best values.
        console: Where to.
    """

    def __init__(self, name: str, objective: str, console: Console | None = None) -> None:
        self.name = name
        self.objective = objective
        self.console = console or Console(highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def event(self, text: str, important: bool = False) -> None:
        """Something has happened; a terminal, which shows the table, is told what matters only."""
        if important or not self.console.is_terminal:
            line = Text(f"{time.strftime('%H:%M:%S')}  {text}")
            self.console.print(line, soft_wrap=True)

    def show(self, rows: Sequence[Row], planned: int, best: Row | None) -> None:
        """Draw the table anew, where there is one."""
        if self.console.is_terminal:
            room = max(self.console.height - AROUND, 3)
            shown = most_telling(rows, room)
            self._live.update(summary(self, rows, shown, planned, best), refresh=True)

    def conclude(self, rows: Sequence[Row], planned: int, best: Row | None, path: Path) -> None:
        """Say what came of the sweep, which jobs failed, and what to type next.

        Args:
            rows: A row a job.
            planned: Jobs that there were to be.
            best: The best of them.
            path: The sweep's directory.
        """
        lines = [counts(rows, planned)]
        if best is not None:
            lines.append(f"best {self.objective} {number(best.best)}: {best.id}  {best.label}")
        for row in rows:
            if row.state == "failed":
                lines.append(f"failed: {row.id}  {row.label}: {first_line(row.error)}")
                lines.append(f"        {short(path / row.id / 'logs')}")
        if any(row.state not in ENDED for row in rows):
            lines.append(f"to go on: truesweep resume {short(path)}")
        for line in lines:
            self.console.print(Text(line), soft_wrap=True)


def show_status(display: Display, rows: Sequence[Row], planned: int, board: Board) -> None:
    """The whole table, once."""
    display.console.print(summary(display, rows, rows, planned, board.best(rows)))


def most_telling(rows: Sequence[Row], room: int) -> list[Row]:
    """The rows to show where there is no room for all: what runs, what went wrong, what is recent.

    They keep their order.
    """
    ranked = sorted(rows, key=lambda row: (ORDER.index(row.state), -row.ended))
    chosen = {row.id for row in ranked[:room]}
    return [row for row in rows if row.id in chosen]


def summary(
    display: Display, rows: Sequence[Row], shown: Sequence[Row], planned: int, best: Row | None
) -> Group:
    """Table, counts, time left and the best job so far."""
    below = Text(counts(rows, planned))
    left = seconds_left(rows, planned)
    if left and not all(row.state in DONE for row in rows):
        below.append(f"; about {duration(left)} left")
    lines = [below]
    if best is not None and best.best is not None:
        lines.append(Text(f"best {display.objective} {best.best:.4g}: {best.id} {best.label}"))
    return Group(_table(display, rows, shown), *lines)


def _table(display: Display, rows: Sequence[Row], shown: Sequence[Row]) -> Table:
    table = Table(title=display.name, title_justify="left", title_style="bold", expand=False)
    table.add_column("job", no_wrap=True, style="dim")
    table.add_column("varies", no_wrap=True, overflow="ellipsis", min_width=12, ratio=1)
    table.add_column("state", no_wrap=True)
    for name in ("step", "loss", display.objective, "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(*_cells(row))
    hidden = len(rows) - len(shown)
    if hidden:
        table.add_row("…", f"and {hidden} more", "", "", "", "", "")
    return table


def _cells(row: Row) -> list[str | Text]:
    step = f"{row.step}/{row.total}" if row.total else str(row.step)
    return [
        row.id,
        Text(row.label),
        Text(row.state, style=STYLES.get(row.state, "")),
        step if row.state != "queued" else "",
        number(row.loss),
        number(row.best),
        duration(row.left) if row.left is not None else "",
    ]


def number(value: float | None) -> str:
    """A figure in four digits."""
    return "" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Such as `0:42` or `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def first_line(text: str | None) -> str:
    """What an error says first; the rest stands in the log."""
    return (text or "").partition("\n")[0]


def short(path: Path) -> str:
    """A path as it would be typed here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../..") else relative
