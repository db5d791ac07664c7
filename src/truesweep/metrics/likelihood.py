"""Negative log-likelihood, and the figures made of it: perplexity, bits per byte.

Shapes: `[..., V]` logits over a vocabulary of V, `[...]` labels, `IGNORED` where there is none.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from typing_extensions import override

from truesweep.compat import forget_value
from truesweep.figures import BITS_PER_BYTE, LOSS, PERPLEXITY
from truesweep.metrics.sums import SumMetric

IGNORED = -100

# Logits that are held in fp32 at a time: what a processor's cache holds (4 MiB), or what keeps a
# GPU busy (256 MiB).
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26


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
        _at_least_fp32(logits),
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
        cross_entropy(_at_least_fp32(x), y, ignore_index=IGNORED, reduction="none")
        for x, y in zip(logits.split(size), labels.split(size), strict=True)
    ]
    return (
        torch.cat(parts).view(rows, -1).sum(1, dtype=torch.float64),
        (labels != IGNORED).view(rows, -1).sum(1),
    )


def _type(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(_type(logits))


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
        lse, nll = (logits.new_empty(len(logits), dtype=_type(logits)) for _ in range(2))
        tensors = (logits, labels, lse, nll)
        for x, y, x_lse, x_nll in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            x = _at_least_fp32(x)
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
            part = (_at_least_fp32(x) - x_lse[:, None]).exp_()
            if ctx.label_smoothing:
                part -= ctx.label_smoothing / part.shape[-1]
            onehot = part.new_full((len(y), 1), ctx.label_smoothing - 1)
            part.scatter_add_(-1, y[:, None], onehot)
            torch.mul(part, weight[:, None], out=part)
            x_gradient.copy_(part)
        return gradient, None, None, None


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
