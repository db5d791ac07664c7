"""What an evaluation found for each sample of a split."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

Arrays = dict[str, npt.NDArray[Any]]


class SampleScores:
    """Collects values by sample, and brings those of all ranks into the order of the split.

    Two models scored on the same samples can then be compared sample by sample, and every figure
    has a standard error.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[list[int], Tensor]]] = defaultdict(list)

    def reset(self) -> None:
        """Forget the last evaluation."""
        self._parts.clear()

    def add(self, index: Sequence[int], **values: Tensor) -> None:
        """Keep values of a batch.

        Args:
            index: The samples' places in the split; none in a batch that only fills up.
            **values: A row for each sample, and maybe more for rows that only fill up.
        """
        for name, rows in values.items():
            self._parts[name].append((list(index), rows[: len(index)].detach()))

    def gather(self) -> Arrays:
        """The values of all ranks by name, in the order of the samples; all ranks call it."""
        own = {
            name: (
                [place for index, _ in parts for place in index],
                torch.cat([rows for _, rows in parts]).cpu().numpy(),
            )
            for name, parts in self._parts.items()
        }
        shares: list[Any] = [own]
        if dist.is_available() and dist.is_initialized():
            shares = [None] * dist.get_world_size()
            dist.all_gather_object(shares, own)
        return {name: _ordered([s[name] for s in shares if name in s]) for name in _names(shares)}


def _names(shares: Sequence[Arrays]) -> list[str]:
    return sorted({name for share in shares for name in share})


def _ordered(parts: Sequence[tuple[list[int], npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    places = np.concatenate([np.asarray(index, np.int64) for index, _ in parts])
    rows = np.concatenate([rows for _, rows in parts])
    ordered: npt.NDArray[Any] = rows[np.argsort(places)]
    return ordered
