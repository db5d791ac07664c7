"""Data files by path or glob; what to say when there is none."""

import glob
from collections.abc import Iterable
from pathlib import Path

from truesweep.errors import DataError, did_you_mean, nearest

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def extension(path: str | Path) -> str:
    """The extension that tells a file's format, in lower case: `.txt` for `a.b.TXT.gz`."""
    path = Path(path)
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.lower()


def find(patterns: str | Iterable[str], key: str) -> list[Path]:
    """Files that paths and globs name, in the order named, a glob's in the order of their names.

    Args:
        patterns: One or several paths or globs; `~` is the home folder, `**` any depth.
        key: The configuration key they come from, for messages.

    Raises:
        DataError: Nothing is named, or a glob matches nothing.
    """
    return list(dict.fromkeys(path for name in listed(patterns, key) for path in _find(name, key)))


def listed(patterns: str | Iterable[str], key: str) -> list[str]:
    """One or several paths or globs as a list that is not empty."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise DataError(f"{key} is an empty list. Name at least one file.")
    return patterns


def matches(pattern: str) -> list[Path]:
    """Files that there are under a path or a glob; `[` in a real file's name is no glob."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207, absolute patterns too
    return [Path(name) for name in found if Path(name).is_file()]


def _find(pattern: str, key: str) -> list[Path]:
    found = matches(pattern)
    if not found and glob.has_magic(pattern):
        raise DataError(
            f"{key}={pattern}: no file matches, seen from {Path.cwd()}. Correct the pattern."
        )
    return found or [Path(pattern).expanduser()]


def nearest_first(name: str, names: Iterable[str]) -> list[str]:
    """`names`, those that look most like `name` first."""
    names = list(names)
    close = nearest(name, names, most=3)
    return close + [other for other in names if other not in close]


def instead(path: Path) -> str:
    """The rest of the sentence about a missing file: what there is in its place."""
    if not path.parent.is_dir():
        return f", nor does the folder {path.parent}. Paths are relative to {Path.cwd()}."
    hint = did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    return hint or f". Paths are relative to {Path.cwd()}."
