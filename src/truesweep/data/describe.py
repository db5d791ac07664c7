"""What data consist of: sizes, lengths, classes, vocabulary, and what stands in them twice."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zstandard
from transformers import PreTrainedTokenizerBase

from truesweep.data import splitting
from truesweep.data.clean import shown
from truesweep.data.kinds import SampleKind
from truesweep.data.leakage import Duplicates, Leakage, duplicates, is_telling, passages
from truesweep.data.prepare import Prepared
from truesweep.data.ragged import Ragged
from truesweep.data.rules import can_identify, language
from truesweep.data.samples import Account, Labelled, Pair, Sample, Splits, field_texts
from truesweep.data.similarity import Hashes, normalise, rolling, word_codes
from truesweep.data.source import Source
from truesweep.data.texts import BLOCK, batches, blocks
from truesweep.data.token_cache import SPLITS
from truesweep.models.tokens import vocabulary_size

Tokens = dict[str, Ragged]  # those of each field of a split's samples
Quantiles = dict[str, float]

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}

# A pair is odd whose target is this many times longer or shorter than that of the median pair, and
# by this many tokens: short phrases vary more.
_ODD_FACTOR, _ODD_TOKENS = 3.0, 10
_WORDS, _ASKED = 1_000_000, 500  # that diversity is measured on, and samples or passages
_AT_ONCE = 1 << 24  # tokens


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
class Diversity:
    """How much a split's text says anew.

    Attributes:
        distinct: Of its words, word pairs and triples, the share of different ones, among the
            first million at most.
        compressed: The size that zstandard makes of it, over its own.
        languages: Shares of the languages that py3langid takes samples to be in, the largest
            first; none without that package.
    """

    distinct: tuple[float, float, float]
    compressed: float
    languages: dict[str, float]


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
        diversity: How much of it is new.
        cut_examples: Some samples that lose the most to `data.max_length`.
        unknown_examples: Some that have unknown tokens.
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
    diversity: Diversity
    cut_examples: list[str]
    unknown_examples: list[str]


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
    cleaned: Mapping[str, Account]
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
        examples: How many to keep of each finding.
    """
    samples: dict[str, Sequence[Sample]] = {name: getattr(splits, name) for name in SPLITS}
    counts = {name: _counts(tokens[name], vocabulary_size(prepared.tokenizer)) for name in SPLITS}
    parts = {
        name: Part(
            **prepared.stats[name],
            unseen=_unseen(counts[name], counts["train"], prepared.tokenizer),
            lengths={field: quantiles(rows.lengths) for field, rows in tokens[name].items()},
            labels=labels(samples[name], prepared.labels),
            pairs=_pair_shape(samples[name], tokens[name]) if splits.kind == "pairs" else None,
            duplicates=duplicates(passages(samples[name], splits.kind), examples),
            diversity=diversity(samples[name], prepared.kind.fields),
            cut_examples=_cut(samples[name], tokens[name], prepared.stats[name], examples),
            unknown_examples=_with_token(
                samples[name], tokens[name], prepared.tokenizer.unk_token_id, examples
            ),
        )
        for name in SPLITS
    }
    return Description(
        kind=prepared.kind,
        packed=source.packing in prepared.kind.packs,
        max_length=source.max_length,
        fingerprint=splits.fingerprint,
        origin=prepared.origin,
        splits=parts,
        vocabulary=_vocabulary(counts["train"], prepared.tokenizer),
        leakage=[replace(leak, examples=leak.examples[:examples]) for leak in prepared.leakage],
        cleaned=splits.cleaned,
    )


def diversity(samples: Sequence[Sample], fields: Sequence[str]) -> Diversity:
    """How much of samples is new; texts are read one by one."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    size = small = found = 0
    codes: list[Hashes] = []
    for name in fields:
        texts = enumerate(field_texts(samples, name))
        owned = ((number, block) for number, text in texts for block in blocks(text, BLOCK))
        for batch in batches(owned, BLOCK):
            data = "".join(f"{block}\n" for _, block in batch).encode()
            size, small = size + len(data), small + len(compressor.compress(data))
            if found < _WORDS:
                codes.append(word_codes([block for _, block in batch])[0])
                found += len(codes[-1])
    small += len(compressor.flush())
    words = np.concatenate([np.zeros(0, dtype=np.uint64), *codes])[:_WORDS]
    one, two, three = (
        len(np.unique(grams)) / max(1, len(grams))
        for grams in (rolling(words, n) for n in (1, 2, 3))
    )
    return Diversity((one, two, three), small / max(1, size), _languages(samples, fields[-1]))


def _languages(samples: Sequence[Sample], name: str) -> dict[str, float]:
    """Languages of samples that lie evenly among all; of texts, of their passages."""
    if not samples or not can_identify():
        return {}
    some = islice(field_texts(samples, name), 0, None, max(1, len(samples) // _ASKED))
    each = max(1, _ASKED // len(samples))
    texts = (
        text
        for whole in some
        for text in islice(filter(is_telling, splitting.passages(whole)), each)
    )
    counts = Counter(language(text)[0] or "?" for text in texts)
    return {code: count / counts.total() for code, count in counts.most_common()}


def _cut(
    samples: Sequence[Sample], tokens: Tokens, stats: Mapping[str, int], examples: int
) -> list[str]:
    """Those samples that are cut the most, the longest first."""
    longest = np.max([rows.lengths for rows in tokens.values()], axis=0)
    cut = np.argsort(-longest, kind="stable")[: min(examples, stats["truncated"])]
    return [shown(samples[place]) for place in cut.tolist()]


def _with_token(
    samples: Sequence[Sample], tokens: Tokens, token: int | None, examples: int
) -> list[str]:
    """The first samples with a token; none where they are too long to be shown."""
    if sum(rows.size for rows in tokens.values()) > _WORDS * max(1, len(samples)):
        return []
    found: dict[int, None] = {}
    for rows in tokens.values():
        if not rows.count(token):
            continue
        for start in range(0, len(rows.tokens), _AT_ONCE):
            places = np.flatnonzero(rows.tokens[start : start + _AT_ONCE] == token) + start
            at = np.searchsorted(rows.offsets, places[: _AT_ONCE >> 8], side="right") - 1
            found |= dict.fromkeys(at.tolist())
            if len(found) >= examples:
                break
    return [shown(samples[place]) for place in list(found)[:examples]]


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
