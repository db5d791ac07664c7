"""A sweep on screen: a live table on a terminal, a line for every event elsewhere."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from truesweep import terminal
from truesweep.figures import digits_of
from truesweep.record import dashboard
from truesweep.runs.run import Run
from truesweep.sweeps.progress import DONE, FAILED, Board, Row, counts, seconds_left
from truesweep.sweeps.protocols import ENDED
from truesweep.text import duration, figure, figures, plural

STYLES = {
    "running": "cyan",
    "completed": "green",
    "paused": "blue",
    "pruned": "yellow",
    "failed": "bold red",
    "broken": "bold red",
    "preempted": "magenta",
    "interrupted": "magenta",
    "queued": "dim",
}
ORDER = (
    *("running", "failed", "broken", "interrupted", "preempted"),
    *("paused", "pruned", "completed", "queued"),
)
AROUND = 8
"""Lines of a terminal that are not for jobs: heading, frame, counts."""
GAP = 2
"""Spaces between columns, one of which is the frame's."""
TEXTS = ("job", "varies", "state")
SPARED = ("loss", "left", "step")
"""Columns that are left out where there is no room, the first one first."""
NAMED = 6
"""Jobs that are listed in a line; `status --json` has all."""
UNLIMITED = 160
"""Characters in a line where no terminal sets a limit."""


class Display:
    """Shows how a sweep goes, as it goes.

    Args:
        name: The sweep's name.
        board: Reads its jobs' rows.
        console: Where to.
    """

    def __init__(self, name: str, board: Board, console: Console | None = None) -> None:
        self.name = name
        self.board = board
        self.console = console or terminal.console()
        if not self.console.is_terminal:
            self.console.width = UNLIMITED
        self._live = Live(console=self.console, auto_refresh=False)

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

    def show(self, rows: Sequence[Row], planned: int) -> None:
        """Draw the table anew, where there is one."""
        if self.console.is_terminal:
            room = max(self.console.height - AROUND, 3)
            shown = most_telling(rows, room)
            self._live.update(summary(self, rows, shown, planned), refresh=True)

    def table(self, rows: Sequence[Row], planned: int) -> None:
        """Print the whole table, once."""
        self.console.print(summary(self, rows, rows, planned))
        for line in _dropped(rows):
            self.console.print(Text(line), soft_wrap=True)

    def conclude(self, rows: Sequence[Row], planned: int, path: Path) -> None:
        """Say what came of the sweep, which jobs failed, and what to type next.

        Args:
            rows: A row a job.
            planned: Jobs that there are to be, if more are to come.
            path: The sweep's directory.
        """
        lines = []
        if not self.console.is_terminal:  # which shows the table still
            lines.append(counts(rows, planned))
            lines += _best(self.board, rows)
        for row in rows:
            if row.state in FAILED:
                lines.append(f"{row.state}: {row.id}  {row.label}: {first_line(row.error)}")
                lines.append(f"        {short(path / row.id / 'logs')}")
        if planned or any(row.state not in (*ENDED, "paused") for row in rows):
            lines.append(f"to go on: truesweep resume {short(path)}")
        for line in [*lines, *_dropped(rows)]:
            self.console.print(Text(line), soft_wrap=True)

    def findings(self, found: Sequence[tuple[str, str]], report: Path) -> None:
        """Say what was learned, as titles and texts, and where it is shown."""
        for title, text in found:
            self.console.print(Text.assemble((f"{title}: ", "bold"), text))
        self.console.print(Text(f"report: {short(report)}"), soft_wrap=True)
        if any((report.parent / "wandb").glob("*run-*")):
            self.console.print(Text(f"W&B:    wandb leet {short(report.parent / 'wandb')}"))
        board = dashboard.read(report.with_name(dashboard.FILE))
        if board:
            sync = f"truesweep sync {short(report.parent)} sends it"
            told = board.get("url") or f"{short(report.with_name(dashboard.FILE))}; {sync}"
            self.console.print(Text(f"W&B:    {told}"), soft_wrap=True)


def most_telling(rows: Sequence[Row], room: int) -> list[Row]:
    """The rows to show where there is no room for all: what runs, what went wrong, what is recent.

    They keep their order.
    """
    ranked = sorted(rows, key=lambda row: (ORDER.index(row.state), -row.ended))
    chosen = {row.id for row in ranked[:room]}
    return [row for row in rows if row.id in chosen]


