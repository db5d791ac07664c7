"""Texts that are the same but for a few characters, found among many.

Two texts are alike by the Jaccard similarity of their sets of 5-character windows: 1 for the same,
0.8 where about one character in fifty differs. Where texts share most of such windows by chance, as
long ones of a few letters do, longer windows are taken, on the same scale. Pairs are found by
MinHash and banding (Broder 1997, On the resemblance and containment of documents; Leskovec et al.,
Mining of Massive Datasets, 3.4) and then measured exactly. N is the number of texts.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from truesweep.text import SPACELESS, count_spaceless

SIMILAR = 0.8
"""From here on, two texts count as the same: Lee et al. 2022, Deduplicating Training Data."""

SHORTEST = 25
"""Characters: shorter texts that differ at all are different words rather than variants.

One that is a syllable or a word counts as two.
"""

_NUMBER = re.compile(r"\d+")
_WINDOW = 5
_BY_CHANCE = 50  # times as many windows as a text has there must be, for one to tell texts apart
# A pair at SIMILAR meets in one of the bands with a probability of 1 - (1 - 0.8^4)^16 = 0.9998.
_BANDS, _ROWS = 16, 4
_PER_BAND = 4  # texts of one band that are looked at, where many are alike
_TRIES = 8  # of the likeliest, how many are measured exactly
_SLACK = 0.15  # three standard errors of a similarity that is estimated from 64 hashes
_OF_WORDS = 0.4  # how much of two sets of words is the same, at the least, where texts are likened
_FEWEST = 3  # words of a text that may be another one reworded
_TYPING_ERROR = 0.75  # what a word counts that has one
_LEFT_OUT, _REPLACED = 0.75, 4.0  # what words count against others that only one has, or each
_AT_ONCE = 1 << 16  # pairs: both signatures of each take half a kilobyte
_SIGNED_AT_ONCE = 1 << 16  # characters: their hashes stay in a core's cache
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]


def normalise(text: str) -> str:
    """Drop what makes no other text of it: case, white space, forms of one character (NFKC)."""
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).casefold()


def words(text: str) -> list[str]:
    """The words of a text; where no spaces stand between them, its characters."""
    if text.isascii() or SPACELESS.search(text) is None:
        return re.findall(r"\w+", text)
    return re.findall(rf"{SPACELESS.pattern}|(?:(?!{SPACELESS.pattern})\w)+", text)


def word_codes(texts: Sequence[str]) -> tuple[Hashes, Places]:
    """A number for each of the `words` of texts, without case and forms of one character.

    Args:
        texts: T texts, of together some million characters at most.

    Returns:
        The numbers, of all texts in order; and how many each text has [T].
    """
    folded = [_folded(text) for text in texts]
    lengths = np.cumsum([len(text) + 1 for text in folded])
    joined = "\n".join((*folded, ""))
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds(1 << max(7, int(codes.max(initial=0)).bit_length()))[codes]
    inside = kinds == _INSIDE
    edges = inside[1:] != inside[:-1]
    # A word begins behind what is inside of none, and with each character that is one.
    alone = np.flatnonzero(kinds == _ALONE)
    starts = np.concatenate([np.flatnonzero(edges & inside[1:]) + 1, alone])
    ends = np.concatenate([np.flatnonzero(edges & inside[:-1]), alone])
    if inside[:1].any():
        starts = np.concatenate([[0], starts])
    if len(alone):
        starts, ends = np.sort(starts), np.sort(ends)
    if not len(starts):
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts), dtype=np.int64)
    # Of a word from i to j, the sum of code[k] * base^(k - i): that of base^k, moved to its start.
    powers, inverses = _powers(1 << (len(codes) - 1).bit_length())
    sums = codes * powers[: len(codes)]
    np.cumsum(sums, out=sums)
    hashes = sums[ends]
    hashes[starts > 0] -= sums[starts[starts > 0] - 1]
    hashes *= inverses[starts]
    ends = np.searchsorted(starts, lengths)
    return _mixed(hashes), np.diff(ends, prepend=0)


_ALONE, _INSIDE = 1, 2  # characters that are words, or parts of words; all others are 0


@cache
def _kinds(size: int) -> npt.NDArray[np.uint8]:
    """What each of the first characters of Unicode is to a word."""
    characters = "".join(map(chr, range(min(size, 0x110000))))
    found = np.zeros(len(characters), dtype=np.uint8)
    for kind, those in ((_INSIDE, re.compile(r"\w")), (_ALONE, SPACELESS)):
        found[[match.start() for match in those.finditer(characters)]] = kind
    return found


@cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """The powers of a number modulo 2^64 from 0 on, and those of its inverse."""
    factors = np.full((2, size), [[_BASE], [pow(_BASE, -1, 1 << 64)]], dtype=np.uint64)
    factors[:, 0] = 1
    powers, inverses = np.cumprod(factors, axis=1)
    return powers, inverses


def rolling(codes: Hashes, window: int) -> Hashes:
    """A hash of every `window` consecutive numbers, along the first dimension of `codes`."""
    hashes = np.zeros((max(0, len(codes) - window + 1), *codes.shape[1:]), dtype=np.uint64)
    for start in range(window):
        hashes *= np.uint64(_BASE)
        hashes += codes[start : start + len(hashes)]
    return _mixed(hashes)


def _mixed(hashes: Hashes) -> Hashes:
    hashes ^= hashes >> np.uint64(29)  # the high bits of a product depend on all of its low ones
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    return hashes


class Sieve:
    """Hashes, to be found among many others.

    Args:
        known: The hashes; sorted, if places of them are asked for.
    """

    def __init__(self, known: Hashes) -> None:
        self.known = known
        bits = min(25, max(16, 3 + len(known).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._begun = np.zeros(1 << bits, dtype=np.bool_)
        self._begun[known >> self._shift] = True

    def likely(self, others: Hashes) -> Places:
        """Places of those others that begin as one that is known, and mostly are one."""
        return np.flatnonzero(self._begun[others >> self._shift])

    def places(self, others: Hashes) -> Places:
        """Places of those that are known and stand among the others."""
        likely = np.sort(others[self.likely(others)])
        places = np.searchsorted(self.known, likely)
        return np.unique(places[self.known.take(places, mode="clip") == likely])


def jaccard(first: str, second: str, numbers: Callable[[str], list[str]] | None = None) -> float:
    """The similarity of two normalised texts; 0 if their numbers differ: they state other things.

    In dates, amounts and versions, little else differs between any two.

    Args:
        first: One of them.
        second: The other one.
        numbers: What tells the numbers in a text, if it remembers them.
    """
    numbers = numbers or _numbers
    if numbers(first) != numbers(second):
        return 0.0
    window = _telling(first, second)
    a, b = _windows(first, window), _windows(second, window)
    found = len(a & b) / len(a | b)
    if window == _WINDOW:
        return found
    # A character that is another one changes as many windows as each of them has characters.
    changed = (1 - found) / (1 + found) / window
    return max(0.0, (1 - _WINDOW * changed) / (1 + _WINDOW * changed))


def _telling(first: str, second: str) -> int:
    """How long windows must be for few to be in both texts by chance.

    Long texts of a few characters, such as sequences of DNA, have all windows of five in common.
    """
    kinds = max(2, len({*first, *second}))
    needed = _BY_CHANCE * max(1, len(first), len(second))
    return max(_WINDOW, math.ceil(math.log(needed, kinds)))


def likeness(first: str, second: str) -> float:
    """How much two normalised texts are alike: by their characters, or else by their words."""
    long = is_long(first) and is_long(second)
    return max(jaccard(first, second) if long else float(first == second), rewording(first, second))


def rewording(first: str, second: str) -> float:
    """How much of two normalised texts is the same words, in whatever order.

    Of all their words, the share that both have. A word with one typing error is the same for three
    quarters. Words that only one has were left out, and count three quarters, so that texts are 0.8
    alike of which one has three of the other's four words; words in whose place the other has
    others make it another text, and count four times. 0 for texts of under `_FEWEST` words, without
    spaces between words, or each with numbers that the other has not, or in another order: a number
    that only one has was left out like a word.
    """
    ours, theirs = words(first), words(second)
    if min(len(ours), len(theirs)) < _FEWEST or not _follow(_numbers(first), _numbers(second)):
        return 0.0
    if count_spaceless(first) or count_spaceless(second):
        return 0.0
    a, b = Counter(ours), Counter(theirs)
    same = (a & b).total()
    added, typed = list((b - a).elements()), 0
    missing = []
    for word in (a - b).elements():
        if (twin := next((w for w in added if _is_typing_error(word, w)), None)) is None:
            missing.append(word)
        else:
            added.remove(twin)
            typed += 1
    few, many = sorted((len(missing), len(added)))
    other = _LEFT_OUT * (many - few) + _REPLACED * few
    return (same + _TYPING_ERROR * typed) / (same + typed + other)


def _follow(first: list[str], second: list[str]) -> bool:
    """Whether one of two lists is the other but for entries left out."""
    short, long = sorted((first, second), key=len)
    rest = iter(long)
    return all(entry in rest for entry in short)


def _is_typing_error(first: str, second: str) -> bool:
    """Whether a letter is missing, too much, in its neighbour's place, or, of four, another."""
    short, long = sorted((first, second), key=len)
    letters = len(long)
    if letters > len(short) + 1:
        return False
    start = _same(short, long)
    short, long = short[start:], long[start:]
    end = _same(short[::-1], long[::-1])
    short, long = short[: len(short) - end], long[: len(long) - end]
    if len(long) == len(short) == 1:
        return letters > 3
    return len(long) == 1 or (len(long) == 2 and short == long[::-1])


