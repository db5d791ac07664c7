"""Labelled texts for classifiers.

A batch holds, besides the keys of every batch, `labels` [B]: class ids, -100 in a row that only
fills up.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from truesweep.data.batch import Batch, mask
from truesweep.data.datasets import EncodedDataset
from truesweep.data.frames import Frame
from truesweep.data.ragged import Ragged


class ClassifierDataset(EncodedDataset):
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
        self.texts = texts
        self.labels = labels
        self.frame = frame
        self.max_length = max_length
        self.pad_id = pad_id
        whole = texts.lengths + len(frame)
        self.lengths = np.minimum(whole, max_length)
        self.longest = int(whole.max(initial=0))
        self.truncated = int(np.count_nonzero(whole > max_length))
        self.cut = int((whole - self.lengths).sum())
        self.tokens_per_target = int(self.lengths.sum()) / max(1, len(self))

    def collate(self, indices: Sequence[int]) -> Batch:
        """Texts below each other, [B, longest of them]."""
        rows, lengths = self.frame.table(self.texts, indices, self.max_length, self.pad_id)
        return {
            "index": list(indices),
            "input_ids": torch.from_numpy(rows),
            "attention_mask": mask(lengths, rows.shape[1]),
            "labels": torch.from_numpy(self.labels[np.asarray(indices)]),
            "lengths": lengths.tolist(),
        }
