"""What all datasets have in common: samples of one split, encoded and in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from truesweep.data.batch import Batch, Step, filler, interleave, mask
from truesweep.data.frames import Frame
from truesweep.data.ragged import Lengths, Ragged, joined_lengths
from truesweep.data.samples import Chat, Pair
from truesweep.metrics.likelihood import IGNORED

Members = slice | npt.NDArray[np.int64]
"""Which samples of a split are meant, as an index of arrays with an entry for each of them."""


class EncodedDataset(Dataset[Batch], ABC):
    """Samples of one split; an item is a whole batch.

    Attributes:
        pad_id: The pad token.
        lengths: Tokens of each sample that a model gets to see (of a pair, those of the longer
            side), [N]: what samples are sorted by.
        longest: Tokens of the longest sample, before it was truncated.
        truncated: Samples that lost tokens at the end to `max_length`.
        cut: Tokens that they lost.
        padded: Whether samples differ in length, so that it pays to sort them.
        without_target: Samples of which no target is left, since they were truncated.
        tokens_per_target: Tokens that a model reads for each target.
        pairs: Inputs and answers as text, which generated texts are compared with; none where no
            text is generated.
        by_source: Of a mixture, which samples are of each source.
    """

    pad_id: int
    lengths: Lengths
    longest: int
    truncated: int
    cut: int
    without_target: int = 0
    padded: bool = True
    tokens_per_target: float = 1.0
    pairs: Sequence[Pair | Chat] = ()
    by_source: Mapping[str, Members] = {}

    @cached_property
    def width(self) -> int:
        """Tokens of the longest sample that a model gets to see; at least 1."""
        return max(1, int(self.lengths.max()))

    @property
    def scored(self) -> "EncodedDataset":
        """The samples as an evaluation takes them: each on its own, if its figures are."""
        return self

    def places(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which samples of `scored` stand in some rows."""
        return rows

    def __len__(self) -> int:
        """Samples: what batches are counted in."""
        return len(self.lengths)

    def __getitem__(self, step: Step) -> Batch:
        """The batch of a step; a filler if it gives this rank no sample."""
        batch = self.collate(step.indices) if step.indices else filler(self.collate([0]))
        return {**batch, "size": step.size}

    @abstractmethod
    def collate(self, indices: Sequence[int]) -> Batch:
        """Put samples into one batch, without its `size`."""

    def target_counts(self, classes: int) -> npt.NDArray[np.int64]:
        """How often each token or class is a target in one pass, int64 [classes]."""
        counts = np.zeros(classes, dtype=np.int64)
        for start in range(0, len(self), 1024):
            chunk = range(start, min(start + 1024, len(self)))
            labels = self.collate(chunk)["labels"].numpy()
            counts += np.bincount(labels[labels != IGNORED], minlength=classes)
        return counts


class FramedDataset(EncodedDataset):
    """Texts, each on its own, framed and cut after `max_length` tokens.

    Args:
        texts: The tokens of the texts, without special tokens.
        frame: Special tokens around a text.
        max_length: Tokens in a row at most, with the special ones.
        pad_id: The pad token.
    """

    def __init__(self, texts: Ragged, frame: Frame, max_length: int, pad_id: int) -> None:
        self.texts = texts
        self.frame = frame
        self.max_length = max_length
        self.pad_id = pad_id
        whole = texts.lengths + len(frame)
        self.lengths = np.minimum(whole, max_length)
        self.longest = int(whole.max(initial=0))
        self.truncated = int(np.count_nonzero(whole > max_length))
        self.cut = int((whole - self.lengths).sum())

    def rows(self, indices: Sequence[int]) -> Batch:
        """Texts below each other, [B, longest of them]; without labels."""
        rows, lengths = self.frame.table(self.texts, indices, self.max_length, self.pad_id)
        return {
            "index": list(indices),
            "input_ids": torch.from_numpy(rows),
            "attention_mask": mask(lengths, rows.shape[1]),
            "lengths": lengths.tolist(),
        }


