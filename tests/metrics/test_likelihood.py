import math
import pickle
import warnings

import pytest
import torch
import torchmetrics.text as torchmetrics_text
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from tests.rounding import assert_rounded
from truesweep.metrics.likelihood import (
    IGNORED,
    BitsPerByte,
    NegativeLogLikelihood,
    Perplexity,
    TokenAccuracy,
    correct_by_row,
    is_many,
    linear_nll,
    linear_nll_by_row,
    nll_by_row,
    token_nll,
)

pytestmark = pytest.mark.numbers

V = 37


def batch(
    size: int = 4, length: int = 9, dtype: torch.dtype = torch.float32, scale: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Logits `[size, length, V]` and labels, about a fifth of them ignored."""
    generator = torch.Generator().manual_seed(size * length)
    logits = scale * torch.randn(size, length, V, generator=generator)
    labels = torch.randint(V, (size, length), generator=generator)
    labels[torch.rand(size, length, generator=generator) < 0.2] = IGNORED
    return logits.to(dtype), labels


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [None, 5 * V, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_sum_and_its_gradient_are_those_in_float64(
    dtype: torch.dtype, chunk: int | None, smoothing: float
) -> None:
    logits, labels = batch(dtype=dtype)
    logits.requires_grad_()
    nll_sum, count = token_nll(logits, labels, smoothing, chunk)
    (nll_sum / 7).backward()

    exact = logits.detach().double().requires_grad_()
    expected = cross_entropy(
        exact.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing
    )
    (expected / 7).backward()
    fp64 = dtype == torch.float64
    assert nll_sum.dtype == (torch.float64 if fp64 else torch.float32)
    assert int(count) == int((labels != IGNORED).sum())
    with torch.no_grad():
        sizes, probabilities, spread = sizes_of_terms(exact, labels, smoothing)
    # Each of the labels' terms is rounded a few times; adding n terms up rounds n times by half.
    rounded = torch.float64 if fp64 else torch.float32
    assert_rounded(nll_sum, expected, sizes.sum(), ulps=4 + int(count) / 2, dtype=rounded)
    assert logits.grad is not None
    assert exact.grad is not None
    # exp(x - lse) is as wrong, relatively, as its exponent is absolutely.
    terms = (probabilities * (1 + sizes[:, None]) + spread) / 7
    assert_rounded(logits.grad, exact.grad, terms.view_as(exact), ulps=4, dtype=rounded)


def sizes_of_terms(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, ...]:
    """What the likelihoods of n labels and their gradients are summed from, nought where none is.

    Returns:
        [n], the largest sizes of a logit, or of the log-sum-exp, and [n, V] twice: the
        probabilities, and the smoothed labels.
    """
    logits, labels = logits.flatten(0, 1), labels.flatten()
    valid = (labels != IGNORED).double()
    sizes = 2 * torch.maximum(logits.abs().amax(-1), logits.logsumexp(-1).abs())
    onehot = torch.nn.functional.one_hot(labels.clamp(min=0), V)
    spread = (1 - smoothing) * onehot + smoothing / V
    return sizes * valid, logits.softmax(-1) * valid[:, None], spread * valid[:, None]


class LargestFloat(TorchDispatchMode):
    """Notes the largest fp32 tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            self.largest = max(self.largest, result.numel())
        return result


def test_no_fp32_copy_is_larger_than_a_chunk() -> None:
    logits, labels = batch(32, 32, torch.bfloat16)
    logits.requires_grad_()
    with LargestFloat() as seen:
        token_nll(logits, labels, 0.1, chunk=64 * V)[0].backward()
    assert 0 < seen.largest <= max(64 * V, labels.numel())
    with LargestFloat() as seen:
        token_nll(logits, labels, 0.1, chunk=2**30)[0].backward()
    assert seen.largest == logits.numel(), "the test can see a copy"


D = 11


def layer(dtype: torch.dtype, biased: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Features [4, 9, D], a layer's weight [V, D] and bias [V], labels."""
    generator = torch.Generator().manual_seed(7)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in ((4, 9, D), (V, D), (V,))
    )
    return hidden, weight, bias if biased else None, batch()[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("rows", "multiple"), [(None, 1), (5, 1), (5, 64), (1, 8)])
@pytest.mark.parametrize(("smoothing", "biased"), [(0.0, False), (0.1, True)])
def test_a_loss_through_its_layer_is_that_in_float64_with_all_gradients(
    dtype: torch.dtype, rows: int | None, multiple: int, smoothing: float, biased: bool
) -> None:
    hidden, weight, bias, labels = layer(dtype, biased)
    given = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    loss, nll, count = linear_nll(hidden, weight, bias, labels, smoothing, rows, multiple)
    (loss / 7).backward()

    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    logits = torch.nn.functional.linear(*exact)
    logits.retain_grad()
    found = logits.flatten(0, 1), labels.flatten()
    expected = cross_entropy(*found, reduction="sum", label_smoothing=smoothing)
    (expected / 7).backward()
    with torch.no_grad():
        sizes, probabilities, spread = sizes_of_terms(logits, labels, smoothing)
        inputs = exact[0].flatten(0, 1).abs()
        products = inputs @ exact[1].abs().T + (0 if bias is None else exact[2].abs())
        # A logit is a sum of D terms, and rounded as often.
        errors = D * products.amax(-1)
        valid = labels.flatten() != IGNORED
        n = int(count)
        assert n == int(valid.sum())
        ulps = 4 + n / 2
        assert_rounded(loss, expected, (sizes + errors * valid).sum(), ulps=ulps, dtype=dtype)
        plain = cross_entropy(*found, reduction="sum")
        assert_rounded(nll, plain, (sizes + errors * valid).sum(), ulps=ulps, dtype=dtype)
        terms = (probabilities * (1 + sizes + errors)[:, None] + spread) / 7
        of_terms = [terms @ exact[1].abs(), terms.T @ inputs, terms.sum(0)]
        for tensor, other, size, added in zip(given, exact, of_terms, (V, n, n), strict=False):
            assert tensor.grad is not None
            assert other.grad is not None
            size = size.view_as(other)
            assert_rounded(tensor.grad, other.grad, size, ulps=4 + added / 2, dtype=dtype)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # its own
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_that_is_compiled_is_the_same(smoothing: float) -> None:
    found = []
    for compiled in (False, True):
        hidden, weight, bias, labels = layer(torch.float32, biased=True)
        assert bias is not None
        asked = smoothing, 5, 8, compiled
        loss, nll, _ = linear_nll(hidden, weight, bias, labels, *asked)
        loss.backward()
        found.append([loss, nll, hidden.grad, weight.grad, bias.grad])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_under_autocast_a_loss_through_its_layer_is_as_near_as_that_of_its_logits(
    smoothing: float,
) -> None:
    exact: list[Tensor] = []
    off: list[list[float]] = []
    for way in ("exact", "logits", "layer"):
        hidden, weight, _, labels = layer(torch.float32, biased=False)
        if way == "exact":
            hidden, weight = (t.detach().double().requires_grad_() for t in (hidden, weight))
        with torch.autocast("cpu", torch.bfloat16, enabled=way != "exact"):
            if way == "layer":
                loss, _, _ = linear_nll(hidden, weight, None, labels, smoothing, 5)
            else:
                loss, _ = token_nll(torch.nn.functional.linear(hidden, weight), labels, smoothing)
        loss.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        found = [loss.detach(), hidden.grad, weight.grad]
        if way == "exact":
            exact = found
            continue
        assert all(t.dtype == torch.float32 for t in found)
        off.append([float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)])
    of_logits, of_layer = off
    assert all(x < 2**-6 for x in of_logits), "products are in bf16"
    assert all(
        ours < 1.5 * theirs + 2**-10 for ours, theirs in zip(of_layer, of_logits, strict=True)
    )


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_the_likelihoods_of_rows_through_a_layer_are_those_of_its_logits(
    biased: bool, multiple: int
) -> None:
    hidden, weight, bias, labels = layer(torch.float64, biased)
    nll, count = linear_nll_by_row(hidden, weight, bias, labels, rows=5, multiple=multiple)
    expected, counts = nll_by_row(torch.nn.functional.linear(hidden, weight, bias), labels)
    assert nll.dtype == torch.float64
    torch.testing.assert_close(nll, expected, rtol=1e-13, atol=0)
    assert torch.equal(count, counts)


