"""Kinds of samples: how they are loaded and made into a dataset, and what a report says of them.

A task names the kind that it is trained on. `samples` says what a sample of each kind consists of,
and sources of data know how to read that; the rest of what depends on the kind is asked here.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from truesweep.data.causal import Documents, Rows, Windows
from truesweep.data.clean import cleaned, cleaned_together
from truesweep.data.datasets import ClassifierDataset, EncodedDataset
from truesweep.data.embedded import Embedded, Made
from truesweep.data.frames import input_frame, target_frame
from truesweep.data.leakage import Leakage
from truesweep.data.mixture import Mixture, joined
from truesweep.data.ragged import Ragged, Tokens
from truesweep.data.samples import Kind, Labelled, Pair, Sample, Splits, field_texts, text_bytes
from truesweep.data.seq2seq import Seq2SeqDataset
from truesweep.data.source import Source
from truesweep.data.texts import Text
from truesweep.errors import DataError
from truesweep.text import figure

# Text always has passages in common: licences, quotations, refrains. The test sets of six known
# corpora share 0.7 to 13 % of their 8-grams with their own training sets, the larger ones by whole
# articles (Radford et al. 2019, table 6).
_PASSAGES, _NGRAMS = 0.01, 0.05
_NEAR = 0.005  # of samples: half a point of accuracy at most


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """What a dataset is made of.

    Args:
        name: The split's name.
        samples: Its samples.
        tokens: The tokens of each field of the samples, without special ones unless these stand
            within a sample; and the kind's marks beside them.
        source: Longest row, and whether texts are packed.
        tokenizer: The tokenizer that encoded the samples.
        labels: Names of the classes in the order of their ids; none without classes.
    """

    name: str
    samples: Sequence[Sample]
    tokens: Mapping[str, Ragged]
    source: Source
    tokenizer: PreTrainedTokenizerBase
    labels: Sequence[str] = ()

    @property
    def pad_id(self) -> int:
        """The pad token."""
        return int(self.tokenizer.pad_token_id)


class SampleKind(ABC):
    """What the samples of a task are.

    Attributes:
        name: What a sample consists of, as a source loads it: `text`, `pairs`, `labelled` or
            `chats`.
        fields: Which texts it has, by the names of its attributes.
        marks: Under which names `marked` gives a number for each token besides.
        packs: How samples can be put into windows: `data.packing` may be one of these. A kind that
            has none of them leaves that key alone.
        lossless: Whether tokens that hold a whole sample are worth knowing, to count its bytes.
        unit: What a report compares and counts.
        answer: What a model shall make of a sample; None of plain text.
        one_answer: Whether a sample that has two answers has a wrong one.
        aligned: Whether the two sides of a sample are about as long.
        counted: What the size of a split is: its `samples` or its `tokens`.
        needed: Of these, so many that differences worth finding can be seen.
        embedded: Makes the samples of `data=embedded` from that source and the shares of the
            splits; None: what the source itself has for the name.
    """

    name: ClassVar[Kind]
    fields: ClassVar[tuple[str, ...]] = ("text",)
    marks: ClassVar[tuple[str, ...]] = ()
    packs: ClassVar[tuple[bool | str, ...]] = ()
    lossless: ClassVar[bool] = False
    unit: ClassVar[str] = "samples"
    answer: ClassVar[str | None] = None
    one_answer: ClassVar[bool] = False
    aligned: ClassVar[bool] = True
    counted: ClassVar[str] = "samples"
    needed: ClassVar[int]
    embedded: Callable[[Mapping[str, float]], Made] | None = None

    def load(self, source: Source) -> Splits:
        """Load all splits, and clean them; see `Source.load`."""
        source.clean.check(self.name)
        if self.embedded is not None and isinstance(source, Embedded):
            splits = source.divided(self.name, self.embedded)
        elif isinstance(source, Mixture):
            return joined(self.load_each(source))
        else:
            splits = source.load(self.name)
        drop = source.decontaminate == "drop"
        if not source.clean.asked and not drop:
            return splits
        return cleaned(splits, source.clean, drop, source.verify == "full")

    def load_each(self, mixture: Mixture) -> dict[str, Splits]:
        """Load the splits of all sources, and clean them: each by itself, and of what others have.

        See `Source.load`.
        """
        sources = mixture.load_each(self.load)
        clean, drop = mixture.clean, mixture.decontaminate == "drop"
        if len(sources) == 1:
            return sources
        return cleaned_together(sources, clean, drop, mixture.verify == "full")

    @property
    def settings(self) -> dict[str, Any]:
        """What a task's own keys have made it, as JSON values."""
        return {}

    @property
    def encoding(self) -> dict[str, Any]:
        """What decides on the tokens besides samples and tokenizer, as JSON values."""
        return {}

    def texts(self, samples: Sequence[Sample], template: str | None) -> Iterable[Text]:
        """What a tokenizer learns from.

        Args:
            samples: Those of the training split.
            template: The chat template that it shall have; None: what it has or gets itself.
        """
        return chain.from_iterable(field_texts(samples, field) for field in self.fields)

    def marked(
        self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]
    ) -> Mapping[str, Sequence[Tokens]]:
        """Of a kind with marks, the tokens of all samples and these, by their names.

        Raises:
            DataError: A sample cannot be encoded.
        """
        raise NotImplementedError

    def complete(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give a tokenizer what this kind needs besides; other kinds may share it."""
        return tokenizer

    def notes(self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> Iterable[str]:
        """What a tokenizer leaves out of samples, a sentence each."""
        return ()

    def classes(self, samples: Iterable[Sample]) -> list[str] | None:
        """The names of the classes that samples have, sorted; None of a kind without."""
        return None

    @abstractmethod
    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """The dataset of a split.

        Raises:
            DataError: A sample is of a class that is not among the labels.
        """

    @abstractmethod
    def uncertainty(self, size: int) -> str:
        """How well figures of a split of this size can be known, as a clause."""

    @abstractmethod
    def leaked(self, leak: Leakage) -> int | None:
        """How many samples another split helps with; None where they are too few to matter."""

    def leaked_share(self, leak: Leakage) -> float:
        """The share that they are of all, or that of the 8-grams where it is larger; 0 as above."""
        count = self.leaked(leak)
        return 0.0 if count is None else max(count / max(1, leak.passages), leak.ngrams or 0.0)


class TextKind(SampleKind):
    """Text whose every token is to be predicted from those before it."""

    name = "text"
    packs: ClassVar[tuple[bool | str, ...]] = (True, "documents")
    lossless = True
    unit, counted = "passages", "tokens"
    needed = 10_000  # tokens: 0.04 nats at a standard deviation of 2

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Windows of all texts joined or side by side, or each text on its own."""
        texts, size = split.tokens["text"], text_bytes(split.samples, "text")
        if split.source.packing is True:
            return Windows(texts, size, split.source.max_length, split.tokenizer)
        frame = input_frame(split.tokenizer, "text")
        if split.source.packing:
            return Documents(texts, size, split.source.max_length, frame, split.tokenizer)
        return Rows(texts, size, split.source.max_length, frame, split.tokenizer)

    def uncertainty(self, size: int) -> str:
        """At a standard deviation of 2 nats per token."""
        return f"its loss is known to ±{figure(1.96 * 2 / math.sqrt(max(1, size)), 2)} at best"

    def leaked(self, leak: Leakage) -> int | None:
        """Passages that stand in both."""
        count = leak.exact + leak.near
        enough = count >= _PASSAGES * max(1, leak.passages) or (leak.ngrams or 0.0) >= _NGRAMS
        return count if enough else None


class PairKind(SampleKind):
    """Texts and what each is to be turned into."""

    name: ClassVar[Kind] = "pairs"
    fields: ClassVar[tuple[str, ...]] = ("source", "target")
    answer = "target"
    aligned = False
    needed = 300  # 6 points of a share at worst

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Both sides, for an encoder and a decoder."""
        pairs = cast(Sequence[Pair], split.samples)
        rows = split.tokens["source"], split.tokens["target"]
        frames = input_frame(split.tokenizer, "pairs"), target_frame(split.tokenizer)
        return Seq2SeqDataset(pairs, rows, frames, split.source.max_length, split.pad_id)

    def uncertainty(self, size: int) -> str:
        """Of any figure between 0 and 1, at the most that its texts can vary."""
        error = figure(1.96 * 0.5 / math.sqrt(max(1, size)), 2)
        return f"a mean of scores from 0 to 1 is known to ±{error} at worst"

    def leaked(self, leak: Leakage) -> int | None:
        """Sources that stand in both: one is enough, if it is the same."""
        return _leaked(leak, leak.exact + leak.near, leak.exact)


class TranslationKind(PairKind):
    """Sentences and a translation of each."""

    answer = "translation"
    aligned = True
    needed = 300  # the smaller samples of Koehn 2004

    def uncertainty(self, size: int) -> str:
        """Of a corpus score."""
        return "BLEU of so few varies by several points"


class LabelledKind(SampleKind):
    """Texts and the class of each."""

    name = "labelled"
    answer, one_answer = "label", True
    needed = 217  # 4 points of an accuracy of 90 %

    def classes(self, samples: Iterable[Sample]) -> list[str]:
        """Names of all classes, sorted."""
        return sorted({sample.label for sample in cast(Iterable[Labelled], samples)})

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Texts with the ids of their classes."""
        ids = _class_ids(cast(Sequence[Labelled], split.samples), split.labels, split.name)
        frame, limit = input_frame(split.tokenizer, "labelled"), split.source.max_length
        return ClassifierDataset(split.tokens["text"], ids, frame, limit, split.pad_id)

    def uncertainty(self, size: int) -> str:
        """Of an accuracy of 90 %."""
        return f"an accuracy of 90 % is known to ±{196 * 0.3 / math.sqrt(max(1, size)):.0f} points"

    def leaked(self, leak: Leakage) -> int | None:
        """Texts that stand in both with one label: memory of another label does not help."""
        return _leaked(leak, leak.exact + leak.near - leak.other_answer, leak.same_answer)


TEXT, PAIRS, TRANSLATIONS = TextKind(), PairKind(), TranslationKind()
LABELLED = LabelledKind()


def _leaked(leak: Leakage, count: int, surely: int) -> int | None:
    return count if surely or count >= _NEAR * max(1, leak.passages) else None


def _class_ids(
    samples: Sequence[Labelled], labels: Sequence[str], split: str
) -> npt.NDArray[np.int64]:
    """The class of each sample, int64 [N]."""
    ids = {label: i for i, label in enumerate(labels)}
    if strange := Counter(sample.label for sample in samples if sample.label not in ids):
        found = ", ".join(f"{label!r} ({n} times)" for label, n in sorted(strange.items()))
        if split == "train":  # what the model was trained on is another
            raise DataError(
                f"the data have classes that the model does not know: {found}; it knows "
                f"{', '.join(map(repr, labels))}. If it has other names for them, give all in its "
                "order, as the data name them: model.labels=[…]"
            )
        raise DataError(
            f"the {split} split has classes that training does not know: {found}; known are "
            f"{', '.join(map(repr, labels))}. Add training samples of these classes, or take "
            f"theirs out of the {split} split"
        )
    return np.array([ids[sample.label] for sample in samples], dtype=np.int64)
