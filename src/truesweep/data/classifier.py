"""Labelled texts for classifiers.

A batch holds, besides the keys of every batch, `labels` [B]: class ids, -100 in a row that only
fills up.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from truesweep.data.batch import Batch
from truesweep.data.datasets import FramedDataset
from truesweep.data.frames import Frame
from truesweep.data.ragged import Ragged


class ClassifierDataset(FramedDataset):
    """Texts with their classes, framed and cut after `max_length` tokens.

    Args:
        texts: The tokens of the texts, without special tokens.
        labels: The class of each, int64 [N].
        frame: Special tokens around a text.
        max_length: Tokens in a row at most, with the special ones.
        pad_id: The pad token.
    """

    def __init__(
        self,
        texts: Ragged,
        labels: npt.NDArray[np.int64],
        frame: Frame,
        max_length: int,
        pad_id: int,
    ) -> None:
        super().__init__(texts, frame, max_length, pad_id)
        self.labels = labels
        self.tokens_per_target = int(self.lengths.sum()) / max(1, len(self))

    def collate(self, indices: Sequence[int]) -> Batch:
        """Texts below each other, [B, longest of them]."""
        return {**self.rows(indices), "labels": torch.from_numpy(self.labels[np.asarray(indices)])}
