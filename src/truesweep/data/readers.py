"""Data files as text: decompressed, decoded, cut into lines."""

import bz2
import codecs
import gzip
import hashlib
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import zstandard

from truesweep.data.paths import COMPRESSED, instead
from truesweep.errors import DataError

LONGEST_WINDOW = 2**31
"""Bytes that `zstd --long=31` refers back at most: its decoder refuses over 128 MiB unless told."""


@dataclass(frozen=True)
class DataFile:
    """A data file that has been read once, and what a run's provenance needs of it.

    Attributes:
        path: Where it lies, as the user named it.
        data: Its bytes, decompressed, without a byte order mark.
        skipped: Bytes of the byte order mark that `data` lacks.
        sha256: Digest of the file as it lies on disk.
        size: Bytes on disk.
        notes: What was done to its samples that a user should know, and to how many of them; 0
            where that is the whole file.
    """

    path: Path
    data: bytes
    skipped: int
    sha256: str
    size: int
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> "DataFile":
        """Read and decompress a file.

        Raises:
            DataError: It is missing, a folder, unreadable, empty, or cut off.
        """
        raw = _bytes(path)
        whole = _decompressed(path, raw)
        data = whole.removeprefix(codecs.BOM_UTF8)
        if not data.strip():
            raise DataError(f"{path} is empty. Give a file that holds samples.")
        digest = hashlib.sha256(raw).hexdigest()
        return cls(path, data, len(whole) - len(data), digest, len(raw))

    def text(self) -> str:
        """Its whole text, line ends as they are.

        Raises:
            DataError: It is not valid UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            marked = self.data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            raise DataError(
                f"{self.path}, line {line}: invalid UTF-8 at byte {error.start + self.skipped} of "
                f"the text (0x{self.data[error.start]:02x}). Convert the file: "
                f"iconv -f {'UTF-16' if marked else 'ITS_ENCODING'} -t UTF-8"
            ) from error

    def lines(self) -> list[str]:
        """Its lines, as `split_lines` gives them."""
        return split_lines(self.text())

    def numbered_lines(self) -> Iterator[tuple[int, str]]:
        """Its lines that are not blank, each with its number, counted from 1."""
        return ((n, line) for n, line in enumerate(self.lines(), 1) if line.strip())

    def origin(self) -> dict[str, str | int]:
        """What provenance keeps of the file."""
        return {"path": str(self.path), "sha256": self.sha256, "bytes": self.size}


def split_lines(text: str) -> list[str]:
    r"""The lines of a text without their ends: `\n` or `\r\n`, or `\r` where there is no `\n`.

    Nothing else ends a line, unlike in `str.splitlines`: a form feed, U+0085 and U+2028 are
    characters of texts as they are found.
    """
    end = "\n" if "\n" in text else "\r"
    lines = text.split(end)
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


def stream_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a stream as they come: what `DataFile.lines` gives of the same bytes.

    Args:
        stream: Of UTF-8 text.
        name: What to call it in messages.

    Raises:
        DataError: It is not valid UTF-8.
    """
    for number, line in enumerate(stream, 1):
        try:
            text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}, line {number}: invalid UTF-8 at its byte {error.start}."
            ) from None
        # Only a stream without any end of line by `\n` has lines that end by `\r`.
        yield from (
            split_lines(text) if number == 1 else [text.removesuffix("\n").removesuffix("\r")]
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist{instead(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder. Name its files, such as {path / '*.txt'}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _decompressed(path: Path, raw: bytes) -> bytes:
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED or not raw:
        return raw
    try:
        return _DECOMPRESS[suffix](raw)
    except (EOFError, OSError, ValueError, *_DAMAGED) as error:
        raise DataError(
            f"{path} is cut off or not a {suffix} file ({error}). Fetch or compress it again."
        ) from error


def _unzstd(raw: bytes) -> bytes:
    # `stream_reader` returns what it has when a frame is cut off, without a word.
    parts = []
    while raw:
        frame = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj()
        parts.append(frame.decompress(raw))
        if not frame.eof:
            raise EOFError("the last frame has no end")
        raw = frame.unused_data
    return b"".join(parts)


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _unzstd,
}
_DAMAGED = zlib.error, lzma.LZMAError, zstandard.ZstdError
