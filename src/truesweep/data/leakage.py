"""What stands twice: within a split, and in two splits of which one is to judge the other.

Samples are compared by what a model reads of them: the source of a pair, the text of a class, what
a conversation's last answer answers. Texts for language models are compared by their passages, and
by the word 8-grams that they share.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from threading import Event
from typing import Self

import numpy as np

from truesweep.data import splitting
from truesweep.data.samples import EXAMPLES, Chat, Kind, Labelled, Pair, Sample, field_texts
from truesweep.data.similarity import (
    Hashes,
    Sieve,
    Signatures,
    closest,
    normalise,
    rolling,
    signatures,
    word_codes,
)
from truesweep.data.texts import Text, batches, pieces
from truesweep.record.files import reopen, replacing
from truesweep.text import count_spaceless

NGRAM = 8
"""Words that hardly ever follow each other twice by chance: Radford et al. 2019 (GPT-2), 4."""

BRIEF = 512
"""Characters of a text that has no paragraphs of its own."""

VERSION = 7  # of what is found, and of its parts; a new one leaves all older ones unread

_LONGEST = 2_000  # characters of an example
_AT_ONCE = 1 << 16  # passages that are compared
_HASHED_AT_ONCE = 1 << 16  # characters: their hashes stay in a core's cache
_JUDGED = 1 << 16  # passages of a split that judges, evenly spread over it if it has more
_JUDGED_NGRAMS = 1 << 21  # the same for its n-grams
_KEPT = 1 << 7  # times `_HASHED_AT_ONCE`: of n-grams that are looked for, what a kill may lose


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
        examples: Some of them, each with its answer.
    """

    passages: int
    repeated: int
    contradictory: int
    examples: list[tuple[str, str | None]] = field(default_factory=list)


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
        passages: Passages of `split` that were compared; of very many, an even part.
        exact: Those that are in `other`, but for case and white space.
        near: Those that are as good as there (`similarity.SIMILAR`), without the exact ones.
        same_answer: Of the exact ones, those with the same label or translation there.
        other_answer: Of exact and near ones, those whose label or translation is another one there.
        ngrams: For plain text, the share of its word 8-grams that `other` has too; else None.
        examples: `EXAMPLES` of them at most, the most alike first; of long texts the beginning.
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


def passages(samples: Sequence[Sample], kind: Kind, first: int = 0) -> Iterator[Passage]:
    """What is compared of the samples of a split, in their order.

    Of texts, the paragraphs, or the lines where there is but one; not those of under 8 words, which
    are headings, brackets and the like, unless a text has no others; a brief one of
    several is compared whole.

    Args:
        samples: The samples of a split.
        kind: Their kind.
        first: Passages to leave out.
    """
    if kind == "text":
        yield from map(_passage, islice(_blocks(samples), first, None))
    else:
        yield from (_passage(*_fields(sample)) for sample in islice(samples, first, None))


def duplicates(split: Iterable[Passage], examples: int = 0) -> Duplicates:
    """Count what a split has more than once, and keep some examples."""
    first: dict[int, int] = {}  # hashes, since the passages themselves may be larger than memory
    total = repeated = contradictory = 0
    shown: list[tuple[str, str | None]] = []
    for passage in split:
        total += 1
        key, answer = hash(passage.key), hash(passage.answer)
        if key in first:
            repeated += 1
            shown += [(passage.text, passage.answer)] if len(shown) < examples else []
        contradictory += first.setdefault(key, answer) != answer
    return Duplicates(total, repeated, contradictory, shown)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some passages of a split.

    Attributes:
        passages: All of them.
        texts: The first of each key, the last key first.
        signed: The signatures of these keys.
    """

    passages: list[Passage]
    texts: dict[str, Passage]
    signed: Signatures

    @classmethod
    def each(cls, passages: Iterable[Passage]) -> Iterator["_Part"]:
        """All passages, `_AT_ONCE` at once."""
        rest = iter(passages)
        while part := list(islice(rest, _AT_ONCE)):
            texts = {p.key: p for p in reversed(part)}
            yield cls(part, texts, signatures(list(texts)))

    def without(self, keys: Set[str]) -> "_Part":
        """Those with other keys."""
        kept = [place for place, key in enumerate(self.texts) if key not in keys]
        texts = {key: p for key, p in self.texts.items() if key not in keys}
        return _Part(self.passages, texts, self.signed[kept])


_Found = tuple[int, float | None, str, str | None]
"""The place of a passage; how alike its twin is, None: the same; the twin's text and answer."""