def _same(short: str, long: str) -> int:
    """How many characters two words begin with alike."""
    pairs = enumerate(zip(short, long, strict=False))
    return next((place for place, (a, b) in pairs if a != b), len(short))


def closest(
    queries: Sequence[str],
    corpus: Sequence[str],
    similar: float = SIMILAR,
    signed: Signatures | None = None,
    asked: Signatures | None = None,
) -> dict[int, tuple[int, float]]:
    """For each query, the text of the corpus that is most like it, where one is like it at all.

    Args:
        queries: Normalised texts; those under `SHORTEST` have no twin.
        corpus: Normalised texts.
        similar: How much two must be alike.
        signed: The signatures of the corpus, if they are known.
        asked: Those of the queries.

    Returns:
        By the place of a query: the place of its twin, and their similarity.
    """
    long = [i for i, query in enumerate(queries) if is_long(query)]
    if not long or not len(corpus):
        return {}
    theirs = signatures(corpus) if signed is None else signed
    ours = signatures([queries[i] for i in long]) if asked is None else asked[long]
    candidates = _candidates(ours, theirs, similar)
    found: dict[int, tuple[int, float]] = {}
    tried: dict[int, int] = {}
    numbers = cache(_numbers)
    for place, other in candidates:
        query = long[place]
        tried[query] = tried.get(query, 0) + 1
        if tried[query] <= _TRIES:
            similarity = jaccard(queries[query], corpus[other], numbers)
            if similarity >= max(similar, found.get(query, (0, 0.0))[1]):
                found[query] = other, similarity
    return found