@pytest.mark.parametrize(
    ("vocabulary", "device", "through_layer"),
    [
        (50_257, "cuda", True),
        (50_304, "cuda", False),
        (97, "cuda", False),
        (50_257, "cpu", False),
        (2**28, "cpu", True),
    ],
)
def test_an_odd_vocabulary_is_filled_up_for_a_gpu(
    vocabulary: int, device: str, through_layer: bool
) -> None:
    assert is_many(8, vocabulary, torch.device(device)) == through_layer


def test_logits_of_a_layer_exist_a_block_at_a_time() -> None:
    hidden, weight, _, labels = layer(torch.float32, biased=False)
    with LargestFloat() as seen:
        linear_nll(hidden, weight, None, labels, rows=4)[0].backward()
    assert seen.largest <= max(hidden.numel(), weight.numel())
    with LargestFloat() as seen:
        token_nll(torch.nn.functional.linear(hidden, weight), labels)[0].backward()
    assert seen.largest == labels.numel() * V, "the test can see them"


@pytest.mark.parametrize("chunk", [None, 5 * V])
def test_without_any_label_the_sum_and_the_gradient_are_zero(chunk: int | None) -> None:
    logits, labels = batch()
    logits.requires_grad_()
    nll_sum, count = token_nll(logits, torch.full_like(labels, IGNORED), chunk=chunk)
    nll_sum.backward()
    assert (nll_sum.item(), int(count)) == (0.0, 0)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_perplexity_that_softmax_cannot_give(dtype: torch.dtype) -> None:
    logits, labels = torch.zeros(1, 4, 2, dtype=dtype), torch.zeros(1, 4, dtype=torch.int64)
    logits[..., 1] = 50.0
    ours, theirs = Perplexity(), torchmetrics_text.Perplexity()
    ours.update(logits, labels)
    assert ours.compute().item() == pytest.approx(5.184705528587072e21, rel=1e-9)
    theirs.update(logits, labels)
    if dtype == torch.float16:
        assert theirs.compute().item() == math.inf, "the trap is still there"


