"""Data files as text: decompressed, decoded, cut into lines."""

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from truesweep.data.paths import COMPRESSED, instead
from truesweep.errors import DataError


@dataclass(frozen=True)
class DataFile:
    """A data file that has been read once, and what a run's provenance needs of it.

    Attributes:
        path: Where it lies, as the user named it.
        data: Its bytes, decompressed, without a byte order mark.
        skipped: Bytes of the byte order mark that `data` lacks.
        sha256: Digest of the file as it lies on disk.
        size: Bytes on disk.
    """

    path: Path
    data: bytes
    skipped: int
    sha256: str
    size: int

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
            raise DataError(
                f"{self.path}, line {line}: invalid UTF-8 at byte {error.start + self.skipped} of "
                f"the text (0x{self.data[error.start]:02x}). Convert the file: "
                "iconv -f ITS_ENCODING -t UTF-8"
            ) from error

    def lines(self) -> list[str]:
        r"""Its lines without their ends, which are `\n` or `\r\n` and nothing else."""
        lines = self.text().split("\n")
        if not lines[-1]:
            del lines[-1]
        return [line.removesuffix("\r") for line in lines]

    def numbered_lines(self) -> Iterator[tuple[int, str]]:
        """Its lines that are not blank, each with its number, counted from 1."""
        return ((n, line) for n, line in enumerate(self.lines(), 1) if line.strip())

    def origin(self) -> dict[str, str | int]:
        """What provenance keeps of the file."""
        return {"path": str(self.path), "sha256": self.sha256, "bytes": self.size}


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
        return gzip.decompress(raw) if suffix == ".gz" else _unzstd(raw)
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"{path} is cut off or not a {suffix} file ({error}). Fetch or compress it again."
        ) from error


def _unzstd(raw: bytes) -> bytes:
    # `stream_reader` returns what it has when a frame is cut off, without a word.
    parts = []
    while raw:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(raw))
        if not frame.eof:
            raise EOFError("the last frame has no end")
        raw = frame.unused_data
    return b"".join(parts)