def summary(display: Display, rows: Sequence[Row], shown: Sequence[Row], planned: int) -> Group:
    """Table, counts, time left and the best job so far."""
    below = Text(counts(rows, planned))
    left = seconds_left(rows, planned)
    if left and not all(row.state in DONE for row in rows):
        below.append(f"; about {duration(left)} left")
    return Group(_table(display, rows, shown), below, *map(Text, _best(display.board, rows)))


def _best(board: Board, rows: Sequence[Row]) -> list[str]:
    """The best job so far, if there is one."""
    best = board.best(rows)
    if best is None:
        return []
    names = "  ".join(filter(None, [best.id, _varies(best)]))
    return [f"best job: {names}  {board.objective} {board.written(best)}"]


def paused(rows: Sequence[Row], jobs: Sequence[Run]) -> list[str]:
    """How one of the jobs that a search has paused goes on, if there are any."""
    waiting = [job for job, row in zip(jobs, rows, strict=True) if row.state == "paused"]
    if not waiting:
        return []
    place = short(waiting[0].path if len(jobs) == 1 else waiting[0].path.parent / "JOB")
    return [f"what is paused keeps its state: truesweep resume {place} trains it to its end"]


def _dropped(rows: Sequence[Row]) -> list[str]:
    """Which jobs cannot be made longer any more."""
    ids = [row.id for row in rows if row.dropped]
    if not ids:
        return []
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    kept = f"{plural(len(ids), 'job')} {'keep' if len(ids) > 1 else 'keeps'} weights only"
    return [f"sweeps.disk: {kept}, and cannot go on: {', '.join(ids[:NAMED])}{more}"]


def _varies(row: Row) -> str:
    """Nothing of a run by itself, which is called by its id."""
    return "" if row.label == row.id else row.label


def _table(display: Display, rows: Sequence[Row], shown: Sequence[Row]) -> Table:
    """One line a job; the least important columns make room for what varies."""
    lines = _cells(shown, display.board)
    if not any(map(_varies, rows)):
        for line in lines:
            del line["varies"]
    elif len(rows) > len(shown):
        lines.append(dict.fromkeys(lines[0], "") | {"job": "…"})
        lines[-1]["varies"] = f"and {len(rows) - len(shown)} more"
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    names = _fitting(widths, display.console.width)
    room = display.console.width - sum(widths[n] + GAP for n in names if n != "varies")
    table = Table(title=display.name, title_justify="left", title_style="bold", show_edge=False)
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, GAP - 1, 0, 0), False
    for name in names:
        table.add_column(name, no_wrap=True, justify="left" if name in TEXTS else "right")
    if "varies" in names:
        table.columns[names.index("varies")].max_width = max(room, 12)
    for line in lines:
        styles = {"job": "dim", "state": STYLES.get(line["state"], "")}
        table.add_row(*(Text(line[name], styles.get(name, "")) for name in names))
    return table


def _fitting(widths: Mapping[str, int], room: int) -> list[str]:
    """The columns that have room beside each other, what can be missed left out."""
    names = list(widths)
    for name in SPARED:
        if sum(widths[n] + GAP for n in names) > room + GAP:
            names.remove(name)
    return names


def _cells(rows: Sequence[Row], board: Board) -> list[dict[str, str]]:
    """Rows by column."""
    columns = {
        "job": [row.id for row in rows],
        "varies": [_varies(row) for row in rows],
        "state": [row.state for row in rows],
        "step": [_step(row) for row in rows],
        "loss": figures([row.loss for row in rows], digits_of("loss", board.declared)),
        board.objective: figures(
            [row.best for row in rows], digits_of(board.objective, board.declared)
        ),
        "left": [duration(row.left) for row in rows],
    }
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _step(row: Row) -> str:
    if row.state == "queued":
        return ""
    return f"{figure(row.step)}/{figure(row.total)}" if row.total else figure(row.step)


def first_line(text: str | None) -> str:
    """What an error says first; the rest stands in the log."""
    return (text or "").partition("\n")[0]


def short(path: Path) -> str:
    """A path as it would be typed here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("../..") else relative
