"""The base of this package's metrics."""

from torchmetrics import Metric


class SumMetric(Metric):
    """A metric whose states are all sums, so any order, batching and sharing gives the same value.

    A rank may be left without samples when there are fewer of them than ranks: it takes part in
    the reduction with zeros, and is not warned about.
    """

    is_differentiable = False
    full_state_update = False

    @property
    def update_called(self) -> bool:
        """Always true: no update is an update with nothing."""
        return True
