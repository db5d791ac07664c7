"""Weights that are drawn by the names of parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.models.test_architectures import FAMILIES
from tests.models.test_init import WRITERS
from truesweep.models import Head, Scratch
from truesweep.models.heads import AUTO_CLASSES
from truesweep.models.tokens import token_fields

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]
TRIED: list[tuple[str, Head]] = sorted(
    {
        *FAMILIES,
        *((name, head) for name, head, _ in WRITERS),
        ("openai-gpt", "causal"),  # draws some when it is made, and never again
        ("camembert", "masked"),
        ("mbart", "seq2seq"),
    }
)


def tensors(model: Any) -> dict[str, Tensor]:
    """Parameters and buffers by name, shared ones by each."""
    return dict(model.state_dict())


def named(build: Build, name: str, head: Head, **changes: Any) -> dict[str, Tensor]:
    return tensors(build(name, head, init_seeding="by_name", **changes))


def shared(one: dict[str, Tensor], two: dict[str, Tensor]) -> list[str]:
    return [name for name in one if name in two and one[name].shape == two[name].shape]


@pytest.mark.parametrize(
    ("name", "head", "init"),
    [
        *((name, "causal", init) for name in ("llama", "mamba2") for init in ("default", "scaled")),
        *(("t5", "seq2seq", "scaled"), ("bart", "seq2seq", "default")),
        ("bert", "classifier", "scaled"),
    ],
)
def test_layers_begin_alike_whatever_the_depth(
    name: str, head: Head, init: str, build: Build
) -> None:
    shallow, deep = (named(build, name, head, depth=depth, init=init) for depth in (2, 4))
    assert len(shared(shallow, deep)) == len(shallow)
    assert [key for key in shallow if not shallow[key].equal(deep[key])] == []
    sequential = [tensors(build(name, head, depth=depth, init=init)) for depth in (2, 4)]
    assert any(not sequential[0][key].equal(sequential[1][key]) for key in shallow)


def test_what_is_scaled_by_the_depth_begins_with_the_same_numbers(build: Build) -> None:
    shallow, deep = (named(build, "gpt2", "causal", depth=depth) for depth in (2, 4))
    for key in shallow:
        factor = 2**0.5 if key.endswith("c_proj.weight") else 1
        torch.testing.assert_close(shallow[key], deep[key] * factor)


@pytest.mark.parametrize(("name", "head"), TRIED)
def test_what_is_random_is_so_with_the_architecture_s_own_distribution(
    name: str, head: Head, build: Build
) -> None:
    usual = [tensors(build(name, head, seed=seed)) for seed in (0, 1)]
    by_name = [named(build, name, head, seed=seed) for seed in (0, 1)]
    assert usual[0].keys() == by_name[0].keys()
    for key, found in by_name[0].items():
        other = usual[0][key]
        random = not other.equal(usual[1][key])
        assert random == (not found.equal(by_name[1][key])), key
        if not random:
            assert found.equal(other), key
            continue
        assert found.isfinite().all()
        rows = [one.flatten(1).any(1) if one.ndim > 1 else one.any() for one in (found, other)]
        assert rows[0].equal(rows[1]), key  # of a table the token that pads begins at zero
        if (n := found.numel()) >= 64:
            std = other.std().item()
            assert found.std().item() == pytest.approx(std, rel=6 / n**0.5), key
            assert found.mean().item() == pytest.approx(other.mean().item(), abs=8 * std / n**0.5)


@pytest.mark.parametrize(("name", "head"), [("llama", "causal"), ("mbart", "seq2seq")])
def test_no_two_matrices_begin_alike(name: str, head: Head, build: Build) -> None:
    found = build(name, head, init_seeding="by_name", tie_embeddings=False)
    first = [tuple(p.flatten()[-8:].tolist()) for p in found.parameters() if p.ndim > 1]
    assert len(set(first)) == len(first)


def test_heads_and_further_modules_change_nothing_else(build: Build) -> None:
    plain = named(build, "llama", "causal", tie_embeddings=False)
    tied = named(build, "llama", "causal", tie_embeddings=True)
    classifier = named(build, "llama", "classifier")
    biased = named(build, "llama", "causal", config={"attention_bias": True})
    for other in (tied, classifier, biased):
        same = [key for key in shared(plain, other) if key.startswith("model.")]
        assert len(same) > 10
        assert all(plain[key].equal(other[key]) for key in same)
    assert tied["lm_head.weight"].equal(tied["model.embed_tokens.weight"])


def test_what_is_drawn_when_a_layer_is_made_follows_its_name(build: Build) -> None:
    short, long = (named(build, "openai-gpt", "causal", context=length) for length in (8, 16))
    assert shared(short, long) == [key for key in short if "positions_embed" not in key]
    assert all(short[key].equal(long[key]) for key in shared(short, long))


def test_what_is_drawn_beside_a_parameter_follows_its_module(build: Build) -> None:
    """Decays are the logarithms of random numbers, which are copied into their parameter."""
    kinds = ["linear_attention", "full_attention"]
    found = [
        named(build, "qwen3_5_text", "causal", config={"layer_types": [first, kinds[0]]})
        for first in kinds
    ]
    key = "model.layers.{}.linear_attn.A_log"
    assert found[0][key.format(1)].equal(found[1][key.format(1)])
    assert not found[0][key.format(0)].equal(found[0][key.format(1)])


def test_a_larger_vocabulary_keeps_the_rows_of_the_smaller(
    tokenizer: PreTrainedTokenizerFast, larger_tokenizer: PreTrainedTokenizerFast
) -> None:
    tables: list[Tensor] = []
    for its in (tokenizer, larger_tokenizer):
        torch.manual_seed(0)
        scratch = Scratch(
            architecture="llama", depth=1, width=32, heads=2, init_seeding="by_name", init="scaled"
        )
        model = scratch.build("causal", its, max_length=8)
        tables.append(model.get_parameter("model.embed_tokens.weight"))
    assert (len(tables[0]), len(tables[1])) == (44, 54)
    assert tables[1][:44].equal(tables[0])


@pytest.mark.parametrize("how", ["mup", "completep"])
def test_a_parametrization_scales_the_same_numbers(how: str, build: Build) -> None:
    asked = {"init_seeding": "by_name", "width": 64, "depth": 4}
    plain = build("llama", "causal", **asked)
    base = {"parametrization": how, "base_width": 32, "base_depth": 2}
    scaled = build("llama", "causal", **asked, **base)
    for key, parameter in scaled.named_parameters():
        factor = scaled.scales[key].init
        torch.testing.assert_close(parameter, plain.get_parameter(key) * factor)


def test_other_random_numbers_go_on_alike_whatever_is_drawn(build: Build) -> None:
    after = []
    for depth in (1, 3):
        build("llama", "causal", depth=depth, init_seeding="by_name", init="scaled")
        after.append(torch.rand(4))
    assert after[0].equal(after[1])


def test_a_model_without_memory_draws_nothing(build: Build) -> None:
    with torch.device("meta"):
        model = build("llama", "causal", init_seeding="by_name", init="scaled")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert named(build, "llama", "causal")["lm_head.weight"].device.type == "cpu"


def test_in_order_a_model_is_transformers_own(
    build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    scratch = Scratch(architecture="llama", depth=2, width=32, heads=2)
    torch.manual_seed(0)
    fields = token_fields(tokenizer) | {"is_decoder": True}
    theirs = AUTO_CLASSES["causal"].from_config(scratch.configure(fields, 8), dtype=torch.float32)
    ours = tensors(build("llama", "causal"))
    assert all(value.equal(ours[key]) for key, value in tensors(theirs).items())
