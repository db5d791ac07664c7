"""What data consist of: sizes, lengths, classes, vocabulary, and what stands in them twice."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from truesweep.data.kinds import SampleKind
from truesweep.data.leakage import Duplicates, Leakage, leakage
from truesweep.data.prepare import Prepared
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Labelled, Pair, Sample, Splits
from truesweep.data.similarity import normalise
from truesweep.data.source import Source
from truesweep.data.token_cache import SPLITS

Tokens = dict[str, Ragged]  # those of each field of a split's samples
Quantiles = dict[str, float]

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}

# A pair is odd whose target is this many times longer or shorter than that of the median pair, and
# by this many tokens: short phrases vary more.
_ODD_FACTOR, _ODD_TOKENS = 3.0, 10


@dataclass(frozen=True)
class PairShape:
    """How the two sides of a split's pairs fit together.

    Attributes:
        ratio: Quantiles of target over source, in tokens.
        odd: Pairs of which one side is far too long for the other: likely misaligned.
        empty: Pairs with a side that has no token.
        copied: Pairs whose sides are the same text.
    """

    ratio: Quantiles
    odd: int
    empty: int
    copied: int


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        samples: As loaded.
        rows: What batches count: samples, or windows of packed text.
        tokens: Without special ones.
        unknown: Those of them that the tokenizer has no token for.
        unseen: Those of them, without unknown ones, that training has no example of.
        bytes: UTF-8 bytes.
        longest: Tokens of the longest row, with special ones, before it is cut.
        truncated: Samples that lose tokens to `data.max_length`.
        cut: Tokens that they lose.
        without_target: Samples that lose all that is to be learned.
        lengths: For each field of a sample, quantiles of its tokens.
        labels: How many samples each class has; None without classes.
        pairs: What only pairs have; None for other kinds.
        duplicates: What stands in the split more than once.
    """

    samples: int
    rows: int
    tokens: int
    unknown: int
    unseen: int
    bytes: int
    longest: int
    truncated: int
    cut: int
    without_target: int
    lengths: dict[str, Quantiles]
    labels: dict[str, int] | None
    pairs: PairShape | None
    duplicates: Duplicates


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's tokens, without special ones.

    Attributes:
        size: All of them.
        used: Those that the training split has.
    """

    size: int
    used: int


@dataclass(frozen=True)
class Description:
    """Three splits and what lies between them; of a mixture, what its sources are."""

    kind: SampleKind
    packed: bool
    max_length: int
    fingerprint: str
    origin: dict[str, Any]
    splits: dict[str, Part]
    vocabulary: Vocabulary
    leakage: list[Leakage]
    sources: dict[str, dict[str, Any]] | None = None


def describe(
    splits: Splits,
    tokens: Mapping[str, Tokens],
    prepared: Prepared,
    source: Source,
    examples: int = 3,
) -> Description:
    """Describe data that have been loaded, encoded and checked.

    Args:
        splits: The samples.
        tokens: For each split, the tokens of each field.
        prepared: What was made of them.
        source: How they are cut.
        examples: How many leaks to keep as examples, for each two splits.
    """
    samples: dict[str, list[Sample]] = {name: getattr(splits, name) for name in SPLITS}
    counts = {name: _counts(tokens[name], len(prepared.tokenizer)) for name in SPLITS}
    twice, leaked = leakage(splits.kind, samples, examples)
    parts = {
        name: Part(
            **prepared.stats[name],
            unseen=_unseen(counts[name], counts["train"], prepared.tokenizer),
            lengths={field: quantiles(rows.lengths) for field, rows in tokens[name].items()},
            labels=labels(samples[name], prepared.labels),
            pairs=_pair_shape(samples[name], tokens[name]) if splits.kind == "pairs" else None,
            duplicates=twice[name],
        )
        for name in SPLITS
    }
    return Description(
        kind=prepared.kind,
        packed=source.packing in prepared.kind.packs,
        max_length=source.max_length,
        fingerprint=splits.fingerprint,
        origin=splits.origin,
        splits=parts,
        vocabulary=_vocabulary(counts["train"], prepared.tokenizer),
        leakage=leaked,
    )


def quantiles(values: npt.ArrayLike) -> Quantiles:
    """The least, the largest, and what lies at a quarter, half, three quarters and 95 %."""
    array = np.asarray(values)
    if not array.size:
        return dict.fromkeys(QUANTILES, 0.0)
    found = np.quantile(array, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.tolist(), strict=True))


def labels(samples: Sequence[Sample], names: Sequence[str] | None) -> dict[str, int] | None:
    """How many samples have each label, in the order of the names, with those that have none."""
    if names is None:
        return None
    found = Counter(sample.label for sample in cast(Sequence[Labelled], samples))
    return {name: found[name] for name in names}


def pair_shape(
    pairs: Sequence[Pair], sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> PairShape:
    """Compare the sides of pairs, whose tokens are `sources` [N] and `targets` [N]."""
    ratio = targets / np.maximum(1, sources)
    usual = float(np.median(ratio)) if len(ratio) else 1.0
    expected = usual * sources
    odd = (targets > _ODD_FACTOR * expected) | (targets < expected / _ODD_FACTOR)
    odd &= np.abs(targets - expected) > _ODD_TOKENS
    return PairShape(
        ratio=quantiles(ratio),
        odd=int(odd.sum()),
        empty=int(((sources == 0) | (targets == 0)).sum()),
        copied=sum(normalise(pair.source) == normalise(pair.target) for pair in pairs),
    )


def _pair_shape(samples: Sequence[Sample], tokens: Tokens) -> PairShape:
    lengths = tokens["source"].lengths, tokens["target"].lengths
    return pair_shape(cast(Sequence[Pair], samples), *lengths)


def _counts(tokens: Tokens, size: int) -> npt.NDArray[np.int64]:
    """How often each token of the vocabulary occurs, int64 [size]."""
    return sum(
        (np.pad(rows.counts, (0, size - len(rows.counts))) for rows in tokens.values()),
        start=np.zeros(size, dtype=np.int64),
    )


def _ordinary(counts: npt.NDArray[np.int64], tokenizer: PreTrainedTokenizerBase) -> Any:
    """Counts without those of special tokens."""
    return np.delete(counts, tokenizer.all_special_ids)


def _unseen(
    counts: npt.NDArray[np.int64],
    training: npt.NDArray[np.int64],
    tokenizer: PreTrainedTokenizerBase,
) -> int:
    ours, theirs = (_ordinary(each, tokenizer) for each in (counts, training))
    return int(ours[theirs == 0].sum())


def _vocabulary(counts: npt.NDArray[np.int64], tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    ordinary = _ordinary(counts, tokenizer)
    return Vocabulary(len(ordinary), int(np.count_nonzero(ordinary)))
