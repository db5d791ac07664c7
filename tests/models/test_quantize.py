"""Weights in four bits: what they stand for is computed with, and only an adapter learns."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.models.test_adapters import IDS, shaken
from truesweep.errors import ConfigError
from truesweep.models import Head, Lora, add_adapter, count_parameters
from truesweep.models.adapters import base_of, merged, trained_state, whole_state
from truesweep.models.quantize import dequantized

Build = Callable[..., Any]
CODES = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
"""The sixteen numbers of NF4, from appendix E of Dettmers et al. 2023."""


@pytest.fixture
def bitsandbytes() -> Any:
    reason = "needs bitsandbytes (pip install 'truesweep[qlora]')"
    return pytest.importorskip("bitsandbytes", reason=reason)


def by_hand(weight: torch.Tensor) -> torch.Tensor:
    """The nearest of sixteen numbers, times the largest of each block of 64."""
    blocks = weight.detach().flatten().split(64)
    largest = [block.abs().max() for block in blocks]
    nearest = [
        (b / m - CODES[:, None]).abs().argmin(0) for b, m in zip(blocks, largest, strict=True)
    ]
    found = [CODES[i] * m for i, m in zip(nearest, largest, strict=True)]
    return torch.cat(found).reshape(weight.shape)


def rounded(model: Any, whole: Callable[[str], bool]) -> Any:
    """A model in which four bits would hold the weights of linear layers, but for some."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if type(module) is nn.Linear and not whole(name):
                module.weight.copy_(by_hand(module.weight))
    return model


SIZES: dict[str, Any] = {"width": 64, "feed_forward": 128, "init": "default"}
ARCHITECTURES: list[tuple[str, Head, Lora]] = [
    ("llama", "causal", Lora(r=4)),
    ("llama", "causal", Lora(r=4, dora=True)),
    ("qwen3", "causal", Lora(r=4, modules_to_save=["k_proj"])),
    ("lfm2", "causal", Lora(r=4)),
    ("t5", "seq2seq", Lora(r=4)),
    ("bart", "seq2seq", Lora(r=4)),
    ("bert", "classifier", Lora(r=4)),
    ("modernbert", "masked", Lora(r=4)),
]


@pytest.mark.parametrize(("architecture", "head", "adapter"), ARCHITECTURES)
def test_it_is_the_model_of_the_rounded_weights(
    architecture: str, head: Head, adapter: Lora, build: Build, bitsandbytes: Any
) -> None:
    four = build(architecture, head, **SIZES)
    original = four.state_dict()
    whole = count_parameters(four).total
    tuner = add_adapter(four, Lora(**{**vars(adapter), "quantize": "nf4"}), head, seed=3)
    quantised = {n for n, p in four.named_parameters() if p.dtype == torch.uint8}
    assert quantised
    kept = {n.replace(".base_layer.", ".").removesuffix(".weight") for n in quantised}
    plain = rounded(build(architecture, head, **SIZES), lambda name: name not in kept)
    others = [n for n in original if n.endswith("weight") and n.removesuffix(".weight") not in kept]
    assert any("embed" in n or "shared" in n for n in others)
    assert any("head" in n or "classifier" in n or "decoder" in n for n in others)
    add_adapter(plain, adapter, head, seed=3)
    weights = shaken(four)
    assert weights.keys() == shaken(plain).keys()
    asked = {"input_ids": IDS, "labels": torch.tensor([0, 2]) if head == "classifier" else IDS}
    outs = [model.eval()(**asked) for model in (four, plain)]
    for out in outs:
        out.loss.backward()
    torch.testing.assert_close(outs[0].logits, outs[1].logits, rtol=1e-6, atol=1e-6)
    gradients = [
        {n: p.grad for n, p in m.named_parameters() if p.grad is not None} for m in (four, plain)
    ]
    assert gradients[0].keys() == weights.keys()
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert count_parameters(four) == count_parameters(plain)
    assert count_parameters(four).total > whole
    with_it = merged(four, tuner).eval()
    torch.testing.assert_close(with_it(**asked).logits, outs[0].logits, rtol=1e-5, atol=1e-5)
    assert with_it.state_dict().keys() == original.keys()


def test_a_checkpoint_is_completed_by_the_same_base_only(build: Build, bitsandbytes: Any) -> None:
    def four(seed: int = 0, scheme: Any = "nf4") -> Any:
        model = build("llama", "causal", **SIZES, seed=seed)
        add_adapter(model, Lora(r=4, quantize=scheme), "causal", seed=0)
        return model

    model, same, other = four(), four(), four(seed=1)
    shaken(model)
    kept = trained_state(model, model.state_dict())
    assert all("lora_" in name for name in kept)
    same.load_state_dict(whole_state(same, kept, base_of(model)))
    assert torch.equal(model(input_ids=IDS).logits, same(input_ids=IDS).logits)
    assert base_of(model) == base_of(four(scheme=None))  # which is named by what it was
    with pytest.raises(ConfigError, match="not the one that the adapter was trained beside"):
        whole_state(other, kept, base_of(model))


def test_precision_is_that_of_the_moment(build: Build, bitsandbytes: Any) -> None:
    """And not that of the first step, nor that of an evaluation by bitsandbytes itself."""
    model = build("llama", "causal", **SIZES)
    add_adapter(model, Lora(quantize="nf4"), "causal", seed=0)
    layer: Any = model.model.layers[0].mlp.down_proj.base_layer.eval()
    x, plain = torch.randn(3, 128), nn.Linear(128, 64, bias=False)
    plain.weight = nn.Parameter(dequantized(layer.weight))
    for precision in (torch.float32, torch.bfloat16, torch.float32):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, precision != torch.float32):
            found, expected = layer(x), plain(x)
        assert found.dtype == precision
        assert torch.equal(found, expected)


def test_rows_that_blocks_run_across_stay_whole(build: Build, bitsandbytes: Any) -> None:
    model = build("llama", "causal", width=64, feed_forward=96)
    add_adapter(model, Lora(quantize="nf4"), "causal", seed=0)
    quantised = [n for n, p in model.named_parameters() if p.dtype == torch.uint8]
    assert any("up_proj" in name for name in quantised)
    assert not any("down_proj" in name for name in quantised)


def test_a_model_without_linear_layers_is_refused(build: Build, bitsandbytes: Any) -> None:
    with pytest.raises(ConfigError, match="gpt2 has no linear layers"):
        add_adapter(build("gpt2", "causal", width=64), Lora(quantize="nf4"), "causal", seed=0)
