"""What is counted between two rows of training metrics."""

import math
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from truesweep.tasks.devices import runs_ahead


class Progress:
    """Sums over the steps since the last row, and totals over the whole run.

    Tensors stay on their device until a row is due, so that counting never waits for it.

    Attributes:
        flops_per_target: Operations of forward and backward pass for one target; 0: not known.
        peak_flops: Operations a second that all devices together can do; None: not known.
    """

    def __init__(self) -> None:
        self.flops_per_target = 0.0
        self.peak_flops: float | None = None
        self.total_tokens: Tensor | float = 0.0
        self.skipped: Tensor | int = 0
        self.skipped_in_a_row: Tensor | int = 0
        self.gradient_norm: Tensor | float = 0.0
        self._nll: Tensor | float = 0.0
        self._count: Tensor | float = 0.0
        self._seconds = 0.0
        self._rated_tokens: Tensor | float = 0.0
        self._started = time.perf_counter()

    @property
    def tokens(self) -> int:
        """Targets trained on so far, over all ranks."""
        return int(self.total_tokens)

    def add(self, nll: Tensor, count: Tensor | int) -> None:
        """Count a step; of a skipped one, a loss that is not finite stays out of the row's mean.

        Args:
            nll: This rank's sum of negative log-likelihoods, nats.
            count: The step's targets over all ranks.
        """
        if runs_ahead(nll.device):
            self._add(nll.double(), count, nll.device)
        else:
            self._add(float(nll), int(count), nll.device)

    def _add(self, nll: Tensor | float, count: Tensor | int, device: torch.device) -> None:
        self._rated_tokens = self._rated_tokens + count
        self.total_tokens = self.total_tokens + count
        if isinstance(self.skipped_in_a_row, Tensor):
            nll, count = torch.as_tensor(nll), torch.as_tensor(count)
            whole = torch.as_tensor(_over_ranks(nll, device))
            left_out = (self.skipped_in_a_row > 0) & ~torch.isfinite(whole)
            nll, count = nll.masked_fill(left_out, 0), count.masked_fill(left_out, 0)
        # All ranks ask for the sum, also where one skips alone: the others would wait for it.
        elif not math.isfinite(_over_ranks(nll, device)) and self.skipped_in_a_row:
            return
        self._nll = self._nll + nll
        self._count = self._count + count

    def add_gradient(self, norm: Tensor, skipped: Tensor | bool) -> None:
        """Count a step's gradient, before the step itself.

        Args:
            norm: Of the gradient, before it was clipped.
            skipped: Whether it is not finite, so that the step is left out. As a tensor it stays
                where it is.
        """
        self.gradient_norm = norm
        self.skipped = self.skipped + skipped
        self.skipped_in_a_row = (self.skipped_in_a_row + skipped) * skipped

    def last_gradient(self, device: torch.device) -> Tensor:
        """Of the last step, 1 if it was skipped, and its gradient's norm if not; float64 [2]."""
        skipped = _on(self.skipped_in_a_row, device) > 0
        norm = _on(self.gradient_norm, device).double()
        return torch.stack([skipped.double(), norm.masked_fill(skipped, 0)])

    def take_row(self, lr: float, device: torch.device) -> dict[str, float]:
        """The metrics of the steps since the last row; starts the next one. All ranks call it.

        The loss is NaN where no step has one.

        Args:
            lr: The learning rate.
            device: What ranks tell each other by.
        """
        nll, count = float(_over_ranks(self._nll, device)), float(self._count)
        loss = nll / count if count else math.nan
        self.pause_clock()
        rate = float(self._rated_tokens) / max(self._seconds, 1e-9)
        row = {
            "train/loss": loss,
            "lr": lr,
            "grad_norm": float(self.gradient_norm),
            "tokens_per_second": rate,
        }
        if self.flops_per_target:
            row["flops_per_second"] = flops = rate * self.flops_per_target
            if self.peak_flops:
                row["mfu"] = flops / self.peak_flops
        if self.skipped:
            row["skipped_steps"] = float(self.skipped)
        self._nll = self._count = self._rated_tokens = self._seconds = 0.0
        self.start_clock()
        return row

    def pause_clock(self) -> None:
        """Leave out of the rate what is not training, from here on."""
        self._seconds += time.perf_counter() - self._started

    def start_clock(self) -> None:
        """Training goes on."""
        self._started = time.perf_counter()

    def state_dict(self, device: torch.device) -> dict[str, Any]:
        """Plain numbers; the sum over ranks stands for the ranks' sums. All ranks call it.

        Args:
            device: What ranks tell each other by.
        """
        return {
            "total_tokens": float(self.total_tokens),
            "skipped": int(self.skipped),
            "skipped_in_a_row": int(self.skipped_in_a_row),
            "nll": float(_over_ranks(self._nll, device)),
            "count": float(self._count),
        }

    def load_state_dict(self, state: dict[str, Any], first: bool) -> None:
        """Take up saved counts; one rank, the first, takes the sum over ranks."""
        self.total_tokens = state["total_tokens"]
        self.skipped = state["skipped"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self._nll = state["nll"] if first else 0.0
        self._count = state["count"]


def _on(number: Tensor | float, device: torch.device) -> Tensor:
    """A number on a device, without waiting for it, as for a copy."""
    if isinstance(number, Tensor):
        return number.to(device, non_blocking=True)
    return torch.full((), number, dtype=torch.float64, device=device)


def _over_ranks(nll: Tensor | float, device: torch.device) -> Tensor | float:
    """The sum over ranks, float64, on the device: GPUs exchange nothing that is elsewhere."""
    if not (dist.is_available() and dist.is_initialized()):
        return nll
    total = _on(nll, device).double().clone()
    dist.all_reduce(total)
    return total
