"""What is printed with: nothing that is read from a file or typed by a user is markup."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBOUNDED = 10_000
"""Characters in a line of a pipe, which has no width that a table would have to fit."""


def console(stderr: bool = False, width: int | None = None) -> Console:
    """A console that shows texts as they are.

    `[/x]`, `[bold]` and `:smile:` stay what they are; what is to have a style is a `Text`.

    Args:
        stderr: Whether it prints to standard error.
        width: Characters in a line; None: the terminal's.
    """
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def say(out: Console, text: str | Text) -> None:
    """Print sentences: a line in a pipe, broken between words on a terminal."""
    out.print(text, soft_wrap=not out.is_terminal)


def titled(title: str | None = None) -> Table:
    """A table without columns yet, under its title."""
    return Table(title=title, title_justify="left", title_style="bold")


def warn(sentences: Iterable[str], stderr: bool = False) -> None:
    """Print what the user should know.

    Args:
        sentences: Without their full stops.
        stderr: Whether standard output is for JSON alone.
    """
    out = console(stderr)
    for sentence in sentences:
        out.print(Text.assemble(("Warning: ", "bold yellow"), f"{sentence}."))