def is_long(text: str) -> bool:
    """Whether a normalised text is long enough to be a variant of another."""
    return len(text) >= SHORTEST or len(text) + count_spaceless(text) >= SHORTEST


def may_repeat(text: str) -> bool:
    """Whether a normalised text has enough characters or words to be a variant of another."""
    return is_long(text) or len(text.split(None, _FEWEST)) >= _FEWEST


def repeats(
    signed: Signatures,
    worded: Signatures,
    read: Callable[[int], str],
    similar: float = SIMILAR,
) -> dict[int, tuple[int, float]]:
    """Texts that are like one before them, which is itself like none before it; see `likeness`.

    Args:
        signed: The signatures of all texts in their order.
        worded: Those of their words.
        read: A text, normalised, by its place.
        similar: How much two must be alike.

    Returns:
        By the place of a text: the place of the one before it, and their similarity.
    """
    found: dict[int, tuple[int, float]] = {}
    by_text: dict[int, list[int]] = {}
    pairs = np.unique(np.concatenate([_meeting(signed), _meeting(worded)]))
    later, earlier = np.divmod(pairs, max(1, len(signed)))
    alike = _agreement(signed, signed, later, earlier) / (similar - _SLACK)
    alike = np.maximum(alike, _agreement(worded, worded, later, earlier) / _OF_WORDS)
    order = np.lexsort((-alike, later))
    order = order[alike[order] >= 1]
    for place, before in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        by_text.setdefault(place, []).append(before)
    for place in sorted(by_text):
        firsts = dict.fromkeys(found.get(e, (e, 1.0))[0] for e in by_text[place])
        text = read(place)
        for first in list(firsts)[:_TRIES]:
            if (similarity := likeness(text, read(first))) >= similar:
                found[place] = first, similarity
                break
    return found


def _meeting(signed: Signatures) -> Places:
    """Pairs of texts that share a band, as later * N + earlier.

    Of those that share a band, each meets the first one and the `_PER_BAND` before it.
    """
    size = len(signed)
    pairs = [np.zeros(0, dtype=np.int64)]
    for start in range(0, _BANDS * _ROWS, _ROWS):
        joined = _join(signed[:, start : start + _ROWS])
        order = np.argsort(joined, kind="stable")
        ranked = joined[order]
        group = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]][:size])
        first = np.repeat(group, np.diff(np.r_[group, size]))
        place = np.arange(size)
        for other in (first, *(place - back for back in range(1, _PER_BAND))):
            both = (other >= first) & (other < place)
            pairs.append(order[place[both]] * size + order[other[both]])
    return np.concatenate(pairs)


def signatures(texts: Sequence[str]) -> Signatures:
    """MinHash: of each text, the least of its windows' hashes, for 64 hash functions; [N, 64]."""
    return _signatures(texts, _windows_of)


