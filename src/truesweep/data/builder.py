"""Datasets of one split each, from samples and their tokens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from truesweep.data.causal import CausalDataset, Rows, Windows
from truesweep.data.classifier import ClassifierDataset
from truesweep.data.datasets import EncodedDataset
from truesweep.data.frames import input_frame, target_frame
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Kind, Labelled, Pair, Sample
from truesweep.data.seq2seq import Seq2SeqDataset
from truesweep.data.source import Source
from truesweep.data.token_cache import field_texts
from truesweep.errors import DataError


@dataclass(frozen=True)
class DatasetBuilder:
    """Makes the dataset of a split.

    Attributes:
        source: Longest row, and whether texts are packed.
        tokenizer: The tokenizer that encoded the samples.
        kind: The kind of all samples.
        labels: Names of the classes in the order of their ids; none without classes.
    """

    source: Source
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    labels: tuple[str, ...]

    def dataset(
        self, split: str, samples: Sequence[Sample], tokens: dict[str, Ragged]
    ) -> EncodedDataset:
        """Build the dataset of a split from its samples and the tokens of their fields.

        Raises:
            DataError: A sample is of a class that is not among the labels.
        """
        if self.kind == "text":
            return self._causal(tokens["text"], text_bytes(samples, "text"))
        if self.kind == "pairs":
            return self._seq2seq(tokens, cast(Sequence[Pair], samples))
        ids = _class_ids(cast(Sequence[Labelled], samples), self.labels, split)
        frame = input_frame(self.tokenizer, self.kind)
        return ClassifierDataset(tokens["text"], ids, frame, self.source.max_length, self._pad)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def _causal(self, texts: Ragged, text_bytes: int) -> CausalDataset:
        limit = self.source.max_length
        if self.source.packing:
            return Windows(texts, text_bytes, limit, self.tokenizer)
        frame = input_frame(self.tokenizer, "text")
        return Rows(texts, text_bytes, limit, frame, self.tokenizer)

    def _seq2seq(self, tokens: dict[str, Ragged], pairs: Sequence[Pair]) -> Seq2SeqDataset:
        frames = input_frame(self.tokenizer, "pairs"), target_frame(self.tokenizer)
        rows = tokens["source"], tokens["target"]
        return Seq2SeqDataset(pairs, rows, frames, self.source.max_length, self._pad)


def text_bytes(samples: Sequence[Sample], field: str) -> int:
    """UTF-8 bytes of one field of all samples."""
    return sum(len(text.encode()) for text in field_texts(samples, field))


def class_names(samples: Sequence[Sample]) -> list[str]:
    """Names of all classes that labelled samples have, sorted."""
    return sorted({sample.label for sample in cast(Sequence[Labelled], samples)})


def _class_ids(
    samples: Sequence[Labelled], labels: Sequence[str], split: str
) -> npt.NDArray[np.int64]:
    """The class of each sample, int64 [N]."""
    ids = {label: i for i, label in enumerate(labels)}
    if strange := Counter(sample.label for sample in samples if sample.label not in ids):
        found = ", ".join(f"{label!r} ({n} times)" for label, n in sorted(strange.items()))
        raise DataError(
            f"the {split} split has classes that training does not know: {found}; known are "
            f"{', '.join(map(repr, labels))}. Add training samples of these classes, or take "
            f"theirs out of the {split} split"
        )
    return np.array([ids[sample.label] for sample in samples], dtype=np.int64)
