"""Folders made once and used by many: written aside, renamed into place, checked when read."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from truesweep.errors import ConfigError

T = TypeVar("T")

MANIFEST = "manifest.json"
_ATTEMPTS = 5


def default_cache() -> Path:
    """The folder for what can be made again: `$TRUESWEEP_CACHE`, or the user's cache folder."""
    if named := os.environ.get("TRUESWEEP_CACHE"):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "truesweep"


def cached(root: Path, key: str, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Read the entry `key`, writing it first if it is missing or damaged.

    Several processes may ask for the same entry at once: each writes a folder of its own, one
    rename wins, and all read what won. What `read` has mapped into memory stays valid even if a
    damaged entry is replaced.

    Args:
        root: Folder of the cache.
        key: Name of the entry, which follows from everything its content depends on.
        write: Fills an empty folder.
        read: Reads a folder that `write` has filled.

    Raises:
        ConfigError: The cache cannot be written.
    """
    entry = root / key
    for attempt in range(_ATTEMPTS):
        try:
            if _is_intact(entry):
                return read(entry)
        except (OSError, ValueError):
            # Perhaps another process replaced the entry between the check and the reading.
            if attempt == _ATTEMPTS - 1:
                raise
        try:
            _make(entry, write)
        except OSError as error:
            raise ConfigError(
                f"the cache of encoded data at {root} cannot be written ({error}); set "
                "TRUESWEEP_CACHE to a folder with room that can be written"
            ) from error
    raise ConfigError(f"the cache entry {entry} is damaged again and again; delete {root}")


def _make(entry: Path, write: Callable[[Path], None]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{entry.name}.", dir=entry.parent, ignore_cleanup_errors=True
    ) as aside:
        fresh = Path(aside, "new")
        fresh.mkdir()
        write(fresh)
        (fresh / MANIFEST).write_text(json.dumps(_digests(fresh)))
        if entry.exists() and not _is_intact(entry):
            _move(entry, Path(aside, "damaged"))
        _move(fresh, entry)


def _move(folder: Path, target: Path) -> None:
    """Rename a folder, unless another process was first."""
    try:
        folder.rename(target)
    except OSError:
        if folder.exists() and not target.exists():
            raise


def _is_intact(entry: Path) -> bool:
    """Whether an entry holds exactly the files that were written, byte for byte."""
    try:
        expected = json.loads((entry / MANIFEST).read_text())
        return bool(expected == _digests(entry))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): _digest(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
