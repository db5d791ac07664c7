"""Negative log-likelihood, and the figures made of it: perplexity, bits per byte.

Shapes: `[..., V]` logits over a vocabulary of V, `[...]` labels, `IGNORED` where there is none;
`[..., D]` features that a linear layer `[V, D]` makes logits of.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear, pad
from typing_extensions import override

from truesweep.compat import forget_value
from truesweep.figures import BITS_PER_BYTE, LOSS, PERPLEXITY, Figure
from truesweep.metrics.sums import SumMetric

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""

# Logits that are held in fp32 at a time: what a processor's cache holds (4 MiB), or what keeps a
# GPU busy (256 MiB).
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26

# Logits that `linear_nll` holds at a time, and rows for which a product with the whole layer is
# worth its while: each adds to a gradient as large as the layer.
CPU_BLOCK, GPU_BLOCK = 2**24, 2**27
LEAST_ROWS = 512
ALIGNED = 64
"""What a GPU's kernels want a vocabulary to be a multiple of; others take several times as long."""
FEW_TOKENS = 512
"""A vocabulary whose products are over soon, whatever kernel does them."""


def token_nll(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sum the negative log-likelihood of `labels` under `logits`.

    The log-softmax is taken in fp32 whatever the type of the logits, or in fp64 where they are
    fp64. More than `chunk` logits are taken a part at a time, forward and backward, so that no
    second copy of all of them exists besides their gradient.

    Args:
        logits: `[..., V]`, of any floating type.
        labels: `[...]`, int64; positions of `IGNORED` count for nothing.
        label_smoothing: the share of a label's weight that is spread over the vocabulary, as in
            `torch.nn.functional.cross_entropy`.
        chunk: logits in fp32 at a time; by default `CPU_CHUNK` or `GPU_CHUNK`.

    Returns:
        The sum in nats, fp32 or fp64 and differentiable once, and the number of labels, int64.
    """
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    count = (labels != IGNORED).sum()
    chunk = chunk or (GPU_CHUNK if logits.is_cuda else CPU_CHUNK)
    if logits.numel() > chunk:
        rows = max(1, chunk // logits.shape[-1])
        return _ChunkedNll.apply(logits, labels, label_smoothing, rows), count
    nll_sum = cross_entropy(
        logits.to(_at_least_fp32(logits)),
        labels,
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return nll_sum, count


@torch.no_grad()
def nll_by_row(logits: Tensor, labels: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """The same, apart for each row of a batch of B, and not differentiable.

    Returns:
        Sums in nats, float64 [B], and numbers of labels, int64 [B].
    """
    rows = len(labels)
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    size = max(1, (chunk or (GPU_CHUNK if logits.is_cuda else CPU_CHUNK)) // logits.shape[-1])
    parts = [
        cross_entropy(x.to(_at_least_fp32(x)), y, ignore_index=IGNORED, reduction="none")
        for x, y in zip(logits.split(size), labels.split(size), strict=True)
    ]
    return (
        torch.cat(parts).view(rows, -1).sum(1, dtype=torch.float64),
        (labels != IGNORED).view(rows, -1).sum(1),
    )


def correct_by_row(logits: Tensor, labels: Tensor) -> Tensor:
    """How many labels of each row of a batch of B are the likeliest, int64 [B]."""
    return ((logits.argmax(-1) == labels) & (labels != IGNORED)).sum(1)


def is_many(rows: int, vocabulary: int, device: torch.device) -> bool:
    """Whether so many logits take memory that `linear_nll` would spare, or its filling up time."""
    odd = device.type == "cuda" and vocabulary > FEW_TOKENS and vocabulary % ALIGNED > 0
    return odd or rows * vocabulary > _block(device)


def linear_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float = 0.0,
    rows: int | None = None,
    multiple: int | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`token_nll` of the logits that a linear layer makes, which never exist all at once.

    Gradients are computed together with the sum, a block of rows at a time, as in Liger's kernels;
    products have autocast's type where that is on, all else is in fp32 or fp64. Not torch's
    `linear_cross_entropy` (since 2.13): it takes three times as long on a CPU, and does not give
    the likelihood without smoothing besides the smoothed loss.

    Args:
        hidden: `[..., D]`, of any floating type.
        weight: `[V, D]`.
        bias: `[V]`, or none.
        labels: `[...]`, int64; positions of `IGNORED` count for nothing.
        label_smoothing: as in `token_nll`.
        rows: rows of logits at a time; by default as many as `CPU_BLOCK` or `GPU_BLOCK` holds.
        multiple: what V is filled up to a multiple of, in the products only; by default `ALIGNED`
            on a GPU.
        compiled: whether torch's compiler makes one pass of what is done with the logits.

    Returns:
        The sum in nats with smoothing, fp32 or fp64 and differentiable once; the sum without it,
        not differentiable; and the number of labels, int64.
    """
    hidden, labels = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    rows = rows or _rows(weight)
    multiple = multiple or (ALIGNED if weight.is_cuda else 1)
    asked = label_smoothing, rows, multiple, compiled
    loss, nll = _LinearNll.apply(hidden, weight, bias, labels, *asked)
    return loss, nll, (labels != IGNORED).sum()


@torch.no_grad()
def linear_nll_by_row(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    rows: int | None = None,
    multiple: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`nll_by_row` of the logits that a linear layer makes, which never exist all at once."""
    flat = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    blocks = zip(*(tensor.split(rows or _rows(weight)) for tensor in flat), strict=True)
    matrix, offset = _filled_up(weight, bias, multiple or (ALIGNED if weight.is_cuda else 1))
    parts = [nll_by_row(linear(x, matrix, offset)[:, : len(weight)], y)[0] for x, y in blocks]
    return (
        torch.cat(parts).view(len(labels), -1).sum(1),
        (labels != IGNORED).view(len(labels), -1).sum(1),
    )


def _filled_up(weight: Tensor, bias: Tensor | None, multiple: int) -> tuple[Tensor, Tensor | None]:
    """A layer with as many more outputs, all nought, as make their number a multiple."""
    fill = -len(weight) % multiple
    if not fill:
        return weight, bias
    return pad(weight, (0, 0, 0, fill)), None if bias is None else pad(bias, (0, fill))


def _block(device: torch.device) -> int:
    return GPU_BLOCK if device.type == "cuda" else CPU_BLOCK


def _rows(weight: Tensor) -> int:
    return max(LEAST_ROWS, _block(weight.device) // len(weight))


def _at_least_fp32(tensor: Tensor) -> torch.dtype:
    """The type that sums over a vocabulary are taken in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


class _ChunkedNll(torch.autograd.Function):
    """The sum over N rows of lse(x) - (1 - s) x[y] - s mean(x), of `rows` rows at a time.

    lse is log-sum-exp, x the logits of a row, y its label, s the label smoothing. With lse kept,
    the gradient softmax(x) - (1 - s) onehot(y) - s / V takes one more pass over the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float, rows: int
    ) -> Tensor:
        valid, labels = labels != IGNORED, labels.clamp(min=0)
        lse, nll = (logits.new_empty(len(logits), dtype=_at_least_fp32(logits)) for _ in range(2))
        tensors = (logits, labels, lse, nll)
        for x, y, x_lse, x_nll in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            x = x.to(lse.dtype)
            torch.logsumexp(x, -1, out=x_lse)
            target = x.gather(-1, y[:, None]).squeeze(-1)
            torch.sub(x_lse, target, alpha=1 - label_smoothing, out=x_nll)
            if label_smoothing:
                x_nll -= label_smoothing * x.mean(-1)
        ctx.save_for_backward(logits, labels, lse, valid)
        ctx.label_smoothing, ctx.rows = label_smoothing, rows
        return nll.where(valid, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        logits, labels, lse, valid = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        tensors = (logits, labels, lse, valid * scale, gradient)
        chunks = zip(*(tensor.split(ctx.rows) for tensor in tensors), strict=True)
        for x, y, x_lse, weight, x_gradient in chunks:
            part = (x.to(lse.dtype) - x_lse[:, None]).exp_()
            if ctx.label_smoothing:
                part -= ctx.label_smoothing / part.shape[-1]
            onehot = part.new_full((len(y), 1), ctx.label_smoothing - 1)
            part.scatter_add_(-1, y[:, None], onehot)
            torch.mul(part, weight[:, None], out=part)
            x_gradient.copy_(part)
        return gradient, None, None, None


class _LinearNll(torch.autograd.Function):
    """The sum of `_ChunkedNll` over x = W h + b, and that without smoothing, by blocks of rows.

    A block's logits become their gradient g in place. Then h has the gradient Wᵀ g, and W the sum
    of g hᵀ over all blocks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        label_smoothing: float,
        rows: int,
        multiple: int,
        compiled: bool,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        vocabulary = len(weight)
        offset = None if bias is None else bias.to(dtype)
        matrix, offset = _filled_up(weight.to(dtype), offset, multiple)
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        wide = _at_least_fp32(matrix)
        sums = torch.zeros(2, dtype=wide, device=hidden.device)
        ctx.hidden = torch.empty_like(hidden) if of_hidden else None
        ctx.weight = torch.zeros_like(matrix, dtype=wide) if of_weight else None
        ctx.bias = torch.zeros(vocabulary, dtype=wide, device=hidden.device) if of_bias else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), rows):
                block = slice(start, start + rows)
                features, targets = hidden[block].to(dtype), labels[block]
                valid = (targets != IGNORED)[:, None]
                logits = linear(features, matrix, offset)
                x = logits[:, :vocabulary]  # those that fill up are nought, their gradients too
                sums += _to_gradients(x, targets.clamp(min=0), valid, label_smoothing, compiled)
                if ctx.hidden is not None:
                    ctx.hidden[block] = (logits @ matrix).masked_fill_(~valid, 0)
                if ctx.weight is not None:
                    _add_product(ctx.weight, logits.mT, features.masked_fill(~valid, 0))
                if ctx.bias is not None:
                    ctx.bias += x.masked_fill(~valid, 0).sum(0, dtype=wide)
                del logits, x  # before the next ones are made
        ctx.types, ctx.vocabulary = (weight.dtype, bias if bias is None else bias.dtype), vocabulary
        loss, nll = sums.unbind()
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In place: another copy would be as large as the layer. So there is no second time.
        hidden, weight, bias = ctx.hidden, ctx.weight, ctx.bias
        del ctx.hidden, ctx.weight, ctx.bias
        of_weight, of_bias = ctx.types
        return (
            None if hidden is None else hidden.mul_(scale),
            None if weight is None else weight[: ctx.vocabulary].mul_(scale).to(of_weight),
            None if bias is None else bias.mul_(scale).to(of_bias),
            *([None] * 5),
        )