class _Search:
    """The passages of a split, and what another has that is like them.

    The other comes in parts; where the same text stands there with several answers, a passage is
    compared with its own.
    """

    def __init__(self, split: Sequence[Passage]) -> None:
        self.split = split
        self._keys = [p.key for p in split]
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._signed = signatures(self._keys)
        self._same: dict[int, dict[str | None, str]] = {}  # the first text with each answer
        self._near: dict[int, tuple[float, str, str | None]] = {}

    def look(self, part: "_Part") -> list[_Found]:
        """Look at some passages of the other split, and tell what was new."""
        return [found for found in self._in(part) if self.take(*found)]

    def take(self, place: int, similarity: float | None, text: str, answer: str | None) -> bool:
        """Remember what was found, and tell whether it was new; see `_Found`."""
        if similarity is None:
            same = self._same.setdefault(place, {})
            new = answer not in same
            same.setdefault(answer, text)
        elif new := similarity > self._near.get(place, (0.0,))[0]:
            self._near[place] = similarity, text, answer
        return new

    def _in(self, part: "_Part") -> Iterator[_Found]:
        if same := self._places.keys() & part.texts:
            for p in part.passages:
                if p.key in same:
                    yield self._places[p.key], None, p.text, p.answer
            part = part.without(same)
        near = closest(self._keys, list(part.texts), signed=part.signed, asked=self._signed)
        twins = list(part.texts.values()) if near else []
        for place, (twin, similarity) in near.items():
            yield place, similarity, twins[twin].text, twins[twin].answer

    def found(self) -> list[Leak]:
        """The passages whose like is in the other, with the one most like it; the same first."""
        exact, near = [], []
        for place, p in enumerate(self.split):
            if same := self._same.get(self._places[p.key]):
                answer = p.answer if p.answer in same else next(iter(same))
                exact.append(Leak(p.text, same[answer], 1.0, p.answer, answer))
            elif place in self._near:
                similarity, text, answer = self._near[place]
                near.append(Leak(p.text, text, similarity, p.answer, answer))
        return exact + near


