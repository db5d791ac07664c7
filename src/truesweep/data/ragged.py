"""Rows of tokens of different lengths, in two flat arrays that can stay on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Ragged:
    """Rows of tokens, one behind the other.

    Attributes:
        tokens: All tokens, int32 [sum of lengths + gap · rows].
        offsets: Where each row starts, and the end of the last, int64 [rows + 1].
        gap: Tokens behind each row that separate it from the next and belong to neither.
    """

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    gap: int = 0

    @classmethod
    def of(cls, rows: Iterable[npt.NDArray[np.int32]], separator: tuple[int, ...] = ()) -> "Ragged":
        """Gather rows, with `separator` behind each of them."""
        behind = np.array(separator, dtype=np.int32)
        arrays = [np.concatenate([row, behind]) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return cls(np.concatenate([behind[:0], *arrays]), offsets, len(separator))

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        """The tokens of one row, as a view."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1] - self.gap]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each row, int64 [rows]."""
        return np.diff(self.offsets) - self.gap

    @property
    def stream(self) -> npt.NDArray[np.int32]:
        """All rows as one, with the separators between them and none behind the last."""
        return self.tokens[: len(self.tokens) - self.gap] if len(self) else self.tokens

    def count(self, token: int | None) -> int:
        """How often a token occurs."""
        return 0 if token is None else int(np.count_nonzero(self.tokens == token))

    def save(self, folder: Path, name: str) -> None:
        """Write the arrays as `name.tokens.npy` and `name.offsets.npy`."""
        np.save(folder / f"{name}.tokens.npy", self.tokens)
        np.save(folder / f"{name}.offsets.npy", self.offsets)

    @classmethod
    def load(cls, folder: Path, name: str, gap: int = 0) -> "Ragged":
        """Map what `save` wrote into memory, without reading it."""
        tokens, offsets = (
            np.asarray(np.load(folder / f"{name}.{part}.npy", mmap_mode="r"))
            for part in ("tokens", "offsets")
        )
        return cls(tokens, offsets, gap)
