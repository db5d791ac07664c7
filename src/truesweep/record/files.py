"""Files that are always whole: after a kill at any moment there is the old one or the new one."""

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: str | Path, *, checksum: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write that takes the place of `path` when the block ends without an error.

    The file lies beside its target, so that the last step is one `os.replace` on one file system,
    and both it and the directory are synchronised: the promise holds for a power cut as well.

    Args:
        path: the target; its directory must exist.
        checksum: keep `path`'s checksum file in step, see `verify_checksum`.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        digest = _sha256(temporary) if checksum else ""
        if checksum:  # announced before the content appears, beside what still holds until then
            _write_digests(path, [digest, *_read_digests(path)])
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        if error.filename is None:  # a full disk does not say of which file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if checksum:
        _write_digests(path, [digest])


def reopen(path: str | Path, size: int) -> BinaryIO:
    """Open a file to write behind its first `size` bytes, which are zeros if it is new."""
    path = Path(path)
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any, *, checksum: bool = False) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all; see `dump_json`.

    A checksum that is there is kept in step, whether or not one is asked for.
    """
    with replacing(path, checksum=checksum or checksum_path(path).exists()) as file:
        file.write(f"{dump_json(value, indent=2)}\n".encode())


def dump_json(value: Any, indent: int | None = None) -> str:
    """Give `value` as strict JSON.

    JSON has no NaN and no infinities; they are written as the strings `"NaN"`, `"Infinity"` and
    `"-Infinity"`, as W&B does, which `float()` reads back. Tensors and NumPy numbers of one
    element become numbers, paths become strings.
    """
    return json.dumps(_strict(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    """`value` in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@contextmanager
def locked(
    path: str | Path, how: int = fcntl.LOCK_EX, wait: float | None = None, new: bool = True
) -> Iterator[int]:
    """Hold a lock on a file, made for it if there is none; it dies with its holders.

    Args:
        path: The file.
        how: `fcntl.LOCK_EX` or `LOCK_SH`.
        wait: How long others may hold it, seconds; None: as long as they do.
        new: Whether to make the file.

    Yields:
        The file's descriptor, whose lock `lock` can change.

    Raises:
        BlockingIOError: Others hold it.
        FileNotFoundError: There is no file, and none is to be made.
    """
    descriptor = _open_lock(path, os.O_CREAT if new else 0)
    try:
        lock(descriptor, how, wait)
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, how: int, wait: float | None) -> None:
    """Lock a file, or change its lock; see `locked`."""
    if wait is None:
        return fcntl.flock(descriptor, how)
    deadline = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _open_lock(path: str | Path, flags: int) -> int:
    try:  # for writing, as locks on NFS demand
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
    except OSError as error:  # somebody else's, who lets us read
        if flags or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def checksum_path(path: str | Path) -> Path:
    """Where the checksum of `path` stands, in the format of `sha256sum`: `NAME.sha256`."""
    return Path(f"{path}.sha256")


def write_checksum(path: str | Path) -> None:
    """Write the checksum of the file `path` beside it."""
    _write_digests(Path(path), [_sha256(Path(path))])


def verify_checksum(path: str | Path) -> bool:
    """Whether `path` exists and its content is one that its checksum file announces.

    While a file is being replaced its checksum file holds two lines, for the content that is coming
    and for the one that still stands, so a kill between the two writes leaves nothing unverifiable.
    """
    path = Path(path)
    return path.is_file() and _sha256(path) in _read_digests(path)


def checksum_of_start(path: Path, length: int = -1) -> str:
    """The checksum of the first bytes of a file, or of all."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(length)).hexdigest()


SEAL = "sha256"
"""The entry of a mapping that holds the checksum of all others.

It stands within, not beside, where a file is replaced while others read it: it is always in step.
"""


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping that goes to a JSON or YAML file, with its checksum as the last entry."""
    kept = {key: value for key, value in entries.items() if key != SEAL}
    return {**kept, SEAL: hashlib.sha256(dump_json(kept).encode()).hexdigest()}


def unsealed(entries: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was sealed; None if it is not that any more. One without a checksum is as it is."""
    kept = {key: value for key, value in entries.items() if key != SEAL}
    with suppress(ValueError):  # half of a surrogate pair
        if SEAL not in entries or sealed(kept)[SEAL] == entries[SEAL]:
            return kept
    return None


SUMS = "SHA256SUMS"
"""The file in a folder that holds the checksums of all others, in the format of `sha256sum`."""


def write_sums(folder: Path) -> None:
    """Write the checksums of a folder's files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    write_atomic(folder / SUMS, "".join(lines))


def timestamp() -> str:
    """The time as files have it: in UTC, to the millisecond."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def changed_since_summed(folder: Path) -> list[str]:
    """The files of a folder that are not as `write_sums` found them; none where it never did."""
    sums = folder / SUMS
    if not sums.exists():
        return []
    text = sums.read_text(encoding="utf-8", errors="replace")
    lines = [line.partition("  ") for line in text.splitlines()]
    if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest, _, _ in lines):
        return [SUMS]
    kept = {name: digest for digest, _, name in lines}
    files = ((name, folder / name) for name in kept)
    return [name for name, file in files if not file.is_file() or _sha256(file) != kept[name]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_digests(path: Path) -> list[str]:
    file = checksum_path(path)
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    return re.findall(r"(?m)^[0-9a-f]{64}(?= )", text)


def _write_digests(path: Path, digests: list[str]) -> None:
    write_atomic(checksum_path(path), "".join(f"{digest}  {path.name}\n" for digest in digests))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
