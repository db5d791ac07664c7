"""What stands twice: within a split, and in two splits of which one is to judge the other.

Samples are compared by what a model reads of them: the source of a pair, the text of a class, what
a conversation's last answer answers. Texts for language models are compared by their passages, and
by the word 8-grams that they share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from truesweep.data.samples import Chat, Kind, Labelled, Pair, Sample
from truesweep.data.similarity import Hashes, closest, normalise, rolling, words
from truesweep.data.splitting import lines, paragraphs
from truesweep.text import SPACELESS

NGRAM = 8
"""Words that hardly ever follow each other twice by chance: Radford et al. 2019 (GPT-2), 4."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is compared: an input as it stands, its normal form, and what it shall be answered."""

    text: str
    key: str
    answer: str | None


@dataclass(frozen=True)
class Duplicates:
    """Passages that a split has more than once.

    Attributes:
        passages: All that were compared.
        repeated: Those that have stood before in the same split.
        contradictory: Among these, those with another label or translation than the first.
    """

    passages: int
    repeated: int
    contradictory: int


@dataclass(frozen=True)
class Leak:
    """A passage and its twin in the other split; a similarity of 1 is the same text.

    Answers are the label or the translation; None for plain text.
    """

    text: str
    twin: str
    similarity: float
    answer: str | None
    twin_answer: str | None


@dataclass(frozen=True)
class Leakage:
    """How much of one split stands in another.

    Attributes:
        split: The split that judges: `val` or `test`.
        other: Where its passages were looked for.
        passages: Passages of `split` that were compared.
        exact: Those that are in `other`, but for case and white space.
        near: Those that are as good as there (`similarity.SIMILAR`), without the exact ones.
        same_answer: Of the exact ones, those with the same label or translation there.
        other_answer: Of exact and near ones, those whose label or translation is another one there.
        ngrams: For plain text, the share of its word 8-grams that `other` has too; else None.
        examples: Some of them, the most alike first.
    """

    split: str
    other: str
    passages: int
    exact: int
    near: int
    same_answer: int
    other_answer: int
    ngrams: float | None
    examples: list[Leak]


def passages(samples: Sequence[Sample], kind: Kind) -> list[Passage]:
    """What is compared of the samples of a split, in their order.

    Of texts, the paragraphs, or the lines where there is but one; not those of under 8 words, which
    are headings, brackets and the like, unless a text has no others.
    """
    if kind == "text":
        return [_passage(block) for text in samples for block in _telling(_blocks(str(text)))]
    return [_passage(*_fields(sample)) for sample in samples]


def duplicates(split: Sequence[Passage]) -> Duplicates:
    """Count what a split has more than once."""
    first: dict[str, Passage] = {}
    repeated = [p for p in split if first.setdefault(p.key, p) is not p]
    contradictory = sum(p.answer != first[p.key].answer for p in repeated)
    return Duplicates(len(split), len(repeated), contradictory)


def leaks(split: Sequence[Passage], other: Sequence[Passage]) -> list[Leak]:
    """The passages of a split whose like is in the other, with the one most like it.

    Where the same text stands there with several answers, its own is taken.
    """
    known = {p.key: p for p in reversed(other)}
    answered = {(p.key, p.answer): p for p in reversed(other)}
    exact = [
        _leak(p, answered.get((p.key, p.answer), known[p.key]), 1.0)
        for p in split
        if p.key in known
    ]
    rest, texts = [p for p in split if p.key not in known], list(known)
    near = closest([p.key for p in rest], texts)
    return exact + [_leak(rest[i], known[texts[j]], s) for i, (j, s) in near.items()]


def ngrams(samples: Iterable[Sample]) -> Hashes:
    """A hash of every `NGRAM` consecutive words of texts, without case and punctuation."""
    found = (words(normalise(str(text))) for text in samples)
    # Python's hash differs from process to process, and nothing here outlives one.
    codes = (np.array([hash(word) for word in row], dtype=np.int64) for row in found)
    return np.concatenate([rolling(row.view(np.uint64), NGRAM) for row in codes])


def shared(ours: Hashes, theirs: Hashes) -> float:
    """The share of one split's n-grams that another has too; 0 where there are none."""
    return float(np.isin(ours, theirs).mean()) if len(ours) else 0.0


def leakage(
    kind: Kind, splits: Mapping[str, Sequence[Sample]], examples: int = 3
) -> tuple[dict[str, Duplicates], list[Leakage]]:
    """What stands twice: in one split, and of those that judge, in those that come before.

    Args:
        kind: The kind of all samples.
        splits: The samples of `train`, `val` and `test`.
        examples: How many leaks to keep as examples, for each two splits.
    """
    compared = {name: passages(samples, kind) for name, samples in splits.items()}
    grams = {name: ngrams(samples) for name, samples in splits.items()} if kind == "text" else {}
    found = []
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        both = leaks(compared[split], compared[other])
        exact = [leak for leak in both if leak.similarity == 1]
        found.append(
            Leakage(
                split=split,
                other=other,
                passages=len(compared[split]),
                exact=len(exact),
                near=len(both) - len(exact),
                same_answer=sum(leak.answer == leak.twin_answer for leak in exact),
                other_answer=sum(leak.answer != leak.twin_answer for leak in both),
                ngrams=shared(grams[split], grams[other]) if grams else None,
                examples=sorted(both, key=lambda leak: -leak.similarity)[:examples],
            )
        )
    return {name: duplicates(part) for name, part in compared.items()}, found


def _leak(passage: Passage, twin: Passage, similarity: float) -> Leak:
    return Leak(passage.text, twin.text, similarity, passage.answer, twin.answer)


def _blocks(text: str) -> list[str]:
    blocks = paragraphs(text)
    return blocks if len(blocks) > 1 else lines(text)


def _telling(blocks: list[str]) -> list[str]:
    """The blocks that are long enough to tell something; where there are none, all of them."""
    long = [b for b in blocks if len(b.split()) + len(SPACELESS.findall(b)) >= NGRAM]
    return long or [block for block in blocks if block.strip()]


def _fields(sample: Sample) -> tuple[str, str]:
    if isinstance(sample, Pair | Chat):
        return sample.source, sample.target
    assert isinstance(sample, Labelled)
    return sample.text, sample.label


def _passage(text: str, answer: str | None = None) -> Passage:
    return Passage(text.strip(), normalise(text), answer)
