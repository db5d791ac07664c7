"""A task with the usual error: micro-batches count alike, however many targets they have."""

from typing import Any

import torch

from truesweep.tasks import Translation


class Averaging(Translation):
    """Averages over micro-batches what each of them averages over its targets."""

    def _backward(self, batch: dict[str, Any], total: torch.Tensor | int) -> torch.Tensor:
        parts = list(self._data.micro_batches(batch))
        sums = []
        for part in parts:
            loss, nll, count = self.loss(part)
            self.manual_backward(loss / count / len(parts))
            sums.append(nll.detach())
        return torch.stack(sums).sum()
