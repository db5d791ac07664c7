"""Texts one behind the other in a file, so that none of them has to be in memory whole."""

import codecs
import os
import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np

from truesweep.record.files import reopen

BLOCK = 1 << 20
"""Bytes of a text that are read at once."""
PIECE = 1 << 15
"""Characters of a piece of a long text: what one core is given."""

LONGEST = 1 << 20
"""Characters of a text that has no place to be cut, from which on it is cut anywhere."""

Seam = re.Pattern[str]
"""Places where a text may be cut; each is known by two characters behind it at most."""
WHITE = r"[ \t\r\n]"
"""What Python and the tokenizers' Rust both take for white space."""
BEFORE_WHITE = re.compile(rf"(?<=\S)(?={WHITE})")
"""No pre-tokenizer of ours joins anything across such a place, nor looks at what is before it."""


class Texts(Sequence[str]):
    """Texts that a `TextsWriter` has written, each read when it is asked for.

    Args:
        folder: Where the files are, `NAME.txt` and `NAME.offsets.bin`.
        name: Their name.
        start: The first of those that are meant.
        end: The one behind the last; None: all that are left.
    """

    def __init__(self, folder: Path, name: str, start: int = 0, end: int | None = None) -> None:
        offsets = np.fromfile(folder / f"{name}.offsets.bin", dtype=np.int64)
        self.offsets = offsets[start : None if end is None else end + 1]
        self._file = os.open(folder / f"{name}.txt", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        """Texts."""
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """A text, whole; or some of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return str(self._stored(range(len(self))[index]))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same texts."""
        same = isinstance(other, Sequence) and len(other) == len(self)
        return same and all(a == b for a, b in zip(self, cast(Sequence[Any], other), strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """UTF-8 bytes of all texts."""
        return int(self.offsets[-1] - self.offsets[0])

    def piece(self, index: int, place: float, size: int) -> str:
        """See `StoredText.piece`, of a text that is not read whole for it."""
        return self._stored(index).piece(place, size)

    def stored(self) -> "Iterator[StoredText]":
        """All texts in order, to be read in blocks."""
        return map(self._stored, range(len(self)))

    def parts(self, start: int = 0) -> "Iterator[Text]":
        """All texts in order, or those from one of them on; long ones to be read in blocks."""
        while start < len(self):
            end = int(np.searchsorted(self.offsets, self.offsets[start] + BLOCK, side="right")) - 1
            if end <= start:
                yield self._stored(start)
            else:
                data = self.read(int(self.offsets[start]), int(self.offsets[end]))
                places = (self.offsets[start : end + 1] - self.offsets[start]).tolist()
                yield from (data[i:j].decode() for i, j in pairwise(places))
            start = max(end, start + 1)

    def read(self, start: int, end: int) -> bytes:
        """Some of the bytes of all texts."""
        parts = []
        while start < end:  # at most 2 GiB come at once
            parts.append(os.pread(self._file, end - start, start))
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def update(self, digest: Any) -> None:
        """Give a hash what tells these texts from all others, as `samples.hash_splits` does."""
        digest.update(b"%d\n" % len(self))
        for text in self.parts():
            if isinstance(text, str):
                data = text.encode()
                digest.update(b"%d:" % len(data) + data)
            else:
                digest.update(b"%d:" % (text.end - text.start))
                for block in text.byte_blocks():
                    digest.update(block)

    def _stored(self, index: int) -> "StoredText":
        return StoredText(self, int(self.offsets[index]), int(self.offsets[index + 1]))


@dataclass(frozen=True)
class StoredText:
    """A text that is read in blocks.

    Attributes:
        texts: Those that it is one of.
        start: Where its bytes begin among all of theirs.
        end: Where they end.
    """

    texts: Texts
    start: int
    end: int

    def __len__(self) -> int:
        """Its UTF-8 bytes."""
        return self.end - self.start

    def __str__(self) -> str:
        """All of it."""
        return self.texts.read(self.start, self.end).decode()

    def piece(self, place: float, size: int) -> str:
        """At most so many of its bytes, from a place between 0, its beginning, and 1, its end."""
        start = self.start + int(place * len(self))
        return self.texts.read(start, min(start + size, self.end)).decode(errors="ignore")

    def byte_blocks(self) -> Iterator[bytes]:
        """Its bytes, `BLOCK` at once."""
        for start in range(self.start, self.end, BLOCK):
            yield self.texts.read(start, min(start + BLOCK, self.end))

    def blocks(self) -> Iterator[str]:
        """Its characters, of about `BLOCK` bytes at once."""
        return codecs.iterdecode(self.byte_blocks(), "utf-8")


Text = str | StoredText


def blocks(text: Text, size: int) -> Iterator[str]:
    """The characters of a text, at most `size` of them at once."""
    for block in (text,) if isinstance(text, str) else text.blocks():
        for start in range(0, len(block), size):
            yield block[start : start + size]


def beginning(text: Text, size: int) -> str:
    """The first characters of a text."""
    found = ""
    for block in blocks(text, size):
        found += block
        if len(found) >= size:
            break
    return found[:size]


def pieces(text: Text, seam: Seam = BEFORE_WHITE, longest: int = LONGEST) -> Iterator[str]:
    """Cut a text longer than `PIECE` into pieces of about as many characters.

    Args:
        text: The text.
        seam: Where it may be cut.
        longest: Characters without such a place, from which on it is cut anywhere.
    """
    held, seen = "", 0
    for block in blocks(text, PIECE):
        cut = _last(seam, held, seen)
        if not cut and len(held) >= longest:
            cut = len(held)
        if cut:
            yield held[:cut]
        seen = 0 if cut else max(0, len(held) - 2)
        held = held[cut:] + block
    yield held


def _last(seam: Seam, text: str, first: int, near: int = 256) -> int:
    """The last place where a text may be cut, if one is not before the first; 0: there is none."""
    for start in dict.fromkeys((max(first, len(text) - near), first)):
        if found := [match.start() for match in seam.finditer(text, start)]:
            return found[-1]
    return 0


def batches(owned: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    """Pieces, each with its owner, of together at least `size` characters but for the last ones."""
    batch: list[tuple[int, str]] = []
    held = 0
    for owner, piece in owned:
        batch.append((owner, piece))
        held += len(piece)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class TextsWriter:
    """Texts on their way to a file.

    Args:
        folder: Where the files shall be, `NAME.txt` and `NAME.offsets.bin`.
        name: Their name.
        kept: What `commit` of another writer gave; by default nothing is there yet.
    """

    def __init__(self, folder: Path, name: str, kept: tuple[int, int] = (0, 0)) -> None:
        self._size, self._ended = kept
        self._file = reopen(folder / f"{name}.txt", self._size)
        self._offsets = reopen(folder / f"{name}.offsets.bin", (self._ended + 1) * 8)
        self._offsets.seek(-8, os.SEEK_END)
        self._start = int(np.frombuffer(self._offsets.read(8), np.int64)[0])

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._file.close()
        self._offsets.close()

    @property
    def place(self) -> tuple[int, int]:
        """How many texts have ended, and how many bytes there are of the next."""
        return self._ended, self._size - self._start

    def add(self, blocks: Iterable[bytes]) -> None:
        """Add a text, which comes in blocks of UTF-8."""
        for block in blocks:
            self.write(block)
        self.end()

    def write(self, block: bytes) -> None:
        """Add to the last text."""
        self._file.write(block)
        self._size += len(block)

    def end(self) -> None:
        """End the last text."""
        self._offsets.write(np.int64(self._size).tobytes())
        self._ended += 1
        self._start = self._size

    def commit(self) -> tuple[int, int]:
        """Have what was added so far outlive this process: so many bytes, and texts that ended."""
        for file in (self._file, self._offsets):
            file.flush()
            os.fsync(file.fileno())
        return self._size, self._ended
