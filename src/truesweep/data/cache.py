"""Folders made once and used by many: written aside, renamed into place, checked when read."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from truesweep.errors import ConfigError
from truesweep.record.files import locked, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")

MANIFEST = "manifest.json"
_ATTEMPTS = 5
_WHOLE, _BLOCKS, _BLOCK = 1 << 24, 64, 1 << 16  # bytes, samples, bytes of a sample


def default_cache() -> Path:
    """The folder for what can be made again: `$TRUESWEEP_CACHE`, or the user's cache folder."""
    if named := os.environ.get("TRUESWEEP_CACHE"):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "truesweep"


def cached(
    root: Path,
    key: str,
    write: Callable[[Path], None],
    read: Callable[[Path], T],
    full: bool = False,
) -> T:
    """Read the entry `key`, writing it first if it is missing or damaged.

    Of several processes that ask for the same entry at once, one writes and the others wait for
    it. What `read` has mapped into memory stays valid even if a damaged entry is replaced.

    Args:
        root: Folder of the cache.
        key: Name of the entry, which follows from everything its content depends on.
        write: Fills a folder, which is empty unless a writer was killed: then this one goes on.
        read: Reads a folder that `write` has filled.
        full: Read all of an entry to see whether it is damaged, not samples of its larger files.

    Raises:
        ConfigError: The cache cannot be written.
    """
    entry = root / key
    for attempt in range(_ATTEMPTS):
        try:
            if _is_intact(entry, full):
                return read(entry)
        except (OSError, ValueError):
            # Perhaps another process replaced the entry between the check and the reading.
            if attempt == _ATTEMPTS - 1:
                raise
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _alone(root / f".{key}.lock"):
                if not _is_intact(entry, full):
                    _make(entry, write)
        except OSError as error:
            raise ConfigError(
                f"the cache of encoded data at {root} cannot be written ({error}); set "
                "TRUESWEEP_CACHE to a folder with room that can be written"
            ) from error
    raise ConfigError(f"the cache entry {entry} is damaged again and again; delete {root}")


def sampled_digest(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file up to 16 MiB, and of evenly spread samples of a larger one.

    With its size and the time of its last change it tells whether a file is still the same.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(b"%d:" % size)
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_BLOCKS):
                file.seek(i * (size - _BLOCK) // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def file_digest(path: Path, full: bool = False) -> str:
    """SHA-256 (hexadecimal) of a file of the user's.

    A large one that has the size, the time of its last change and the samples that it had when it
    was last read, by whomever, is not read again.

    Args:
        path: Where it lies.
        full: Read all of it nevertheless.
    """
    stat = path.stat()
    if stat.st_size <= _WHOLE:
        return full_digest(path)
    state = str(path.resolve()), stat.st_size, stat.st_mtime_ns, sampled_digest(path)
    known = default_cache() / "files" / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    if not full:
        with suppress(OSError, ValueError):
            return str(json.loads(known.read_text()))
    digest = full_digest(path)
    with suppress(OSError):  # what cannot be kept is read again
        known.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, digest)
    return digest


def full_digest(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock whose file is there only as long as it is held; say so if others hold it."""
    wait: float | None = 0.0
    while True:
        with ExitStack() as stack:
            try:
                descriptor = stack.enter_context(locked(lock, wait=wait))
            except BlockingIOError:
                log.warning("another process prepares the same data; waiting for it")
                wait = None
                continue
            if _is_at(descriptor, lock):
                stack.callback(lock.unlink)
                yield
                return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still at its path, from where its last holder has removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _make(entry: Path, write: Callable[[Path], None]) -> None:
    part = entry.with_name(f".{entry.name}.part")
    part.mkdir(exist_ok=True)
    try:
        write(part)
        write_json(part / MANIFEST, _described(part))
        if entry.exists():
            entry.rename(damaged := entry.with_name(f".{entry.name}.damaged"))
            shutil.rmtree(damaged, ignore_errors=True)
        part.rename(entry)
    except Exception:  # a signal is none: what is there by then serves the next writer
        shutil.rmtree(part, ignore_errors=True)
        raise


def _is_intact(entry: Path, full: bool) -> bool:
    """Whether an entry holds exactly the files that were written, as far as they are looked at."""
    try:
        expected = json.loads((entry / MANIFEST).read_text())
        found = {name: sampled_digest(path) for name, path in _files(entry).items()}
        return {name: file["sampled"] for name, file in expected.items()} == found and not (
            full and any(file["full"] != full_digest(entry / n) for n, file in expected.items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _described(folder: Path) -> dict[str, Any]:
    return {
        name: {"sampled": sampled_digest(path), "full": full_digest(path)}
        for name, path in _files(folder).items()
    }


def _files(folder: Path) -> dict[str, Path]:
    """All files of an entry, by what they are called in it."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
