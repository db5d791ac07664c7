import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.test_dropout import ALL
from truesweep.errors import ConfigError
from truesweep.jobs.compiling import keep_code_by_vectors
from truesweep.models import Head, SampleDropout

pytestmark = pytest.mark.numbers

CPU = torch.device("cpu")
SAMPLES = [17, 3, 40, 8, 5, 2**30]
LENGTHS = [10, 10, 9, 6, 6, 4]

Build = Callable[..., Any]


def dropped(x: Tensor, p: float, *, seed: int = 0, step: int = 0, calls: int = 1) -> Tensor:
    """What the last of several dropouts in a forward pass makes of [samples, ...]."""
    with SampleDropout().of(seed, step, range(len(x)), CPU):
        for _ in range(calls):
            out = functional.dropout(x, p)
    return out


def logits(model: Any, dropout: SampleDropout, rows: slice, step: int = 0) -> Tensor:
    """Of some samples, padded to the longest of them; nought where there is padding."""
    lengths = torch.tensor(LENGTHS[rows])
    ids = (torch.tensor(SAMPLES[rows])[:, None] + 7 * torch.arange(int(lengths.max()))) % 39 + 4
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with dropout.of(0, step, SAMPLES[rows], CPU):
        scores: Tensor = model(input_ids=ids, attention_mask=mask, **decoder).logits
    if scores.dim() == 2:
        return scores
    return functional.pad(scores * mask[..., None], (0, 0, 0, 10 - ids.shape[1]))


@pytest.mark.parametrize(
    ("name", "head", "attention"),
    [
        (name, head, attention)
        for name, head in ALL
        for attention in (("eager",) if name == "mamba" else ("eager", "sdpa"))
    ],
)
def test_samples_keep_their_masks_however_a_batch_is_split(
    name: str, head: Head, attention: str, build: Build
) -> None:
    model = build(name, head, dropout=0.3, max_length=10, attention=attention)
    dropout = SampleDropout()
    with torch.no_grad():
        whole = logits(model, dropout, slice(0, 6))
        parts = [logits(model, dropout, rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 6))]
        another = logits(model, dropout, slice(0, 6), step=1)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    assert (another - whole).abs().max() > 1e-3


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_the_rate_and_the_mean_are_right(p: float) -> None:
    out = dropped(torch.ones(64, 30, 101), p)
    error = 5 * math.sqrt(p * (1 - p) / out.numel())
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=error)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    assert out.mean().item() == pytest.approx(1, abs=error / (1 - p))


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"step": 1}, {"calls": 2}], ids=["seed", "step", "layer"]
)
def test_masks_of_different_seeds_steps_and_layers_are_independent(other: dict[str, int]) -> None:
    x = torch.ones(64, 30, 100)
    both = (dropped(x, 0.1) == 0) & (dropped(x, 0.1, **other) == 0)
    assert both.float().mean().item() == pytest.approx(0.01, abs=0.0012)


@pytest.mark.parametrize("dim", [0, 1, 2], ids=["samples", "positions", "features"])
@pytest.mark.parametrize("distance", [1, 2, 7])
def test_masks_of_neighbours_are_independent(dim: int, distance: int) -> None:
    zero = dropped(torch.ones(64, 30, 100), 0.1) == 0
    length = zero.shape[dim] - distance
    both = zero.narrow(dim, 0, length) & zero.narrow(dim, distance, length)
    assert both.float().mean().item() == pytest.approx(0.01, abs=0.0012)


def test_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    first = dropped(torch.ones(4, 50), 0.5)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(123)
    assert dropped(torch.ones(4, 50), 0.5).equal(first)


def test_gradients_pass_where_values_did() -> None:
    x = torch.randn(4, 50, requires_grad=True)
    out = dropped(x, 0.5)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.equal((out != 0) * 2.0)


def test_evaluation_drops_nothing(build: Build) -> None:
    model = build("bart", "seq2seq", dropout=0.5, max_length=10).eval()
    with torch.no_grad():
        inside = logits(model, SampleDropout(), slice(0, 6))
        without = copy.deepcopy(model)
        for module in without.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.0
        assert inside.equal(logits(without, SampleDropout(), slice(0, 6)))


