"""Rows of tokens of different lengths, in two flat arrays that can stay on disk."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from truesweep.record.files import reopen, write_json

Tokens = npt.NDArray[np.int32 | np.uint16]

_AT_ONCE = 1 << 22  # tokens that are counted at once


@dataclass(frozen=True)
class Ragged:
    """Rows of tokens, one behind the other.

    Attributes:
        tokens: All tokens, int32 or uint16 [sum of lengths + gap · rows].
        offsets: Where each row starts, and the end of the last, int64 [rows + 1].
        gap: Tokens behind each row that separate it from the next and belong to neither.
        counted: How often each token occurs, if that is known; see `counts`.
    """

    tokens: Tokens
    offsets: npt.NDArray[np.int64]
    gap: int = 0
    counted: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tokens:
        """The tokens of one row, as a view."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1] - self.gap]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each row, int64 [rows]."""
        return np.diff(self.offsets) - self.gap

    @property
    def size(self) -> int:
        """Tokens in all rows."""
        return len(self.tokens) - self.gap * len(self)

    @property
    def stream(self) -> Tokens:
        """All rows as one, with the separators between them and none behind the last."""
        return self.tokens[: len(self.tokens) - self.gap] if len(self) else self.tokens

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """How often each token occurs, separators too, int64 [largest token + 1]."""
        if self.counted is not None:
            return self.counted
        starts = range(0, len(self.tokens), _AT_ONCE)
        return count_tokens(self.tokens[start : start + _AT_ONCE] for start in starts)

    def count(self, token: int | None) -> int:
        """How often a token occurs."""
        return int(self.counts[token]) if token is not None and token < len(self.counts) else 0

    @classmethod
    def load(cls, folder: Path, name: str) -> "Ragged":
        """Map what a `RaggedWriter` has written into memory, without reading it."""
        index = json.loads((folder / f"{name}.json").read_text())
        return cls(
            _mapped(folder / f"{name}.tokens.bin", index["type"]),
            _mapped(folder / f"{name}.offsets.bin", "int64"),
            len(index["separator"]),
            np.load(folder / f"{name}.counts.npy"),
        )


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several, one behind the other; copied unless there is but one."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    starts = [part.offsets[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    tokens = np.concatenate([part.tokens for part in parts])
    return Ragged(tokens, np.concatenate([*starts, ends[-1:]]), parts[0].gap)


