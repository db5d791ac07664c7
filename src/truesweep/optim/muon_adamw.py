"""Muon for the hidden matrices and AdamW for everything else, as one optimizer."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

from truesweep.compat import foreach, muon_rate, muon_states

_LERP, _LERP_, _MUL_ = map(foreach, ("lerp", "lerp_", "mul_"))
_MAX_BATCH = 1 << 24  # elements orthogonalised at once: 64 MiB in float32


FOUND_INF = "found_inf"
"""The attribute by which torch's optimizers are told, on their device, to skip a step: 1 or 0."""


def parts_of(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers that one is made of: itself, or the two of `MuonAdamW`."""
    return optimizer.parts if isinstance(optimizer, MuonAdamW) else [optimizer]


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Whether an optimizer skips steps as `set_found_inf` says: ours and torch's fused ones."""
    return all(
        isinstance(part, BatchedMuon)
        or (isinstance(part, Adam | SGD) and bool(part.defaults["fused"]))
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
        if isinstance(part, SGD) and not part.state:
            _begin_momenta(part)


def _begin_momenta(optimizer: SGD) -> None:
    """Begin momenta at zero: a first step that is skipped would leave them what memory held."""
    for group in optimizer.param_groups:
        if group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def compile_ahead(optimizer: Optimizer) -> None:
    """Compile what an optimizer does, of what is not one operation already: Muon's batches.

    Raises:
        Exception: The compiler fails, and the optimizer does without it.
    """
    for part in parts_of(optimizer):
        if isinstance(part, BatchedMuon):
            part.compile_ahead()


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
        self._compiled: Callable[..., None] | None = None

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
        skipped: Tensor | None = getattr(self, FOUND_INF, None)
        for batch in _batches(list(zip(params, grads, buffers, strict=True))):
            own, of_own, momenta = (list(kind) for kind in zip(*batch, strict=True))
            if self._compiled is None:
                decay, rates = self._rates(group, own)
                _update(own, of_own, momenta, skipped, decay, rates, self._how(group))
            else:
                with torch.compiler.set_stance("eager_on_recompile"):
                    self._update_compiled(own, of_own, momenta, skipped, group)

    def compile_ahead(self) -> None:
        """Have torch compile the update of each batch now, and none later, amid a step.

        Nothing is changed by it. What a step has not as it was foreseen here, such as a matrix
        without a gradient, is updated one operation after the other.

        Raises:
            Exception: The compiler fails; all is then done one operation after the other.
        """
        self._compiled = torch.compile(_update, dynamic=False, fullgraph=True)
        batches = [
            (group, [param for (param,) in batch])
            for group in self.param_groups
            for batch in _batches([(p,) for p in group["params"] if p.requires_grad])
        ]
        batches.sort(key=lambda one: -sum(param.numel() for param in one[1]))
        try:
            for group, params in batches[:MOST_GRAPHS]:
                like = [torch.zeros_like(param) for param in params]
                # What it is compiled for has the types of what a step has.
                self._update_compiled(
                    [nn.Parameter(zeros.clone()) for zeros in like],
                    like,
                    [zeros.clone() for zeros in like],
                    None,
                    group,
                )
        except BaseException:
            self._compiled = None
            raise

    @torch.no_grad()
    def _update_compiled(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        buffers: Sequence[Tensor],
        skipped: Tensor | None,
        group: dict[str, Any],
    ) -> None:
        """`_update` with rates as tensors, so that a schedule's are none of the program's."""
        assert self._compiled is not None
        device, (decay, rates) = params[0].device, self._rates(group, params)
        # Made where they are used: a copy would be waited for.
        numbers = {rate: _scalar(rate, device) for rate in dict.fromkeys(rates)}
        if skipped is None:
            skipped = torch.zeros((), device=device)
        of_each, how = [numbers[rate] for rate in rates], self._how(group)
        self._compiled(params, grads, buffers, skipped, _scalar(decay, device), of_each, how)

    @staticmethod
    def _rates(group: dict[str, Any], params: Sequence[Tensor]) -> tuple[float, list[float]]:
        """What weights are multiplied by, and the learning rate of each."""
        decay = 1 - group["lr"] * group["weight_decay"]
        return decay, [muon_rate(group, param.shape) for param in params]

    def _how(self, group: dict[str, Any]) -> "How":
        keys = "momentum", "nesterov", "ns_coefficients", "ns_steps", "eps"
        return How(self._dtype, bool(group["weight_decay"]), *(group[key] for key in keys))


MOST_GRAPHS = 8
"""Batches that are compiled at most, the largest; torch keeps no more programs of one function."""


class How(NamedTuple):
    """What is the same in all updates of a batch.

    Args:
        dtype: What matrices are orthogonalised in.
        decays: Whether weights decay at all.
        momentum: Of the averages.
        nesterov: Whether updates look one step of momentum ahead.
        coefficients: See `orthogonalize`.
        steps: Likewise.
        eps: Likewise.
    """

    dtype: torch.dtype
    decays: bool
    momentum: float
    nesterov: bool
    coefficients: tuple[float, float, float]
    steps: int
    eps: float


def _update(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    skipped: Tensor | None,
    decay: Tensor | float,
    rates: Sequence[Tensor | float],
    how: How,
) -> None:
    """Update matrices whose shapes agree up to transposition, and their momenta, in place.

    Args:
        params: The matrices.
        grads: Their gradients.
        buffers: Their momenta.
        skipped: 1 where nothing is to change, else 0; a scalar, or none.
        decay: What the matrices are multiplied by.
        rates: The learning rate of each.
        how: All else.
    """
    if skipped is not None:
        # Momenta stay what they are where they are their own gradients.
        grads = [torch.where(skipped > 0, *own) for own in zip(buffers, grads, strict=True)]
        decay = torch.where(skipped > 0, 1.0, decay)
    _LERP_(buffers, grads, 1 - how.momentum)
    updates: Sequence[Tensor] = buffers
    if how.nesterov:
        updates = _LERP(grads, buffers, how.momentum)
    if how.decays:
        _MUL_(params, decay)
    wide = torch.stack([_wide(update.to(how.dtype)) for update in updates])
    directions = orthogonalize(wide, how.coefficients, how.steps, how.eps)
    if skipped is not None:
        directions *= 1 - skipped
    for param, direction, rate in zip(params, directions, rates, strict=True):
        same_way = direction if direction.shape == param.shape else direction.T
        if isinstance(rate, Tensor):
            param.sub_(same_way.to(param.dtype) * rate)
        else:
            param.add_(same_way, alpha=-rate)


def _scalar(number: float, device: torch.device) -> Tensor:
    return torch.full((), number, dtype=torch.float64, device=device)


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


def _batches(tensors: list[tuple[Tensor, ...]]) -> Iterator[list[tuple[Tensor, ...]]]:
    """What belongs to parameters whose shapes agree up to transposition, a bounded number.

    Args:
        tensors: Of each parameter, itself and what else there is of it.
    """
    alike: dict[tuple[int, int], list[tuple[Tensor, ...]]] = defaultdict(list)
    for own in tensors:
        rows, columns = _wide(own[0]).shape
        alike[rows, columns].append(own)
    for (rows, columns), found in alike.items():
        size = max(1, _MAX_BATCH // (rows * columns))
        yield from (found[start : start + size] for start in range(0, len(found), size))


def _wide(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has no more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
