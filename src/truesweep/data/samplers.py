"""The order of samples: a pure function of the seed and the step.

Which samples an optimizer step sees depends neither on the number of ranks nor on where training
was interrupted: both only choose from the same sequence of global batches.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from truesweep.data.batch import Step
from truesweep.data.ragged import EvenLengths, Lengths

POOL = 50  # batches among which samples of similar length are brought together

Indices = npt.NDArray[np.int64]


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


class _StepSampler(Sampler[Step]):
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

    def steps(self, order: Indices | range, first: int = 0) -> Iterator[Step]:
        """This rank's share of each batch from number `first` on.

        A batch is sorted by length, longest first, and dealt out like cards: ranks and their
        micro-batches pad little.
        """
        for start in range(first * self.batch_size, len(order), self.batch_size):
            batch = np.asarray(order[start : start + self.batch_size])
            batch = batch[np.argsort(-self.lengths[batch], kind="stable")]
            yield Step(batch[self.rank :: self.world_size].tolist(), len(batch))


class TrainSampler(_StepSampler):
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
        order = epoch_order(
            self.lengths, self.batch_size, self.seed, epoch, group_by_length=self.group_by_length
        )
        return self.steps(order, first)


class EvalSampler(_StepSampler):
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
        if isinstance(self.lengths, EvenLengths):  # only the last one is shorter
            return self.steps(range(len(self.lengths)))
        return self.steps(np.argsort(-self.lengths, kind="stable"))
