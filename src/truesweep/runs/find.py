"""The runs that a folder holds: a run's own, a sweep's, or any folder above them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truesweep.errors import ConfigError, DataError
from truesweep.record.frozen import read_yaml, thaw
from truesweep.runs.run import Run

DEPTH = 4
"""Levels below a named folder that are looked through: `outputs/sweeps/NAME/ID` is the deepest."""


@dataclass(frozen=True)
class Found:
    """What the named folders hold.

    Args:
        runs: Each run once, in the order of the folders, then of their names.
        sweep: The sweep's folder, if one sweep was named and nothing else.
        asked: Its `sweep.yaml`; empty without one.
    """

    runs: list[Run]
    sweep: Path | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The `sweeps` node that the sweep was started with."""
        settings = self.asked.get("sweeps")
        return settings if isinstance(settings, dict) else {}


def find(folders: Sequence[Path]) -> Found:
    """The runs in and below folders.

    Raises:
        ConfigError: A folder does not exist or holds no run; an unreadable `sweep.yaml`.
    """
    runs = {run.resolve(): None for folder in folders for run in _runs_below(folder)}
    sweep = folders[0].absolute() if len(folders) == 1 and _is_sweep(folders[0]) else None
    asked = thaw(sweep / "sweep.yaml") if sweep and (sweep / "sweep.yaml").is_file() else {}
    return Found([Run(path) for path in runs], sweep, asked)


def _runs_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "is no directory" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder} {what}: name a run's or a sweep's directory")
    runs = sorted(_walk(folder.absolute(), DEPTH))
    if not runs and not (folder / "sweep.yaml").is_file():
        raise ConfigError(
            f"{folder} holds no run (no config.yaml in it or below it): name a run's directory, "
            "such as outputs/NAME/ID, a sweep's, such as outputs/sweeps/NAME, or one above them"
        )
    return runs


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if Run.is_at(folder):
        yield folder
    elif depth:
        with os.scandir(folder) as entries:
            below = [Path(e) for e in entries if e.is_dir() and not e.name.startswith(".")]
        for path in below:
            yield from _walk(path, depth - 1)


def _is_sweep(folder: Path) -> bool:
    if (folder / "sweep.yaml").is_file():
        return True
    return any(folder.glob("*/job.json"))


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that may be missing or damaged: then it is empty."""
    try:
        loaded = read_yaml(path)
    except (OSError, DataError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
