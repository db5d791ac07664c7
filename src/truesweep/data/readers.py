"""Data files: which there are, and their text, decompressed, decoded and cut into lines."""

import bz2
import codecs
import glob
import gzip
import io
import lzma
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from truesweep.data.cache import file_digest
from truesweep.data.texts import BLOCK
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


LONGEST_WINDOW = 2**31
"""Bytes that `zstd --long=31` refers back at most: its decoder refuses over 128 MiB unless told."""


_CONTINUED, _LONGEST_CHARACTER = bytes(range(0x80, 0xC0)), 4  # of UTF-8


class Document(Iterable[bytes]):
    """The text of a file as one, in blocks of UTF-8.

    Args:
        file: The file.
    """

    def __init__(self, file: "DataFile") -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        """All blocks."""
        return self.after(0)

    def after(self, size: int) -> Iterator[bytes]:
        """Those behind the first `size` bytes, without reading these, unless they are compressed.

        Raises:
            DataError: What is read is not valid UTF-8.
        """
        return self._file.utf8_blocks(size)


@dataclass(frozen=True)
class DataFile:
    """A data file, which is read in blocks whenever its content is needed.

    Attributes:
        path: Where it lies, as the user named it.
        sha256: Digest of the file as it lies on disk.
        size: Bytes on disk.
        notes: What was done to its samples that a user should know, and to how many of them; 0
            where that is the whole file.
    """

    path: Path
    sha256: str
    size: int
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path, full: bool = False) -> "DataFile":
        """Look at a file.

        Args:
            path: Where it lies.
            full: Read all of it even if it seems to be what it was when it was last read.

        Raises:
            DataError: It is missing, a folder, unreadable, empty, or cut off.
        """
        try:
            file = cls(path, file_digest(path, full), path.stat().st_size)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist{instead(path)}") from None
        except IsADirectoryError:
            raise DataError(
                f"{path} is a folder. Name its files, such as {path / '*.txt'}"
            ) from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        if not any(block.strip() for block in file.blocks()):
            raise DataError(f"{path} is empty. Give a file that holds samples.")
        return file

    @property
    def is_compressed(self) -> bool:
        """Whether what lies on disk is not yet its content."""
        return self.path.suffix.lower() in COMPRESSED

    @cached_property
    def data(self) -> bytes:
        """Its bytes, decompressed, without a byte order mark."""
        return b"".join(self.blocks())

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """The same a block at a time.

        Args:
            start: Bytes to leave out; of a compressed file they are read nevertheless.

        Raises:
            DataError: It is cut off or not what its extension says.
        """
        blocks = _decompressed(self.path)
        head = b""
        while len(head) < len(codecs.BOM_UTF8) and (block := next(blocks, b"")):
            head += block
        text = head.removeprefix(codecs.BOM_UTF8)
        if start and not self.is_compressed:
            yield from _plain(self.path, start + len(head) - len(text))
            return
        for block in chain((text,), blocks):
            yield block[start:]
            start = max(0, start - len(block))

    def utf8_blocks(self, start: int = 0) -> Iterator[bytes]:
        """The same, of a file that is text.

        Args:
            start: Bytes to leave out, which are known to be valid.

        Raises:
            DataError: It is not valid UTF-8.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        begun = min(start, _LONGEST_CHARACTER - 1)  # bytes of a character that goes on at `start`
        blocks, head = self.blocks(start - begun), b""
        while len(head) < begun:
            head += next(blocks)
        decoder.decode(head[:begun].lstrip(_CONTINUED))
        line, at = 1, 0
        for block in chain((head[begun:],), blocks, (None,)):
            open_end = len(decoder.getstate()[0])
            try:
                decoder.decode(block or b"", final=block is None)
            except UnicodeDecodeError as error:
                if start:
                    deque(self.utf8_blocks(), 0)  # fails there too, and knows the line
                raise self._invalid(error, line, at - open_end) from error
            if block is not None:
                line, at = line + block.count(b"\n"), at + len(block)
                yield block

    def text(self) -> str:
        """Its whole text, line ends as they are.

        Raises:
            DataError: It is not valid UTF-8.
        """
        return b"".join(self.utf8_blocks()).decode()

    def stream(self) -> Iterator[str]:
        r"""Its text in lines with their ends, `\n`, `\r\n` or `\r`, as `newline=""` has them.

        Raises:
            DataError: It is not valid UTF-8.
        """
        held: list[str] = []
        for block in codecs.iterdecode(self.utf8_blocks(), "utf-8"):
            held.append(block)
            if "\n" in block or "\r" in block:
                # What a `\r` ends may go on with a `\n`.
                *lines, last = io.StringIO("".join(held), newline="")
                yield from lines
                held = [last]
        yield from io.StringIO("".join(held), newline="")

    def lines(self) -> list[str]:
        """Its lines, as `split_lines` gives them."""
        return list(self.each_line())

    def each_line(self) -> Iterator[str]:
        """The same, one at a time."""
        at = 0
        for number, (raw, ends) in enumerate(_cut_lines(self.blocks()), 1):
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                raise self._invalid(error, number, at) from error
            at += len(raw) + 1
            if number == 1 and not ends:  # only then its lines may end by carriage returns
                yield from split_lines(line)
            else:
                yield line.removesuffix("\r")

    def numbered_lines(self) -> Iterator[tuple[int, str]]:
        """Its lines that are not blank, each with its number, counted from 1."""
        return ((n, line) for n, line in enumerate(self.each_line(), 1) if line.strip())

    def origin(self) -> dict[str, str | int]:
        """What provenance keeps of the file."""
        return {"path": str(self.path), "sha256": self.sha256, "bytes": self.size}

    def _invalid(self, error: UnicodeDecodeError, line: int, at: int) -> DataError:
        """What to say of bytes that begin at a line and a byte of the text."""
        data, start = error.object, error.start
        marked = at == 0 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        first = next(_decompressed(self.path))
        skipped = len(first) - len(first.removeprefix(codecs.BOM_UTF8))
        return DataError(
            f"{self.path}, line {line + data.count(10, 0, start)}: invalid UTF-8 at byte "
            f"{at + start + skipped} of the text (0x{data[start]:02x}). Convert the file: "
            f"iconv -f {'UTF-16' if marked else 'ITS_ENCODING'} -t UTF-8"
        )


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


def _cut_lines(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    r"""Lines without their `\n`, and whether one was there; none of no bytes."""
    held: list[bytes] = []
    for block in blocks:
        first, *rest = block.split(b"\n")
        held.append(first)
        if rest:
            yield b"".join(held), True
            yield from ((line, True) for line in rest[:-1])
            held = rest[-1:]
    if last := b"".join(held):
        yield last, False


def _decompressed(path: Path) -> Iterator[bytes]:
    suffix = path.suffix.lower()
    opened = _OPEN.get(suffix) if path.stat().st_size else None
    if opened is None:
        yield from _plain(path)
        return
    try:
        yield from opened(path)
    except (EOFError, OSError, ValueError, *_DAMAGED) as error:
        raise DataError(
            f"{path} is cut off or not a {suffix} file ({error}). Fetch or compress it again."
        ) from error


def _plain(path: Path, start: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        yield from iter(partial(file.read, BLOCK), b"")


def _blocks_of(module: Any, path: Path) -> Iterator[bytes]:
    with module.open(path, "rb") as file:
        yield from iter(partial(file.read, BLOCK), b"")


def _unzstd(path: Path) -> Iterator[bytes]:
    # `stream_reader` returns what it has when a frame is cut off, without a word.
    frame = None
    with path.open("rb") as file:
        while raw := file.read(BLOCK):
            while raw:
                if frame is None:
                    decompressor = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW)
                    frame = decompressor.decompressobj()
                if block := frame.decompress(raw):
                    yield block
                raw = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the last frame has no end")


_OPEN: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".gz": partial(_blocks_of, gzip),
    ".bz2": partial(_blocks_of, bz2),
    ".xz": partial(_blocks_of, lzma),
    ".zst": _unzstd,
}
_DAMAGED = zlib.error, lzma.LZMAError, zstandard.ZstdError
