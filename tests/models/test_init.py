import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from truesweep.models import Head
from truesweep.models.init import residual_writers

pytestmark = pytest.mark.numbers

WRITERS: list[tuple[str, Head, int]] = [
    ("gpt2", "causal", 2),
    ("llama", "causal", 2),
    ("qwen3", "causal", 2),
    ("lfm2", "causal", 2),
    ("t5", "seq2seq", 5),  # two in the encoder's block and three in the decoder's
    ("bart", "seq2seq", 5),
    ("marian", "seq2seq", 5),
    ("bert", "classifier", 2),
    ("modernbert", "classifier", 2),
    ("gpt_neox", "causal", 2),
    ("phi", "causal", 2),
    ("olmo2", "causal", 2),
    ("opt", "causal", 2),
    ("falcon", "causal", 2),
    ("bloom", "causal", 2),
    ("distilbert", "classifier", 2),
    ("mamba", "causal", 1),
]


Build = Callable[..., Any]


@pytest.mark.parametrize(("name", "head", "in_a_block"), WRITERS)
def test_the_layers_that_write_are_found(
    name: str, head: Head, in_a_block: int, build: Build
) -> None:
    writers = residual_writers(build(name, head, depth=3))
    assert len(writers) == 3 * in_a_block


@pytest.mark.parametrize(
    ("name", "head"),
    [("lfm2", "causal"), ("llama", "causal"), ("gpt2", "causal"), ("bert", "classifier")],
)
def test_all_answers_are_equally_likely_at_the_start(name: str, head: Head, build: Build) -> None:
    model = build(name, head, init="scaled", tie_embeddings=False)
    assert not model(input_ids=torch.arange(8).view(1, 8)).logits.any()


@pytest.mark.parametrize("name", ["lfm2", "llama", "gpt2"])
def test_blocks_start_as_the_identity(name: str, build: Build) -> None:
    model = build(name, "causal", init="scaled", depth=3).eval()
    states = model(input_ids=torch.arange(8).view(1, 8), output_hidden_states=True).hidden_states
    assert states[0].any()
    assert states[1].equal(states[0])
    assert states[2].equal(states[0])  # the last comes after the final norm


@pytest.mark.parametrize("name", ["lfm2", "gpt2", "llama"])
def test_weights_follow_the_fan_in(name: str, build: Build) -> None:
    model = build(name, "causal", init="scaled", tie_embeddings=False, width=64)
    block = {
        "lfm2": ("model.layers.0.feed_forward.w1.weight", 64),
        "gpt2": ("transformer.h.0.mlp.c_fc.weight", 64),
        "llama": ("model.layers.0.self_attn.q_proj.weight", 64),
    }
    weight, fan_in = model.get_parameter(block[name][0]), block[name][1]
    assert weight.std().item() == pytest.approx(0.7 / math.sqrt(fan_in), rel=0.05)
    table = model.get_input_embeddings().weight
    assert table.std().item() == pytest.approx(0.3, rel=0.1)
    if name == "lfm2":
        kernel = model.get_parameter("model.layers.0.conv.conv.weight")
        assert kernel.std().item() == pytest.approx(0.7 / math.sqrt(3), rel=0.15)


def test_a_tied_table_keeps_its_own_scale(build: Build) -> None:
    scaled, default = (build("gpt2", "causal", init=init) for init in ("scaled", "default"))
    assert scaled.transformer.wte.weight.equal(default.transformer.wte.weight)


def test_every_weight_but_the_zero_ones_learns_from_the_second_step(
    build: Build,
) -> None:
    model = build("lfm2", "causal", init="scaled", tie_embeddings=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids = torch.arange(4, 12).view(1, 8)
    for _ in range(3):
        optimizer.zero_grad()
        logits = model(input_ids=ids).logits
        nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in model.parameters())