class _Journal:
    """What is found in each part of a split, a line each: another one goes on behind a kill.

    Args:
        path: Where it is kept; None: nowhere.

    Attributes:
        parts: What it holds already: for each part, what `add` was given.
    """

    def __init__(self, path: Path | None) -> None:
        lines = path.read_bytes() if path is not None and path.exists() else b""
        lines = lines[: lines.rfind(b"\n") + 1]  # a kill may have cut the last one
        self.parts: list[dict[str, list[_Found]]] = list(map(json.loads, lines.splitlines()))
        self._file = None if path is None else reopen(path, len(lines))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, part: Mapping[str, Sequence[_Found]]) -> None:
        """Keep what each search has found in the next part."""
        if self._file is not None:
            self._file.write(json.dumps(part).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _look_through(
    other: Sequence[Sample], kind: Kind, searches: Mapping[str, _Search], kept: Path | None
) -> None:
    """Have all searches look at a split, or at what they have not seen of it before a kill."""
    with _Journal(kept) as journal:
        for known in journal.parts:
            for split, found in known.items():
                for one in found:
                    searches[split].take(*one)
        for part in _Part.each(passages(other, kind, len(journal.parts) * _AT_ONCE)):
            journal.add({split: search.look(part) for split, search in searches.items()})


def leaks(split: Iterable[Passage], other: Iterable[Passage]) -> list[Leak]:
    """The passages of a split whose like is in the other, with the one most like it."""
    search = _Search(list(split))
    for part in _Part.each(other):
        search.look(part)
    return search.found()


class Known:
    """What splits hold that judge, to be found in training data.

    Args:
        splits: Their samples, by their names.
        kind: The kind of these.
    """

    def __init__(self, splits: Mapping[str, Sequence[Sample]], kind: Kind) -> None:
        found = {p.key: (s, p.text) for s, of in splits.items() for p in passages(of, kind)}
        self._keys, self._places = list(found), {key: i for i, key in enumerate(found)}
        self._told = list(found.values())
        self._signed = signatures(self._keys)

    def twins(self, keys: Sequence[str], similar: float) -> dict[int, tuple[str, str]]:
        """By the place of a normalised text that stands there: the split, and the text there."""
        same = {i: self._places[key] for i, key in enumerate(keys) if key in self._places}
        near = closest(keys, self._keys, similar, self._signed)
        places = {i: same.get(i, near[i][0] if i in near else -1) for i in range(len(keys))}
        return {i: self._told[place] for i, place in places.items() if place >= 0}


def ngrams(samples: Sequence[Sample]) -> Hashes:
    """Hashes of `NGRAM` consecutive words of texts, without case and punctuation.

    Of all of them, or of `_JUDGED_NGRAMS` to half as many that are evenly spread.
    """
    kept = np.empty(_JUDGED_NGRAMS, dtype=np.uint64)
    count, stride, seen = 0, 1, 0
    for part in _ngrams(samples):
        chosen = part[-seen % stride :: stride]
        seen += len(part)
        while count + len(chosen) > _JUDGED_NGRAMS:
            halved = kept[:count:2].copy()
            chosen, stride = chosen[count % 2 :: 2], 2 * stride
            count = len(halved)
            kept[:count] = halved
        kept[count : count + len(chosen)] = chosen
        count += len(chosen)
    return kept[:count].copy()


def _spread(passages: Iterable[Passage]) -> list[Passage]:
    """All passages, or `_JUDGED` to half as many that are evenly spread."""
    kept: list[Passage] = []
    stride = 1
    for place, passage in enumerate(passages):
        if place % stride == 0:
            kept.append(passage)
        if len(kept) > _JUDGED:
            kept, stride = kept[::2], 2 * stride
    return kept


def _ngrams(samples: Sequence[Sample], first: int = 0) -> Iterator[Hashes]:
    """The n-grams of texts in their order, in parts, of which the first ones may be left out."""
    texts = enumerate(field_texts(samples, "text"))
    owned = ((number, piece) for number, text in texts for piece in pieces(text))
    codes, owners = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    for batch in islice(batches(owned, _HASHED_AT_ONCE), first, None):
        numbers, parts = zip(*batch, strict=True)
        found, counts = word_codes(parts)
        codes = np.concatenate([codes[1 - NGRAM :], found])
        owners = np.concatenate([owners[1 - NGRAM :], np.repeat(numbers, counts)])
        hashes = rolling(codes, NGRAM)
        yield hashes[owners[: len(hashes)] == owners[NGRAM - 1 :]]  # none is of two texts


def _ngrams_until(ended: Event, samples: Sequence[Sample], first: int) -> Iterator[Hashes]:
    """Those of `_ngrams` that come before it is said that no more are needed."""
    return takewhile(lambda _: not ended.is_set(), _ngrams(samples, first))


def shared(
    ours: Mapping[str, Hashes],
    theirs: Callable[[int], Iterable[Hashes]],
    kept: Path | None = None,
) -> dict[str, float]:
    """For each split, the share of its n-grams that another has too; 0 where there are none.

    Args:
        ours: The n-grams of each.
        theirs: Gives those of the other in parts, without so many of the first.
        kept: A file for what is found on the way: another one goes on behind a kill.
    """
    if not ours:
        return {}
    known = np.unique(np.concatenate([*ours.values()]))
    found = np.zeros(len(known), dtype=np.bool_)
    sieve, done = Sieve(known), 0
    if kept is not None and kept.exists():
        with np.load(kept) as file:
            found |= np.unpackbits(file["found"], count=len(found)).astype(np.bool_)
            done = int(file["done"])
    start = max(0, done - 1)  # its last words begin n-grams that end in the next part
    for number, part in enumerate(theirs(start), start + 1):
        found[sieve.places(part)] = True
        if kept is not None and number % _KEPT == 0:
            with replacing(kept) as file:
                np.savez(file, found=np.packbits(found), done=number)
    return {
        split: float(found[np.searchsorted(known, grams)].mean()) if len(grams) else 0.0
        for split, grams in ours.items()
    }


def leaked(
    kind: Kind,
    splits: Mapping[str, Sequence[Sample]],
    kept: Path | None = None,
) -> list[Leakage]:
    """What those splits that judge have in common with those that come before.

    Args:
        kind: The kind of all samples.
        splits: The samples of `train`, `val` and `test`.
        kept: A folder for what is found on the way: another search goes on behind a kill.
    """
    judges = {name: _spread(passages(splits[name], kind)) for name in ("val", "test")}
    ours = {name: ngrams(splits[name]) for name in judges} if kind == "text" else {}
    found = []
    for other, split_names in (("train", ("val", "test")), ("val", ("test",))):
        searches = {split: _Search(judges[split]) for split in split_names}
        grams = {split: ours[split] for split in split_names if split in ours}
        journal, counted = (kept and kept / f"{other}.{end}" for end in ("jsonl", "npz"))
        with ThreadPoolExecutor(1) as aside:  # while numpy counts, passages are read
            ended = Event()
            parts = partial(_ngrams_until, ended, splits[other])
            counting = aside.submit(shared, grams, parts, counted)
            try:
                _look_through(splits[other], kind, searches, journal)
                in_common = counting.result()
            finally:
                ended.set()  # or an interrupt would wait for all n-grams
        for split, search in searches.items():
            both = search.found()
            exact = [leak for leak in both if leak.similarity == 1]
            found.append(
                Leakage(
                    split=split,
                    other=other,
                    passages=len(judges[split]),
                    exact=len(exact),
                    near=len(both) - len(exact),
                    same_answer=sum(leak.answer == leak.twin_answer for leak in exact),
                    other_answer=sum(leak.answer != leak.twin_answer for leak in both),
                    ngrams=in_common.get(split),
                    examples=[
                        replace(leak, text=leak.text[:_LONGEST], twin=leak.twin[:_LONGEST])
                        for leak in sorted(both, key=lambda leak: -leak.similarity)[:EXAMPLES]
                    ],
                )
            )
    return found


def is_brief(text: Text) -> bool:
    """Whether one of several texts is a few short lines, which tell something together only."""
    return 0 < len(text) <= BRIEF and not any(map(is_telling, splitting.passages(text)))


def is_telling(block: str) -> bool:
    """Whether a paragraph or line has the words that make it more than a heading or a bracket."""
    words = len(block.split(None, NGRAM))
    return words >= NGRAM or words + count_spaceless(block) >= NGRAM


def _blocks(texts: Sequence[Sample]) -> Iterator[str]:
    """What is compared of texts, as it stands."""
    for text in field_texts(texts, "text"):
        whole = len(texts) > 1 and is_brief(text)
        yield from [str(text)] if whole else _telling(splitting.passages(text))


def _telling(blocks: Iterable[str]) -> Iterator[str]:
    """The blocks that are long enough to tell something; where there are none, the first others."""
    short: list[str] | None = []
    for block in blocks:
        if is_telling(block):
            short = None
            yield block
        elif short is not None and block.strip() and len(short) < _JUDGED:
            short.append(block)
    yield from short or ()


def _fields(sample: Sample) -> tuple[str, str]:
    if isinstance(sample, Pair | Chat):
        return sample.source, sample.target
    assert isinstance(sample, Labelled)
    return sample.text, sample.label


def _passage(text: str, answer: str | None = None) -> Passage:
    return Passage(text.strip(), normalise(text), answer)
