"""What commands print with."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """Where results go."""
    return Console(highlight=False)


def print_wide(table: Table) -> None:
    """Print a table; into a pipe, which has no width that it would have to fit, in full."""
    out = console()
    wide = out if out.is_terminal else Console(highlight=False, width=10_000)
    wide.print(table)


def warn(sentences: Iterable[str], stderr: bool = False) -> None:
    """Print what the user should know.

    Args:
        sentences: Without their full stops.
        stderr: Whether standard output is for JSON alone.
    """
    out = Console(highlight=False, stderr=stderr)
    for sentence in sentences:
        out.print(Text.assemble(("Warning: ", "bold yellow"), f"{sentence}."))
