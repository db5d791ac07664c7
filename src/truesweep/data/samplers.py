"""The order of samples: a pure function of the seed and the step.

Which samples an optimizer step sees depends neither on the number of ranks nor on where training
was interrupted: both only choose from the same sequence of global batches.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from truesweep.data.batch import Step
from truesweep.data.ragged import Lengths

POOL = 50  # batches among which samples of similar length are brought together

TABLE = 1 << 24
"""Samples whose order is drawn as a table, 128 MiB in less than a second; that of more is computed
as it is needed."""
BLOCK = 64
"""Batches that are put in order at once, which takes a step's time for all of them."""
_ROUNDS = 6

Indices = npt.NDArray[np.int64]


class Order(Protocol):
    """Samples in the order in which they are taken, by slices."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, part: slice, /) -> Sequence[int] | Indices:
        """Those at consecutive places."""


class Scattered:
    """A permutation without a table, of which parts are asked for as slices: a Feistel network.

    It permutes the next power of four; what it puts out of range is put through it again, until it
    is in range.

    Args:
        count: How many there are.
        rng: Decides the permutation.
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count = count
        self._half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
        self._keys = rng.integers(1 << 64, size=_ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, part: slice) -> Indices:
        """What stands at some consecutive places, int64."""
        start, stop, _ = part.indices(self._count)
        places = self._permuted(np.arange(start, stop, dtype=np.uint64))
        while (out := places >= self._count).any():
            places[out] = self._permuted(places[out])
        return places.astype(np.int64)

    def _permuted(self, places: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        mask = (np.uint64(1) << self._half) - np.uint64(1)
        left, right = places >> self._half, places & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << self._half) | right


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A hash of each: SplitMix64's."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


class _Grouped:
    """An order whose batches are of samples of similar length; slices begin and end with batches.

    Args:
        order: All samples, in pools of `POOL` batches.
        batches: The order of the full batches.
        lengths: Tokens of each sample, int64 [N].
        batch_size: Samples in a batch.
    """

    def __init__(self, order: Order, batches: Order, lengths: Lengths, batch_size: int) -> None:
        self._order = order
        self._batches = batches
        self._lengths = lengths
        self._size = batch_size

    def __len__(self) -> int:
        """Samples."""
        return len(self._order)

    def __getitem__(self, part: slice) -> Indices:
        """The samples of consecutive batches."""
        start, stop, _ = part.indices(len(self))
        batches = range(start // self._size, -(-stop // self._size))
        return np.concatenate([self._batch(batch) for batch in batches])

    def _batch(self, batch: int) -> Indices:
        if batch < len(self._batches):  # the last batch, if it is not full, is not shuffled
            batch = int(self._batches[batch : batch + 1][0])
        pool, place = divmod(batch * self._size, POOL * self._size)
        start = pool * POOL * self._size
        samples = np.asarray(self._order[start : start + POOL * self._size])
        samples = samples[np.argsort(-self._lengths[samples], kind="stable")]
        return samples[place : place + self._size]


def epoch_order(
    lengths: Lengths, batch_size: int, seed: int, epoch: int, group_by_length: bool = False
) -> Indices:
    """The samples of an epoch in the order in which batches take them, int64 [N].

    With `group_by_length`, samples are sorted within pools of `POOL` batches and the full batches
    shuffled again, so that a batch pads little and pools still differ from epoch to epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    if not group_by_length:
        return order
    pools = np.arange(len(order)) // (POOL * batch_size)
    order = order[np.lexsort((-lengths[order], pools))]
    full = len(order) // batch_size
    batches = order[: full * batch_size].reshape(full, batch_size)
    return np.concatenate([batches[rng.permutation(full)].ravel(), order[full * batch_size :]])


def order_of_any(
    lengths: Lengths,
    batch_size: int,
    seed: int,
    epoch: int,
    group_by_length: bool = False,
    table: int | None = None,
) -> Order:
    """`epoch_order`; of more than `table` (`TABLE`) samples another one, which needs no memory."""
    if len(lengths) <= (TABLE if table is None else table):
        return epoch_order(lengths, batch_size, seed, epoch, group_by_length)
    rng = np.random.default_rng((seed, epoch))
    order = Scattered(len(lengths), rng)
    if not group_by_length:
        return order
    return _Grouped(order, Scattered(len(lengths) // batch_size, rng), lengths, batch_size)


class StepSampler(Sampler[Step]):
    """Global batches of an order, of which each rank takes its share.

    Args:
        lengths: Tokens of each sample, int64 [N].
        batch_size: Samples in a batch over all ranks; the last one may have fewer.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self, lengths: Lengths, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        self.lengths = lengths
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches in one pass over all samples."""
        return -(-len(self.lengths) // self.batch_size)

    def steps(self, order: Order, first: int = 0) -> Iterator[Step]:
        """This rank's share of each batch from number `first` on.

        A batch is sorted by length, longest first, and dealt out like cards: ranks and their
        micro-batches pad little.
        """
        size = self.batch_size
        for start in range(first * size, len(order), BLOCK * size):
            samples = np.asarray(order[start : start + BLOCK * size])
            batches = np.arange(len(samples)) // size
            samples = samples[np.lexsort((-self.lengths[samples], batches))]  # which is stable
            block = samples.tolist()
            for place in range(0, len(block), size):
                batch = block[place : place + size]
                yield Step(batch[self.rank :: self.world_size], len(batch))


class TrainSampler(StepSampler):
    """Optimizer steps of the epoch that contains step `start()`, from that step on.

    Its length is that of a whole epoch wherever it starts, as Lightning's own count expects.

    Args:
        lengths: Tokens of each sample, int64 [N].
        batch_size: Samples per optimizer step over all ranks.
        seed: Decides the order, together with the epoch.
        group_by_length: Let samples of similar length share a step.
        start: Optimizer steps done so far, asked whenever an epoch begins.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self,
        lengths: Lengths,
        batch_size: int,
        seed: int,
        *,
        group_by_length: bool = False,
        start: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(lengths, batch_size, rank, world_size)
        self.seed = seed
        self.group_by_length = group_by_length
        self.start = start

    def __iter__(self) -> Iterator[Step]:
        """Yield this rank's samples of each step, and the size of the whole step."""
        epoch, first = divmod(self.start(), len(self))
        return self.steps(self.order(epoch), first)

    def order(self, epoch: int) -> Order:
        """The samples of an epoch."""
        return order_of_any(
            self.lengths, self.batch_size, self.seed, epoch, group_by_length=self.group_by_length
        )


class EvalSampler(StepSampler):
    """Every sample exactly once over all ranks, the same number of batches on each.

    Rank r of n takes r, r+n, r+2n, … of the samples, which are sorted by length, longest first
    (those of equal length keep their order). A rank that has none left gets empty batches.

    Args:
        lengths: Tokens of each sample, int64 [N].
        batch_size: Samples per batch of one rank.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(
        self, lengths: Lengths, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(lengths, batch_size * world_size, rank, world_size)

    def __iter__(self) -> Iterator[Step]:
        """Yield this rank's samples of each batch, and the size of the batch over all ranks."""
        if not isinstance(self.lengths, np.ndarray):  # only the last one of a source is shorter
            return self.steps(range(len(self.lengths)))
        return self.steps(np.argsort(-self.lengths, kind="stable"))
