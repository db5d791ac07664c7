"""Muon for the hidden matrices and AdamW for everything else, as one optimizer."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Muon, Optimizer

from truesweep.compat import foreach, muon_rate, muon_states

_LERP, _LERP_, _MUL_ = map(foreach, ("lerp", "lerp_", "mul_"))
_MAX_BATCH = 1 << 24  # elements orthogonalised at once: 64 MiB in float32


FOUND_INF = "found_inf"
"""The attribute by which torch's optimizers are told, on their device, to skip a step: 1 or 0."""


def parts_of(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers that one is made of: itself, or the two of `MuonAdamW`."""
    return optimizer.parts if isinstance(optimizer, MuonAdamW) else [optimizer]


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Whether an optimizer skips steps as `set_found_inf` says: ours and torch's fused AdamW."""
    return all(
        isinstance(part, BatchedMuon) or (isinstance(part, Adam) and bool(part.defaults["fused"]))
        for part in parts_of(optimizer)
    )


def set_found_inf(optimizer: Optimizer, skipped: Tensor) -> None:
    """Have an optimizer change nothing at its next step, if that is to be skipped.

    Args:
        optimizer: One that `takes_found_inf`.
        skipped: Whether the gradient is not finite; a bool scalar on the weights' device, which is
            not waited for.
    """
    for part in parts_of(optimizer):
        setattr(part, FOUND_INF, skipped.float())


class MuonAdamW(Optimizer):
    """One optimizer to the outside, `torch.optim.Muon` and fused `torch.optim.AdamW` inside.

    Its `param_groups` are the very groups of the two, so that a schedule sets the learning rate
    of either as usual, and its state is one dict, so that `state_dict` is an ordinary one.

    Args:
        matrices: groups of 2-D parameters for Muon, each with its `lr` and `weight_decay`.
        others: groups for AdamW, likewise.
        muon: further arguments of `BatchedMuon`.
        adamw: further arguments of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        muon: dict[str, Any],
        adamw: dict[str, Any],
    ) -> None:
        self.parts: list[Optimizer] = [BatchedMuon(matrices, **muon)]
        if others:
            self.parts.append(AdamW(others, **adamw))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, for the same groups."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's groups and state, which loading replaces."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end


class BatchedMuon(Muon):
    """`torch.optim.Muon` with one batched product for all matrices of a shape.

    The same update up to rounding, in four fifths of the time on one CPU core and less on more.

    Args:
        dtype: what matrices are orthogonalised in, bfloat16 as torch does or wider.
        *args: as those of `torch.optim.Muon`.
        **kwargs: likewise.
    """

    def __init__(self, *args: Any, dtype: torch.dtype = torch.bfloat16, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params, grads, buffers = muon_states(self, group)
        if not params:
            return
        skipped: Tensor | None = getattr(self, FOUND_INF, None)
        decay: Tensor | float = 1 - group["lr"] * group["weight_decay"]
        if skipped is not None:
            # Momenta stay what they are where they are their own gradients.
            grads = [torch.where(skipped > 0, *own) for own in zip(buffers, grads, strict=True)]
            decay = torch.where(skipped > 0, 1.0, decay)
        _LERP_(buffers, grads, 1 - group["momentum"])
        updates: Sequence[Tensor] = buffers
        if group["nesterov"]:
            updates = _LERP(grads, buffers, group["momentum"])
        if group["weight_decay"]:
            _MUL_(params, decay)
        for batch in _batches(list(zip(params, updates, strict=True))):
            directions = orthogonalize(
                torch.stack([_wide(update.to(self._dtype)) for _, update in batch]),
                group["ns_coefficients"],
                group["ns_steps"],
                group["eps"],
            )
            if skipped is not None:
                directions *= 1 - skipped
            for (param, update), direction in zip(batch, directions, strict=True):
                rate = muon_rate(group, param.shape)
                same_way = direction if direction.shape == update.shape else direction.T
                param.add_(same_way, alpha=-rate)


def orthogonalize(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring the singular values of each matrix near 1 by Newton-Schulz iterations.

    X <- aX + (bA + cA^2)X with A = X X^T, from X scaled to a Frobenius norm of 1; see
    https://kellerjordan.github.io/posts/muon/.

    Args:
        matrices: [N, rows, columns], rows <= columns.
        coefficients: a, b and c.
        steps: how many iterations.
        eps: least norm that is divided by.

    Returns:
        [N, rows, columns], of the same type.
    """
    a, b, c = coefficients
    x: Tensor = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _batches(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Pairs of parameter and update whose shapes agree up to transposition, a bounded number."""
    alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for pair in pairs:
        rows, columns = _wide(pair[1]).shape
        alike[rows, columns].append(pair)
    for (rows, columns), found in alike.items():
        size = max(1, _MAX_BATCH // (rows * columns))
        yield from (found[start : start + size] for start in range(0, len(found), size))


def _wide(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has no more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