def word_signatures(texts: Sequence[str]) -> Signatures:
    """The same of its words."""
    return _signatures(texts, word_codes)


def _signatures(
    texts: Sequence[str], parts: Callable[[Sequence[str]], tuple[Hashes, Places]]
) -> Signatures:
    signed = np.zeros((len(texts), _BANDS * _ROWS), dtype=np.uint32)
    done = 0
    for chunk in _chunks(texts) if len(texts) else ():
        _sign(*parts(chunk), signed[done : done + len(chunk)])
        done += len(chunk)
    return signed


def _windows_of(texts: Sequence[str]) -> tuple[Hashes, Places]:
    """The hashes of all windows of texts, and how many each has."""
    padded = [text.ljust(_WINDOW) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32)
    lengths = np.array([len(text) for text in padded])
    inside = np.ones(len(codes), dtype=np.bool_)
    inside[(np.cumsum(lengths)[:, None] - np.arange(1, _WINDOW)).ravel()] = False
    hashes = rolling(codes.astype(np.uint64), _WINDOW)[inside[: 1 - _WINDOW]]
    return hashes, lengths - _WINDOW + 1


def _sign(hashes: Hashes, counts: Places, signed: Signatures) -> None:
    short = (hashes >> np.uint64(32)).astype(np.uint32)
    some = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[some]
    rng = np.random.default_rng(0)
    factors = rng.integers(1 << 31, size=_BANDS * _ROWS, dtype=np.uint32) * 2 + 1
    offsets = rng.integers(1 << 32, size=_BANDS * _ROWS, dtype=np.uint32)
    drawn = np.empty_like(short)
    for number, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        np.multiply(short, factor, out=drawn)
        drawn += offset
        signed[some, number] = np.minimum.reduceat(drawn, starts) if len(some) else 0


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts of together about `_SIGNED_AT_ONCE` characters."""
    ends = np.cumsum([len(text) for text in texts])
    limits = np.arange(0, max(1, ends[-1]), _SIGNED_AT_ONCE)
    cuts = np.searchsorted(ends, limits, side="left").tolist()
    for start, end in zip(cuts, [*cuts[1:], len(texts)], strict=True):
        if start < end:
            yield texts[start:end]


def _candidates(ours: Signatures, theirs: Signatures, similar: float) -> Iterator[tuple[int, int]]:
    """Pairs (query, other) that may be alike, by query, the likeliest first."""
    bands = [slice(start, start + _ROWS) for start in range(0, _BANDS * _ROWS, _ROWS)]
    meetings = [_meetings(_join(ours[:, band]), _join(theirs[:, band])) for band in bands]
    # One number a pair, which sorts a hundred times faster than rows of two.
    queries, others = np.divmod(
        np.unique(np.concatenate([q * len(theirs) + o for q, o in meetings])), len(theirs)
    )
    return _likeliest(ours, theirs, queries, others, similar)


def _likeliest(
    ours: Signatures, theirs: Signatures, queries: Places, others: Places, similar: float
) -> Iterator[tuple[int, int]]:
    """Those pairs whose signatures agree enough, by query, the likeliest first."""
    agreement = _agreement(ours, theirs, queries, others)
    order = np.lexsort((-agreement, queries))
    order = order[agreement[order] >= similar - _SLACK]
    return zip(queries[order].tolist(), others[order].tolist(), strict=True)


def _agreement(
    ours: Signatures, theirs: Signatures, queries: Places, others: Places
) -> npt.NDArray[np.float64]:
    """How much of their signatures the texts of each pair have in common."""
    agreement = np.zeros(len(queries))
    for start in range(0, len(queries), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        agreement[part] = (ours[queries[part]] == theirs[others[part]]).mean(axis=1)
    return agreement


def _join(rows: Signatures) -> Hashes:
    """One hash of each row."""
    joined: Hashes = rolling(rows.T.astype(np.uint64), rows.shape[1])[0]
    return joined


def _meetings(ours: Hashes, theirs: Hashes) -> tuple[Places, Places]:
    """Places in two lists of hashes [N], [M] that hold the same, `_PER_BAND` a query at most."""
    likely = Sieve(ours).likely(theirs)  # to be ranked: seldom many
    order = likely[np.argsort(theirs[likely], kind="stable")]
    ranked = theirs[order]
    if not len(ranked):
        return order, order
    first = np.searchsorted(ranked, ours)
    places = first[:, None] + np.arange(_PER_BAND)
    same = ranked.take(places, mode="clip") == ours[:, None]
    same &= places < len(ranked)
    queries, _ = np.nonzero(same)
    return queries, order[places[same]]


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(text)


def _windows(text: str, window: int) -> set[str]:
    padded = text.ljust(window)
    return {padded[i : i + window] for i in range(len(padded) - window + 1)}