class ClassifierDataset(FramedDataset):
    """Texts with their classes, framed and cut after `max_length` tokens.

    A batch holds, besides the keys of every batch, `labels` [B]: class ids, -100 in a row that only
    fills up.

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


class Subset(EncodedDataset):
    """Some samples of a dataset, in the order given.

    Args:
        dataset: The whole.
        indices: The samples of it that stay.
    """

    def __init__(self, dataset: EncodedDataset, indices: npt.NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.indices = indices
        self.lengths = dataset.lengths[indices]
        self.longest = dataset.longest
        self.truncated, self.cut = dataset.truncated, dataset.cut
        self.padded = dataset.padded
        self.tokens_per_target = dataset.tokens_per_target
        self.by_source = {
            name: np.flatnonzero(np.isin(indices, np.arange(len(dataset))[members]))
            for name, members in dataset.by_source.items()
        }

    @property
    def scored(self) -> EncodedDataset:
        """Those of the samples that stand in these rows."""
        scored = self.dataset.scored
        if scored is self.dataset:
            return self
        return Subset(scored, self.dataset.places(self.indices))

    def collate(self, indices: Sequence[int]) -> Batch:
        """Put samples into one batch, as the whole dataset does, but for their places."""
        batch = self.dataset.collate(self.indices[np.asarray(indices)].tolist())
        return {**batch, "index": list(indices)}


class Joined(EncodedDataset):
    """The samples of several sources, one source behind the other.

    Args:
        parts: The datasets by the names of their sources, all of one kind.
    """

    def __init__(self, parts: Mapping[str, EncodedDataset]) -> None:
        self.parts = dict(parts)
        datasets = list(self.parts.values())
        self.pad_id = datasets[0].pad_id
        self._starts = np.cumsum([0, *map(len, datasets)])
        ranges = zip(self.parts, self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True)
        self.by_source = {name: slice(start, stop) for name, start, stop in ranges}
        self.lengths = joined_lengths([dataset.lengths for dataset in datasets])
        self.longest = max(dataset.longest for dataset in datasets)
        self.truncated = sum(dataset.truncated for dataset in datasets)
        self.cut = sum(dataset.cut for dataset in datasets)
        self.without_target = sum(dataset.without_target for dataset in datasets)
        self.padded = any(dataset.padded for dataset in datasets)
        tokens = [int(dataset.lengths.sum()) for dataset in datasets]
        each = zip(tokens, datasets, strict=True)
        targets = sum(count / dataset.tokens_per_target for count, dataset in each)
        self.tokens_per_target = sum(tokens) / max(1.0, targets)
        self.pairs = [pair for dataset in datasets for pair in dataset.pairs]

    @cached_property
    def scored(self) -> EncodedDataset:
        """Those of all sources, one behind the other."""
        scored = {name: part.scored for name, part in self.parts.items()}
        same = all(scored[name] is part for name, part in self.parts.items())
        return self if same else Joined(scored)

    def places(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which samples of `scored` stand in some rows, source by source."""
        starts = np.cumsum([0, *(len(part.scored) for part in self.parts.values())])
        parts = [
            starts[number] + part.places(inside) for number, part, _, inside in self._parted(rows)
        ]
        return np.concatenate(parts)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Put samples into one batch, as their own datasets do."""
        parts = [
            (rows, part.collate(inside.tolist()))
            for _, part, rows, inside in self._parted(np.asarray(indices))
        ]
        return {**interleave(parts, self.pad_id), "index": list(indices)}

    def _parted(
        self, samples: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, EncodedDataset, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """The sources of samples: number, dataset, which of the samples, and these within it."""
        of = np.searchsorted(self._starts, samples, side="right") - 1
        for number, part in enumerate(self.parts.values()):
            rows = np.flatnonzero(of == number)
            if len(rows):
                yield number, part, rows, samples[rows] - self._starts[number]

    def target_counts(self, classes: int) -> npt.NDArray[np.int64]:
        """Those of all sources."""
        none = np.zeros(classes, dtype=np.int64)
        return sum((one.target_counts(classes) for one in self.parts.values()), start=none)
