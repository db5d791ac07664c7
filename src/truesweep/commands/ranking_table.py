"""The ranking in a terminal: as many of its columns as fit, none of them cut."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truesweep import text
from truesweep.figures import beside
from truesweep.report import Comparison
from truesweep.report.varying import setting
from truesweep.runs.snapshot import Snapshot
from truesweep.terminal import UNBOUNDED, console

STATES = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "paused": "yellow",
    "pruned": "dim",
    "queued": "dim",
    "interrupted": "yellow",
    "preempted": "yellow",
}
LEAST_MISSED = ("verdict", "FLOP", "cost", "state", "tokens", "samples", "time", "run")
"""In this order columns give way; before them those that tell nothing."""
LEAST_FOLDED = 6
"""Characters of a line of a long value."""


@dataclass(frozen=True)
class Column:
    """A column of the ranking.

    Args:
        name: Its head.
        cells: One a run.
        justify: To which side.
        varied: Whether it is a key that varies; its long values are folded where they must be.
    """

    name: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"
    varied: bool = False


def print_ranking(comparison: Comparison, out: Console) -> None:
    """Print the ranking, and which columns a narrow terminal left out; a pipe gets all."""
    columns = _columns(comparison)
    missed = _missed(columns, out.width) if out.is_terminal else []
    kept = [column for column in columns if column not in missed]
    table = _table(kept)
    table.title = comparison.title
    width = max(out.width, _width(kept, folded=True)) if out.is_terminal else UNBOUNDED
    console(width=width).print(table)
    if missed:
        names = ", ".join(column.name for column in missed)
        out.print(Text(f"Left out to fit: {names}. --csv has all.", "dim"))


def _columns(comparison: Comparison) -> list[Column]:
    """From left to right."""
    runs = comparison.runs

    def optional(
        name: str, cells: Iterable[str], justify: Literal["left", "right"]
    ) -> list[Column]:
        listed = list(cells)
        return [Column(name, listed, justify)] if any(listed) else []

    return [
        Column("#", [_place(comparison, run) for run in runs]),
        Column("run", [run.id for run in runs], "left"),
        *(
            Column(
                comparison.short[key], text.values(setting(run, key) for run in runs), "left", True
            )
            for key in comparison.keys
        ),
        Column(
            comparison.objective.name + _of(comparison),
            text.figures(map(comparison.objective.of, runs), comparison.digits),
        ),
        Column(comparison.unit, text.counts(run.tokens for run in runs)),
        Column("time", [text.duration(run.seconds) for run in runs]),
        Column("cost", [text.duration(run.cost) for run in runs]),
        *optional("FLOP", text.counts(run.flops for run in runs), "right"),
        Column("state", [run.state for run in runs], "left"),
        *optional("verdict", (str(run.verdict.get("kind", "")) for run in runs), "left"),
    ]


def _of(comparison: Comparison) -> str:
    """How many samples the objective is of, if these are not all of the split, in all runs."""
    name = comparison.objective.name
    found = {beside(name, run.results) for run in comparison.runs if run.results}
    return found.pop() if len(found) == 1 else ""


def _place(comparison: Comparison, run: Snapshot) -> str:
    rank = comparison.rank(run)
    return "" if rank is None else f"{rank}{' =' if comparison.tied(run) else ''}"


def _missed(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that have to go for the others to fit."""
    missed: list[Column] = []
    for column in _least_missed(columns):
        kept = [one for one in columns if one not in missed]
        if _width(kept) <= width:
            break
        missed.append(column)
    return missed


def _least_missed(columns: Sequence[Column]) -> list[Column]:
    """Those that may go; first what is alike in all runs, and a cost that is the time."""
    by_name = {column.name: column for column in columns if not column.varied}
    time = by_name["time"].cells

    def tells(column: Column) -> bool:
        return len(set(column.cells)) > 1 and not (column.name == "cost" and column.cells == time)

    return sorted((by_name[name] for name in LEAST_MISSED if name in by_name), key=tells)


def _table(columns: Sequence[Column]) -> Table:
    table = Table(title_justify="left", title_style="bold")
    for one in columns:
        table.add_column(one.name, justify=one.justify, no_wrap=not one.varied, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, STATES.get(cell, "")) for cell in cells))
    return table


def _width(columns: Sequence[Column], folded: bool = False) -> int:
    """Of the table, with its long values whole or folded as narrowly as they may be."""
    table = _table(columns)
    for column, drawn in zip(columns, table.columns, strict=True):
        drawn.max_width = LEAST_FOLDED if folded and column.varied else None
    return console(width=UNBOUNDED).measure(table).maximum