def test_the_perplexity_is_torchmetrics_where_that_is_right() -> None:
    ours, theirs = Perplexity(), torchmetrics_text.Perplexity(ignore_index=IGNORED)
    for size in (1, 3, 4):
        logits, labels = batch(size)
        ours.update(logits, labels)
        theirs.update(logits, labels)
    assert ours.compute().item() == pytest.approx(theirs.compute().item(), rel=1e-5)


def test_no_batching_changes_the_figures() -> None:
    logits, labels = batch(8)
    metrics = [NegativeLogLikelihood() for _ in range(3)]
    metrics[0].update(logits, labels)
    for row in range(8):
        metrics[1].update(logits[row : row + 1], labels[row : row + 1])
        metrics[2].update_sums(*token_nll(logits[row], labels[row]))
        metrics[2].compute()  # a cached figure must not stay
    expected = cross_entropy(logits.double().flatten(0, 1), labels.flatten()).item()
    for metric in metrics:
        assert metric.compute().item() == pytest.approx(expected, rel=1e-6)
        assert metric.count.item() == (labels != IGNORED).sum().item()


def test_the_sums_are_in_float64_whatever_the_model_is_in() -> None:
    module = torch.nn.Module()
    module.metric = NegativeLogLikelihood()
    module.half()
    for _ in range(1000):
        module.metric.update_sums(torch.tensor(1.0 + 2.0**-20), 1)
    assert module.metric.compute().dtype == torch.float64
    assert module.metric.compute().item() == 1.0 + 2.0**-20


def test_bits_per_byte() -> None:
    metric = BitsPerByte(bytes_per_target=4.0)
    metric.update_sums(torch.tensor(10 * 8 * math.log(2)), 10)  # one byte a label, in nats
    assert metric.compute().item() == pytest.approx(2.0)


def test_the_accuracy_of_tokens_is_over_all_that_have_a_label() -> None:
    logits, labels = batch()
    guessed = logits.argmax(-1)
    labels[:, ::2] = guessed[:, ::2].where(labels[:, ::2] != IGNORED, IGNORED)
    correct, count = correct_by_row(logits, labels), (labels != IGNORED).sum(1)
    metric = TokenAccuracy()
    for row in range(len(labels)):
        metric.update(correct[row : row + 1], count[row : row + 1])
    found, expected = metric.compute(), (guessed == labels)[labels != IGNORED].double().mean()
    assert found == expected
    assert 0.3 < expected < 0.8


def test_nothing_seen_is_no_number_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(NegativeLogLikelihood().compute().item())
    metric = NegativeLogLikelihood()
    metric.update(torch.empty(0, 5, V), torch.empty(0, 5, dtype=torch.int64))
    assert metric.count.item() == 0


def test_states_survive_saving_copying_and_resetting() -> None:
    metric = NegativeLogLikelihood()
    metric.persistent(True)
    metric.update(*batch())
    value = metric.compute()
    loaded = NegativeLogLikelihood()
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    assert loaded.compute() == value
    assert pickle.loads(pickle.dumps(metric)).compute() == value
    metric.reset()
    assert metric.count == 0