def _to_gradients(
    x: Tensor, labels: Tensor, valid: Tensor, label_smoothing: float, compiled: bool
) -> Tensor:
    """Replace logits [n, V] by the gradients of their rows' losses; the sums, [2], of valid rows.

    Rows that are not valid [n, 1] get a gradient, too.
    """
    size = max(1, (GPU_CHUNK if x.is_cuda else CPU_CHUNK) // x.shape[-1])
    parts = zip(*(tensor.split(size) for tensor in (x, labels[:, None], valid)), strict=True)
    step = _compiled_step() if compiled else _step
    return torch.stack([step(p, y, c, label_smoothing, compiled) for p, y, c in parts]).sum(0)


def _step(
    part: Tensor, label: Tensor, counts: Tensor, label_smoothing: float, in_one_pass: bool
) -> Tensor:
    """`_to_gradients` of as many rows as are in fp32 at a time; labels are [n, 1].

    Args:
        part: The logits.
        label: The labels.
        counts: Which rows are valid.
        label_smoothing: As in `token_nll`.
        in_one_pass: Whether every logit is looked at for its label: nothing to a compiler, which
            would else write all probabilities down, and a pass more without one.
    """
    log_p = torch.log_softmax(part, -1, dtype=_at_least_fp32(part))
    nll = -log_p.gather(-1, label)
    loss = nll
    if label_smoothing:
        loss = nll * (1 - label_smoothing) - label_smoothing * log_p.mean(-1, keepdim=True)
    sums = torch.cat([loss, nll], -1).masked_fill(~counts, 0).sum(0)
    p = log_p.exp_()
    if label_smoothing:
        p -= label_smoothing / p.shape[-1]
    if in_one_pass:
        is_label = torch.arange(p.shape[-1], device=p.device) == label
        p = p - is_label.to(p.dtype) * (1 - label_smoothing)
    else:
        p.scatter_add_(-1, label, p.new_full(label.shape, label_smoothing - 1))
    part.copy_(p)
    return sums


@cache
def _compiled_step() -> Callable[..., Tensor]:
    return torch.compile(_step)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a product in fp32 or wider, whatever its factors are in."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class NegativeLogLikelihood(SumMetric):
    """Mean negative log-likelihood of the labels, in nats; NaN without any.

    The mean is over all labels of all batches and ranks, from sums in float64.
    """

    figures = (LOSS,)
    nll_sum: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("nll_sum", zero, dist_reduce_fx="sum")
        self.add_state("count", zero.clone(), dist_reduce_fx="sum")

    @override
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch, see `token_nll`."""
        self.update_sums(*token_nll(logits, labels))

    def update_sums(self, nll_sum: Tensor, count: Tensor | int) -> None:
        """Add a batch of which `token_nll` is known."""
        forget_value(self)
        self.nll_sum += nll_sum.detach()
        self.count += count

    @override
    def compute(self) -> Tensor:
        return self.nll_sum / self.count


class Perplexity(NegativeLogLikelihood):
    """The exponential of the mean negative log-likelihood, in float64.

    Unlike the mean of batches' perplexities, and unlike a perplexity from softmax probabilities,
    it depends on no batching and is finite up to 709 nats.
    """

    figures = (PERPLEXITY,)

    @override
    def compute(self) -> Tensor:
        return super().compute().exp()


class BitsPerByte(NegativeLogLikelihood):
    """Bits needed per byte of the text, which compares models with different tokenizers.

    Args:
        bytes_per_target: bytes of UTF-8 text per label, over the whole split.
    """

    figures = (BITS_PER_BYTE,)

    def __init__(self, bytes_per_target: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bytes_per_target = bytes_per_target

    @override
    def compute(self) -> Tensor:
        return super().compute() / (math.log(2) * self.bytes_per_target)


class TokenAccuracy(SumMetric):
    """The share of tokens that the model holds to be the likeliest."""

    figures = (
        Figure("accuracy", higher_is_better=True, samples=("correct", "count"), per_token=True),
    )
    correct: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("correct", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @override
    def update(self, correct: Tensor, count: Tensor) -> None:
        """Add so many tokens that were found, of so many."""
        self.correct += correct.sum()
        self.count += count.sum()

    @override
    def compute(self) -> Tensor:
        """The share, float64 scalar; NaN of no token."""
        return self.correct.double() / self.count