def test_weights_and_their_names_stay_as_they_were(build: Build) -> None:
    model = build("gpt2", "causal", dropout=0.3, max_length=10)
    names = list(model.state_dict())
    logits(model, SampleDropout(), slice(0, 6))
    assert list(model.state_dict()) == names
    assert model.config.attn_pdrop == 0.3


def test_bfloat16_has_the_same_masks(build: Build) -> None:
    x = torch.ones(8, 64)
    wide, narrow = dropped(x, 0.1), dropped(x.bfloat16(), 0.1)
    assert narrow.dtype == torch.bfloat16
    assert narrow.ne(0).equal(wide.ne(0))


def test_heads_and_positions_may_be_folded_into_the_samples() -> None:
    x = torch.ones(4, 6, 32)
    with SampleDropout().of(0, 0, [1, 2, 3, 4], CPU):
        folded = functional.dropout(x.flatten(0, 1), 0.5).view_as(x)
    with SampleDropout().of(0, 0, [3, 4], CPU):
        assert functional.dropout(x[2:].flatten(0, 1), 0.5).view_as(x[2:]).equal(folded[2:])


def test_what_holds_no_whole_samples_is_refused() -> None:
    with (
        SampleDropout().of(0, 0, [1, 2], CPU),
        pytest.raises(ConfigError, match=r"shape \[3, 5\] for 2 samples.*Set model.dropout=0"),
    ):
        functional.dropout(torch.ones(3, 5), 0.5)


def test_it_stands_aside_after_a_pass_that_dropped_nothing() -> None:
    dropout = SampleDropout()
    with pytest.raises(RuntimeError), dropout.of(0, 0, [1], CPU):
        raise RuntimeError("out of memory, before anything was dropped")
    with dropout.of(0, 0, [1], CPU):
        functional.dropout(torch.ones(1, 5), 0.5)
    with dropout.of(0, 0, [1], CPU) as context:
        functional.dropout(torch.ones(1, 5), 0.5, training=False)
    assert context is dropout
    with dropout.of(0, 0, [1], CPU) as context:
        assert context is None


ALLOWED = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.4
ALLOWED[..., 0] = True
ATTENTIONS: dict[str, dict[str, Any]] = {
    "causal": {"is_causal": True},
    "shared": {"enable_gqa": True},
    "scaled": {"scale": 0.3},
    "bool": {"attn_mask": ALLOWED},
    "float": {"attn_mask": ALLOWED.log()},
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_that_drops_is_attention(kind: str) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, 4, 5, 8)
    key, value = torch.randn(2, 3, 2 if kind == "shared" else 4, 5, 8)
    arguments = ATTENTIONS[kind]
    expected = functional.scaled_dot_product_attention(query, key, value, **arguments)
    # Hardly anything is dropped: p is rounded to 0.
    with SampleDropout().of(0, 0, [1, 2, 3], CPU):
        found = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=1e-9, **arguments
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_fused_attention_drops_what_plain_attention_drops(build: Build) -> None:
    found = []
    for attention in ("eager", "sdpa"):
        model = build("llama", "causal", dropout=0.3, max_length=10, attention=attention)
        found.append(logits(model, SampleDropout(), slice(0, 6)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def compiled_equals_eager(function: Callable[[Tensor], Tensor], x: Tensor, **how: Any) -> None:
    torch._dynamo.reset()
    keep_code_by_vectors()
    compiled, dropout, results = torch.compile(function, fullgraph=True, **how), SampleDropout(), []
    for run in (function, compiled):
        for step in (0, 1):
            with dropout.of(0, step, range(len(x)), CPU):
                results.append(run(x))
    for plain, other in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(other, plain, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_drops_the_same(build: Build) -> None:
    model = build("qwen3", "causal", depth=1, dropout=0.3, max_length=10)
    ids = torch.arange(40).view(4, 10) + 4
    compiled_equals_eager(lambda x: model(input_ids=x).logits, ids, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_code_drops_the_same() -> None:
    """The hash relies on int32 that wraps, in generated code too."""

    def twice(x: Tensor) -> Tensor:
        return functional.dropout(functional.dropout(x, 0.2).sin(), 0.2)

    compiled_equals_eager(twice, torch.randn(5, 7, 33))
