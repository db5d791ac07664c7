"""Markdown: a section for each trap, replaced in place when it is measured again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

WIDTH = 120


@dataclass(frozen=True)
class Section:
    """What one trap comes to.

    Args:
        title: The section's heading, which it is found again by.
        text: What was done, and what the reader sees.
        columns: Names of the table's columns.
        rows: The table's cells.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Heading, text and table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"## {self.title}\n\n{fill(self.text, WIDTH)}\n\n{table}\n"


def replace(path: Path, section: Section) -> None:
    """Put a section in the place of the one of the same title, or at the end."""
    parts = re.split(r"(?m)^(?=## )", path.read_text(encoding="utf-8"))
    heading = f"## {section.title}\n"
    places = [i for i, part in enumerate(parts) if part.startswith(heading)]
    if places:
        last = places[0] + 1 == len(parts)
        parts[places[0]] = section.markdown() + ("" if last else "\n")
    else:
        parts += ["\n" + section.markdown()]
    path.write_text("".join(parts), encoding="utf-8")


def number(value: float) -> str:
    """Three digits; an exact zero stays one."""
    return "0" if value == 0 else f"{value:.3g}"
