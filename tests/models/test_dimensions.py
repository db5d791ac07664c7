from typing import Any

import pytest
from transformers import BartConfig, GPT2Config, LlamaConfig, ModernBertConfig, T5Config
from transformers.models.lfm2 import Lfm2Config

from truesweep.errors import ConfigError
from truesweep.models.dimensions import Dimensions, check_heads


def dimensions(**changes: int) -> Dimensions:
    values: dict[str, Any] = {
        "depth": 4,
        "width": 128,
        "heads": 4,
        "feed_forward": None,
        "context": 64,
    }
    return Dimensions(**(values | changes))


def test_an_encoder_decoder_gets_each_dimension_on_both_sides() -> None:
    assert dimensions().fields(BartConfig, {}) == {
        "encoder_layers": 4,
        "decoder_layers": 4,
        "d_model": 128,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "max_position_embeddings": 64,
    }


def test_t5_divides_the_width_among_its_heads() -> None:
    assert dimensions().fields(T5Config, {}) == {
        "num_layers": 4,
        "num_decoder_layers": 4,
        "d_model": 128,
        "num_heads": 4,
        "d_kv": 32,
        "d_ff": 512,
    }


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        (GPT2Config, {}, 512),
        (LlamaConfig, {}, 352),  # 8/3 x 128 = 341.3, up to a multiple of 32
        (LlamaConfig, {"hidden_act": "gelu"}, 352),  # Llama's own 11008 / 4096
        (Lfm2Config, {}, 384),
        (ModernBertConfig, {}, 192),
        (T5Config, {"feed_forward_proj": "gated-gelu"}, 352),
    ],
)
def test_the_feed_forward_follows_the_architecture(
    config: type, given: dict[str, Any], expected: int
) -> None:
    fields = dimensions().fields(config, given)
    assert expected in [fields.get(name) for name in ("n_inner", "intermediate_size", "d_ff")]


def test_what_was_given_is_left_alone() -> None:
    fields = dimensions(heads=3).fields(LlamaConfig, {"head_dim": 16, "num_key_value_heads": 1})
    assert "head_dim" not in fields
    assert "num_key_value_heads" not in fields
    assert fields["num_attention_heads"] == 3  # 3 x 16 need not be the width


@pytest.mark.parametrize(
    ("depth", "attention"),
    [(1, [0]), (2, [1]), (3, [2]), (4, [2]), (6, [2, 5]), (9, [2, 5, 8])],
)
def test_lfm2_has_attention_in_every_third_layer(depth: int, attention: list[int]) -> None:
    types = dimensions(depth=depth).fields(Lfm2Config, {})["layer_types"]
    assert len(types) == depth
    assert [i for i, kind in enumerate(types) if kind == "full_attention"] == attention
    assert set(types) <= {"conv", "full_attention"}


def test_lfm2_layers_can_be_named() -> None:
    assert "layer_types" not in dimensions().fields(Lfm2Config, {"layer_types": ["conv"] * 4})


@pytest.mark.parametrize(
    ("width", "heads", "rotary", "remedy"),
    [
        (128, 5, False, "model.heads=4 or 8"),
        (128, 200, False, r"model.heads=128, or"),
        (96, 7, True, "model.heads=6 or 8"),
        (12, 12, True, "model.heads=6, or"),
        (7, 7, True, "Set an even model.width"),
    ],
)
def test_the_nearest_numbers_of_heads_are_named(
    width: int, heads: int, rotary: bool, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check_heads(width, heads, rotary=rotary)
