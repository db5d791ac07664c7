"""What was found of a model after its training, or of one that was trained elsewhere.

Each evaluation is a line of `evaluations.jsonl`: in the directory of its run, or in one of the
model's own below `outputs/evaluations`, beside a `model.json` that says which it is.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truesweep.errors import DataError, UserError
from truesweep.record.files import dump_json, sealed, timestamp, unsealed, write_json
from truesweep.record.frozen import fingerprint
from truesweep.record.provenance import packages
from truesweep.record.rows import read_objects

FILE, MODEL = "evaluations.jsonl", "model.json"
ROOT = Path("outputs/evaluations")
DEPTH = 3
"""Levels below a named folder that are looked through: the highest is the one above `outputs`."""


@dataclass(frozen=True)
class Evaluated:
    """A model that is no run's, by the directory of its evaluations."""

    path: Path

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> "Evaluated":
        """The directory of a model, new or not.

        Args:
            model: Which it is: `name_or_path`, and whatever else changes it.
        """
        name = str(model["name_or_path"])
        asked = {k: v for k, v in model.items() if k != "trust_remote_code" or v}  # a newer key
        kept = {**asked, "name_or_path": str(Path(name).resolve()) if Path(name).exists() else name}
        path = ROOT / f"{Path(kept['name_or_path']).name}-{fingerprint(kept)[:8]}"
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / MODEL, kept)
        return cls(path.absolute())

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """All there are, in their order."""
        return read(self.path)

    def record(self, what: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Keep one, see `record`."""
        record(self.path, what, figures)


def record(directory: Path, what: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Keep an evaluation.

    Args:
        directory: Of a run, or of a model.
        what: `split` and its `fingerprint`, or `tasks` and their `versions`; `checkpoint` and
            `overrides`.
        figures: What came out, standard errors included.
    """
    row = sealed({"time": timestamp(), "overrides": [], **what, "packages": packages(), **figures})
    with (directory / FILE).open("a", encoding="utf-8") as file:
        file.write(dump_json(row) + "\n")


def read(directory: Path) -> list[dict[str, Any]]:
    """The evaluations of a directory, in their order.

    Raises:
        DataError: One is not as it was written.
    """
    file = directory / FILE
    found: list[dict[str, Any]] = []
    for number, line in enumerate(read_objects(file) if file.exists() else (), start=1):
        row = unsealed(line)
        if row is None:
            raise DataError(f"{file}: is not what the run has written, in line {number}. Remove it")
        found.append(row)
    return found


def read_tolerantly(directory: Path) -> list[dict[str, Any]]:
    """The same, or none where the file is damaged."""
    try:
        return read(directory)
    except (OSError, ValueError, UserError):
        return []


def find(folders: Sequence[Path]) -> list[Evaluated]:
    """The models with a directory of their own in and below folders, each once."""
    paths = {path.resolve(): None for folder in folders for path in _walk(folder, DEPTH)}
    return [Evaluated(path) for path in paths]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / MODEL).is_file() and (folder / FILE).is_file():
        yield folder
    elif depth and folder.is_dir() and not (folder / "config.yaml").is_file():
        with os.scandir(folder) as entries:
            below = sorted(Path(e) for e in entries if e.is_dir() and not e.name.startswith("."))
        for path in below:
            yield from _walk(path, depth - 1)