@dataclass(frozen=True)
class EvenLengths:
    """The lengths of rows of one width but for the last, as an array would tell them.

    Attributes:
        total: Tokens in all rows.
        width: Tokens in a row.
    """

    total: int
    width: int

    def __len__(self) -> int:
        """Rows."""
        return -(-self.total // self.width)

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Tokens in each of some rows."""
        return np.minimum(self.total - np.asarray(rows, dtype=np.int64) * self.width, self.width)

    def max(self) -> int:
        """Tokens in the longest row; 0 without rows."""
        return min(self.total, self.width)

    def sum(self) -> int:
        """Tokens in all rows."""
        return self.total

    def any(self) -> bool:
        """Whether there is a token."""
        return self.total > 0


@dataclass(frozen=True)
class JoinedLengths:
    """The lengths of several such sequences of rows, one behind the other.

    Attributes:
        parts: Those of each.
    """

    parts: Sequence[EvenLengths]

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """Rows."""
        return int(self._ends[-1])

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Tokens in each of some rows."""
        places = np.asarray(rows, dtype=np.int64)
        of = np.searchsorted(self._ends, places, side="right")
        starts = np.concatenate([[0], self._ends])
        lengths = np.zeros_like(places)
        for number, part in enumerate(self.parts):
            lengths = np.where(of == number, part[places - starts[number]], lengths)
        return lengths

    def max(self) -> int:
        """Tokens in the longest row; 0 without rows."""
        return max(part.max() for part in self.parts)

    def sum(self) -> int:
        """Tokens in all rows."""
        return sum(part.sum() for part in self.parts)

    def any(self) -> bool:
        """Whether there is a token."""
        return self.sum() > 0


Lengths = npt.NDArray[np.int64] | EvenLengths | JoinedLengths


def joined_lengths(parts: Sequence[Lengths]) -> Lengths:
    """The lengths of rows that stand one behind the other."""
    even = [part for part in parts if isinstance(part, EvenLengths)]
    if len(even) == len(parts):
        return JoinedLengths(even)
    return np.concatenate([part[np.arange(len(part))] for part in parts])


class RaggedWriter:
    """Rows of tokens on their way to a file.

    What `commit` has been called for outlives the process: another writer goes on behind it.

    Args:
        folder: Where the files are, `NAME.json`, `NAME.tokens.bin` and others.
        name: Their name.
        vocabulary: How many tokens there are, which decides their type on disk.
        separator: Tokens behind each row.

    Attributes:
        parts: How often `commit` has been called.
        done: Whether all rows are there.
    """

    def __init__(
        self, folder: Path, name: str, vocabulary: int, separator: tuple[int, ...] = ()
    ) -> None:
        self._index = folder / f"{name}.json"
        self._counts = folder / f"{name}.counts.npy"
        kind = "uint16" if vocabulary <= 1 << 16 else "int32"
        self._behind = np.array(separator, dtype=kind)
        begun = json.loads(self._index.read_text()) if self._index.exists() else {}
        self.parts: int = begun.get("parts", 0)
        self.done: bool = begun.get("done", False)
        self._rows: int = begun.get("rows", 0)  # that have ended
        self._size: int = begun.get("tokens", 0)
        self._tokens = reopen(folder / f"{name}.tokens.bin", self._size * self._behind.itemsize)
        self._offsets = reopen(folder / f"{name}.offsets.bin", (self._rows + 1) * 8)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files, whatever they hold by then."""
        self._tokens.close()
        self._offsets.close()

    def add(self, row: int, tokens: Tokens) -> None:
        """Add tokens to the end of a row: the last one, or the next."""
        while self._rows < row:
            self._end_row()
        self._write(tokens)

    def commit(self) -> None:
        """Have what was added so far outlive this process."""
        for file in (self._tokens, self._offsets):
            file.flush()
            os.fsync(file.fileno())
        self.parts += 1
        self._describe()

    def finish(self, rows: int) -> None:
        """End the last row.

        Args:
            rows: How many there are.
        """
        while self._rows < rows:
            self._end_row()
        self._tokens.flush()
        np.save(self._counts, count_tokens(self._written()))
        self.done = True
        self._describe()

    def _written(self) -> Iterator[Tokens]:
        """All tokens in parts. They are read, not mapped: what is mapped counts as memory."""
        with Path(self._tokens.name).open("rb") as file:
            while len(part := np.fromfile(file, self._behind.dtype, _AT_ONCE)):
                yield part

    def _write(self, tokens: Tokens) -> None:
        self._tokens.write(tokens.astype(self._behind.dtype, copy=False).tobytes())
        self._size += len(tokens)

    def _end_row(self) -> None:
        self._write(self._behind)
        self._rows += 1
        self._offsets.write(np.int64(self._size).tobytes())

    def _describe(self) -> None:
        state = {"type": self._behind.dtype.name, "separator": self._behind.tolist()}
        state |= {"rows": self._rows, "tokens": self._size}
        write_json(self._index, {**state, "parts": self.parts, "done": self.done})


def count_tokens(parts: Iterable[Tokens]) -> npt.NDArray[np.int64]:
    """How often each token occurs in all parts, int64 [largest + 1]."""
    counts = np.zeros(0, dtype=np.int64)
    for part in parts:
        found = np.bincount(part, minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def _mapped(path: Path, kind: str) -> npt.NDArray[Any]:
    """A file as an array, which is read as it is needed."""
    if not path.stat().st_size:  # nothing can be mapped
        return np.zeros(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))
