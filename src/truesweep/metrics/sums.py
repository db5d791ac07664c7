"""The base of this package's metrics."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from truesweep.compat import keep_types
from truesweep.figures import Figure, of_metric


@keep_types
class SumMetric(Metric):
    """A metric whose states are all sums, so any order, batching and sharing gives the same value.

    A rank may be left without samples when there are fewer of them than ranks: it takes part in
    the reduction with zeros, and is not warned about. States keep their types,
    whatever the model's: sums in bfloat16 would be rounded.
    """

    is_differentiable = False
    full_state_update = False
    figures: ClassVar[tuple[Figure, ...]]
    """What it computes: a number if there is one, a mapping by their names if there are several."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Say in torchmetrics' own way, too, which way is better."""
        super().__init_subclass__(**kwargs)
        if "figures" in vars(cls):
            first, *_ = of_metric(cls.__name__.lower(), cls)
            cls.higher_is_better = first.higher_is_better

    @property
    def update_called(self) -> bool:
        """Always true: no update is an update with nothing."""
        return True


class Count(SumMetric):
    """How many samples were evaluated, over all ranks."""

    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, count: int) -> None:
        """Add so many samples."""
        self.count += count

    def compute(self) -> Tensor:
        """The count, int64 scalar."""
        return self.count
