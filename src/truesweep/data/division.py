"""Texts on their way to the splits that they are divided into; a kill loses little of it."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from truesweep.data.texts import TextsWriter
from truesweep.record.files import write_json

JOURNAL = "division.json"
PART = 1 << 23
"""Bytes of text that a kill may lose."""


class Division:
    """Writers of the texts of splits, which go on where they were before a kill.

    Args:
        folder: Where the texts are written, and how far they are.
        names: The names of the splits.
        by: How the texts are divided; what was divided in another way begins anew.

    Attributes:
        writers: One for each split.
        place: What `commit` was given last, perhaps by a process that was killed; None: nothing.
    """

    def __init__(self, folder: Path, names: Iterable[str], by: str) -> None:
        self._journal = folder / JOURNAL
        self._by = by
        begun = _read(folder)
        if begun and begun["by"] != by:
            begun = {"by": by, "place": None, "kept": {}}
            write_json(self._journal, begun)
        self.place: list[Any] | None = begun.get("place")
        self._held = 0
        kept = begun.get("kept", {})
        with ExitStack() as stack:
            self.writers = {
                name: stack.enter_context(TextsWriter(folder, name, kept.get(name, (0, 0))))
                for name in names
            }
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stack.close()

    def advance(self, size: int, *place: Any) -> None:
        """Say that so many more bytes are divided, and where to go on; kept for each `PART`.

        Args:
            size: Bytes.
            place: JSON values.
        """
        self._held += size
        if self._held >= PART:
            self._held = 0
            kept = {name: writer.commit() for name, writer in self.writers.items()}
            write_json(self._journal, {"by": self._by, "place": place, "kept": kept})


def begun_by(folder: Path) -> str | None:
    """How the texts of a folder were being divided when a process was killed."""
    by: str | None = _read(folder).get("by")
    return by


def _read(folder: Path) -> dict[str, Any]:
    try:
        begun: dict[str, Any] = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return begun
