"""In which order a training takes the samples of several sources: a function of place alone.

A training's samples stand in one endless row of places, of which each optimizer step takes the next
`batch_size`. Each place belongs to a source by the shares that hold there, and takes the next
sample of that source's own order. Nothing is drawn: by shares of 0.7 and 0.3, seven of ten places
in a row belong to the first source, and wherever a training is, each source has had what is its due
up to half a sample for each source. So any place is found without those before it.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import overload

import numpy as np
import numpy.typing as npt

from truesweep.data.ragged import Lengths, joined_lengths
from truesweep.data.samplers import Indices, Order, TrainSampler, order_of_any

Floats = npt.NDArray[np.float64]

_PERIODS = 1 << 15, 1 << 16
"""Places after which a pattern is repeated: that number of them which shares divide best."""
_TABLE = 1 << 20
"""Samples of a source whose order is drawn as a table: 8 MiB for each source."""
_CHUNK = 1 << 13
"""Places whose samples are found at once."""


@dataclass(frozen=True)
class _Pattern:
    """Places that belong to sources by certain shares, again and again.

    Attributes:
        sources: The source of each place of a period [P].
        ranks: How many places before it, within the period, are of the same source [P].
        counts: Places of each source in a period [S].
    """

    sources: Indices
    ranks: Indices
    counts: Indices


@lru_cache(maxsize=16)
def _pattern(shares: tuple[float, ...]) -> _Pattern:
    """The places of each source as evenly as they can be, between those of the others."""
    counts = _counts(np.array(shares))
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    ranks = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(due, kind="stable")
    return _Pattern(np.repeat(np.arange(len(counts)), counts)[order], ranks[order], counts)


def _counts(shares: Floats) -> Indices:
    """Whole numbers in the proportion of shares, as near as a period allows; each at least one."""
    periods = np.arange(_PERIODS[0], _PERIODS[1] + 1)
    off = np.zeros(len(periods))
    for share in shares:
        off = np.maximum(off, np.abs(periods * share - np.rint(periods * share)))
    period = int(periods[np.argmin(off.round(9))])
    counts = np.floor(shares * period + 1e-9).astype(np.int64)
    rest = np.argsort(counts - shares * period, kind="stable")[: period - counts.sum()]
    counts[rest] += 1
    return np.maximum(counts, shares > 0)


@dataclass(frozen=True)
class _Stretch:
    """Places by whose shares nothing changes.

    Attributes:
        start: The first of them.
        taken: Samples that each source has given before [S].
        shares: Of places, by source [S]; their sum is 1.
    """

    start: int
    taken: Indices
    shares: tuple[float, ...]

    def before(self, place: int) -> Indices:
        """Samples that each source has given before a place of the stretch [S]."""
        pattern = _pattern(self.shares)
        periods, rest = divmod(place - self.start, len(pattern.sources))
        begun = np.bincount(pattern.sources[:rest], minlength=len(self.shares))
        return np.asarray(self.taken + periods * pattern.counts + begun)

    def at(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """The sources of some places, and which sample of the source each takes."""
        pattern = _pattern(self.shares)
        periods, rest = np.divmod(np.arange(start, stop) - self.start, len(pattern.sources))
        sources = pattern.sources[rest]
        ranks = self.taken[sources] + periods * pattern.counts[sources] + pattern.ranks[rest]
        return sources, ranks.astype(np.int64)

    def exhausted(self, limits: Floats) -> int | None:
        """The first place at which a source has given all it may; None if none ever does."""
        if not np.isfinite(limits[np.array(self.shares) > 0]).any():
            return None
        pattern = _pattern(self.shares)
        ends = []
        for source in np.flatnonzero(pattern.counts):
            if math.isfinite(limits[source]):
                left = int(limits[source] - self.taken[source])
                periods, last = divmod(left - 1, int(pattern.counts[source]))
                place = int(np.flatnonzero(pattern.sources == source)[last])
                ends.append(self.start + periods * len(pattern.sources) + place + 1)
        return min(ends)


class Places:
    """Which source each place of a training belongs to.

    Args:
        shares: From which place on which shares of the places hold, by source [S]; the first from
            0, in order.
        limits: Samples that each source gives at most [S]; infinite where it goes on for ever. The
            share of one that has given them goes to the others, in proportion to theirs.

    Attributes:
        end: The place at which no source has anything left to give; None: there is none.
    """

    def __init__(self, shares: Sequence[tuple[int, Floats]], limits: Floats) -> None:
        self.end: int | None = None
        self._stretches: list[_Stretch] = []
        taken = np.zeros(len(limits), dtype=np.int64)
        ends = [*(start for start, _ in shares[1:]), None]
        for (start, wanted), end in zip(shares, ends, strict=True):
            while end is None or start < end:
                left = np.where(taken < limits, wanted, 0.0)
                if not left.any():
                    self.end = start
                    return
                stretch = _Stretch(start, taken, tuple((left / left.sum()).tolist()))
                self._stretches.append(stretch)
                stops = [s for s in (end, stretch.exhausted(limits)) if s is not None]
                if not stops:
                    return
                stop = min(stops)
                taken, start = stretch.before(stop), stop

    def before(self, place: int) -> Indices:
        """Samples that each source has given before a place [S]."""
        return self._of(place).before(place)

    def at(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """The sources of some places, and which sample of the source each takes, from 0 on."""
        parts = []
        while start < stop:
            later = (s.start for s in self._stretches if s.start > start)
            end = min(stop, next(later, stop))
            parts.append(self._of(start).at(start, end))
            start = end
        sources, ranks = zip(*parts, strict=True)
        return np.concatenate(sources), np.concatenate(ranks)

    def same_until(self, other: "Places") -> int | None:
        """The first place that may belong to another source, among the same ones, in another order.

        None: there is none.
        """
        for one, its in zip_longest(self.turns(), other.turns()):
            if one != its:
                return min(turn[0] for turn in (one, its) if turn is not None)
        return None

    def turns(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """The places from which on shares hold, with these; at the end there are none."""
        yield from ((stretch.start, stretch.shares) for stretch in self._stretches)
        if self.end is not None:
            yield self.end, ()

    def _of(self, place: int) -> _Stretch:
        return next(s for s in reversed(self._stretches) if s.start <= place)


class MixedOrder:
    """Samples of several sources, which stand one behind the other, in the order of their places.

    Each source is gone through in an order of its own, and in another one each time.

    Args:
        places: Which source each place belongs to.
        lengths: Tokens of the samples, by the name of their source.
        seed: Decides each source's order, together with its name.
        first: The place at which the order begins.
        count: Places in it.
    """

    def __init__(
        self, places: Places, lengths: Mapping[str, Lengths], seed: int, first: int, count: int
    ) -> None:
        self._places = places
        self._lengths = list(lengths.values())
        self._starts = np.cumsum([0, *map(len, self._lengths)])
        self._seeds = [_own_seed(seed, name) for name in lengths]
        self._orders: dict[tuple[int, int], Order] = {}
        self._chunks: dict[int, Indices] = {}
        self._first = first
        self._count = count

    def __len__(self) -> int:
        """Places."""
        return self._count

    @overload
    def __getitem__(self, part: int) -> int: ...
    @overload
    def __getitem__(self, part: slice) -> Indices: ...
    def __getitem__(self, part: int | slice) -> int | Indices:
        """The samples at consecutive places, int64."""
        if not isinstance(part, slice):
            return int(self[part : part + 1][0])
        start, stop, _ = part.indices(self._count)
        first = start // _CHUNK
        chunks = [self._chunk(number) for number in range(first, -(-stop // _CHUNK))]
        return np.concatenate(chunks)[start - first * _CHUNK : stop - first * _CHUNK]

    def _chunk(self, number: int) -> Indices:
        """The samples at many places, since it costs little more than that of a few."""
        if number not in self._chunks:
            start = number * _CHUNK
            self._chunks = {n: c for n, c in self._chunks.items() if n == number - 1}
            self._chunks[number] = self._between(start, min(start + _CHUNK, self._count))
        return self._chunks[number]

    def _between(self, start: int, stop: int) -> Indices:
        sources, ranks = self._places.at(self._first + start, self._first + stop)
        samples = np.zeros(stop - start, dtype=np.int64)
        for source in np.unique(sources):
            where = np.flatnonzero(sources == source)
            samples[where] = self._starts[source] + self._samples(int(source), ranks[where])
        return samples

    def _samples(self, source: int, ranks: Indices) -> Indices:
        """Consecutive samples of a source, from place to place of its own order."""
        size, parts = len(self._lengths[source]), []
        rank, stop = int(ranks[0]), int(ranks[-1]) + 1
        while rank < stop:
            epoch, place = divmod(rank, size)
            end = min(size, place + stop - rank)
            parts.append(np.asarray(self._order(source, epoch)[place:end]))
            rank += end - place
        return np.concatenate(parts)

    def _order(self, source: int, epoch: int) -> Order:
        if (source, epoch) not in self._orders:
            self._orders.pop((source, epoch - 2), None)
            lengths, seed = self._lengths[source], self._seeds[source]
            self._orders[source, epoch] = order_of_any(lengths, 1, seed, epoch, table=_TABLE)
        return self._orders[source, epoch]


class MixtureSampler(TrainSampler):
    """Optimizer steps of a mixture, all of them full, from step `start()` on.

    An epoch is as many steps as all samples of all sources fill; of each source it has as many as
    its shares say.

    Args:
        lengths: Tokens of the samples, by the name of their source.
        places: Which source each sample of the training comes from.
        batch_size: As of a `TrainSampler`; so are the others.
        seed: Decides the order.
        start: Optimizer steps done so far.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        lengths: Mapping[str, Lengths],
        places: Places,
        batch_size: int,
        seed: int,
        *,
        start: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        joined = joined_lengths(list(lengths.values()))
        super().__init__(joined, batch_size, seed, start=start, rank=rank, world_size=world_size)
        self._parts = lengths
        self._places = places

    def order(self, epoch: int) -> MixedOrder:
        """The samples of an epoch."""
        count = len(self) * self.batch_size
        return MixedOrder(self._places, self._parts, self.seed, epoch * count, count)


def _own_seed(seed: int, name: str) -> int:
    """A source's own seed: what else is in a mixture, and in which order, does not change it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
