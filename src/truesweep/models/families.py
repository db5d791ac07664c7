"""What single families call and need: depth, width, heads, and the attention they run by."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import PreTrainedConfig

from truesweep.errors import ConfigError

if TYPE_CHECKING:
    from truesweep.models.dimensions import Dimensions

LINEAR, FULL = "linear_attention", "full_attention"
_WITHOUT_ATTENTION = {LINEAR, "conv", "mamba", "recurrent", "moe", "mlp"}

PARTS = {"t5gemma": ("encoder", "decoder"), "dbrx": ("ffn_config",)}
"""By family, the fields that are configurations of their own, with dimensions of their own."""

STARTS = {"t5gemma": "bos_token_id"}
"""Families whose decoders start with another token than the one that pads, which they mask."""

REFUSED = {
    "reformer": "reads only samples as long as its chunks in training, and hashes by chance",
    "layoutlmv2": "reads images of pages",
    "mra": "attends to nothing where a GPU's kernel is not there",
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"),
        "drafts tokens for another model, whose states it reads",
    ),
}
"""Families of transformers' language models that can be trained by no data of ours, and why."""

_MULTIPLES = {
    **dict.fromkeys(("codegen",), ("heads", 4)),
    **dict.fromkeys(("jetmoe", "mimo_v2_flash"), ("heads", 2)),
    "lilt": ("width", 24),
}
"""Families of which a dimension must be a multiple of a number."""


def family_fields(model_type: str, size: "Dimensions", given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that follow from the dimensions in one family only, but for those that are given.

    Args:
        model_type: The family.
        size: The dimensions.
        given: Fields that the user set.
    """
    find = _FAMILIES.get(model_type)
    found = find(size) if find else {}
    if {"layer_types", "full_attn_idxs"}.intersection(given):
        found.pop("layer_types", None)
    return {name: value for name, value in found.items() if name not in given}


def attention_fields(config: PreTrainedConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that make the last layer attend, if none does in a family that has such layers.

    Where all layers are recurrent, what a hybrid keeps to generate with does not know its length.

    Args:
        config: Of a language model.
        given: Fields that the user set.
    """
    kinds = list(getattr(config, "layer_types", None) or ())
    if not kinds or set(kinds) - _WITHOUT_ATTENTION:
        return {}
    last = len(kinds) - 1
    by_family: dict[str, dict[str, Any]] = {
        "jamba": {"attn_layer_offset": last},
        "recurrent_gemma": {"block_types": ["recurrent"] * last + ["attention"]},
        "bamba": {"attn_layer_indices": [last]},
    }
    declared = getattr(type(config), "layer_types", None) is None
    found = by_family.get(
        config.model_type, {"layer_types": [*kinds[:-1], FULL]} if declared else {}
    )
    return {} if found.keys() & given.keys() else found


def cycle(kinds: Sequence[str], depth: int) -> list[str]:
    """Kinds of layers in turn; where there are too few for any attention, the last one has it."""
    found = [kinds[layer % len(kinds)] for layer in range(depth)]
    if set(found) <= _WITHOUT_ATTENTION:
        found[-1] = next(kind for kind in kinds if kind not in _WITHOUT_ATTENTION)
    return found


def _convolutions_and_attention(depth: int) -> list[str]:
    """Two convolutions, then attention, and again; fewer than three layers end in attention."""
    attention = {depth - 1} if depth < 3 else set(range(2, depth, 3))
    return [FULL if layer in attention else "conv" for layer in range(depth)]


def _in_blocks(depth: int) -> list[int]:
    """Layers of three blocks, or of as many as there are layers."""
    blocks = min(3, depth)
    return [depth // blocks + (block < depth % blocks) for block in range(blocks)]


def _global_and_local(depth: int) -> list[Any]:
    pairs = [[["global", "local"], depth // 2]] * (depth > 1)
    return [*pairs, *[[["global"], 1]] * (depth % 2)]


_FAMILIES: dict[str, Callable[["Dimensions"], dict[str, Any]]] = {
    "bamba": lambda size: {"mamba_n_heads": 2 * size.heads},
    "cohere_compass_text": lambda size: {
        "rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 10_000.0}}
    },
    "dbrx": lambda size: {"attn_config": {"rope_theta": 10_000.0, "clip_qkv": 8.0}},
    "deepseek_v2": lambda size: {"num_experts_per_tok": 2, "moe_intermediate_size": _half(size)},
    "dots1": lambda size: {"num_experts_per_tok": 2, "n_routed_experts": 8, "n_shared_experts": 1},
    "funnel": lambda size: {"block_sizes": _in_blocks(size.depth)},
    "gemma3n_text": lambda size: {"num_kv_shared_layers": 15 if size.depth >= 20 else 0},
    "gpt_neo": lambda size: {"attention_types": _global_and_local(size.depth)},
    "granitemoehybrid": lambda size: {"mamba_n_heads": 2 * size.heads},
    "inkling_text": lambda size: {"n_routed_experts": 8, "num_experts_per_tok": 2},
    "inkling2_text": lambda size: {"n_routed_experts": 8, "num_experts_per_tok": 2},
    "jetmoe": lambda size: {"num_key_value_heads": size.heads // 2},
    "led": lambda size: _windows(size.context),
    "lfm2": lambda size: {
        "block_auto_adjust_ff_dim": False,  # feed_forward as it was asked
        "layer_types": _convolutions_and_attention(size.depth),
    },
    "lfm2_moe": lambda size: {"layer_types": _convolutions_and_attention(size.depth)},
    "longcat_flash": lambda size: {
        "n_routed_experts": 8,
        "zero_expert_num": 4,
        "moe_topk": 2,
        "expert_ffn_hidden_size": _half(size),
    },
    "mamba2": lambda size: {"head_dim": 2 * size.width // size.heads, "n_groups": 1},
    "layoutlmv3": lambda size: _boxes(size.width),
    "mimo_v2_flash": lambda size: {
        "num_key_value_heads": size.heads // 2,
        "rope_parameters": _half_rotary(FULL, "sliding_attention"),
    },
    "nemotron_h": lambda size: {
        "layers_block_type": cycle((LINEAR, "moe", FULL, "mlp"), size.depth),
        "mamba_num_heads": 2 * size.heads,
        "mamba_head_dim": size.width // size.heads,
        "n_groups": 1,
    },
    "qwen4_exp_text": lambda size: {
        "indexer_n_heads": size.heads,
        "indexer_kv_heads": 1,
        "indexer_head_dim": size.width // size.heads,
        "indexer_budget": 512,
        "indexer_compress_ratio": 4,
    },
    "xlstm": lambda size: {
        "qk_dim_factor": 64 * math.ceil(size.width / 128) / size.width,
        "v_dim_factor": 64 * math.ceil(size.width / 64) / size.width,
    },
    "xmod": lambda size: {"default_language": "en_XX"},
    # What hybrid layers share must be in two of them or more.
    "zamba": lambda size: (
        {"layers_block_type": [LINEAR] * (size.depth - 2) + ["hybrid"] * min(2, size.depth)}
        if size.depth < 8
        else {}
    ),
    "zamba2": lambda size: {"layers_block_type": cycle([*[LINEAR] * 5, "hybrid"], size.depth)},
}


def _half(size: "Dimensions") -> int:
    """Features of an expert: half of a layer's, in a multiple of 32."""
    return 32 * math.ceil(size.width / 64)


def _boxes(width: int) -> dict[str, Any]:
    """Features of a box's four edges, and of its two sides, which make up those of a token."""
    edge = width // 6
    return {"coordinate_size": edge, "shape_size": width // 2 - 2 * edge}


def _windows(context: int) -> dict[str, Any]:
    """Samples are padded to a multiple of the window, and each of these needs a position."""
    window = min(512, 2 * math.ceil(context / 2))
    positions = window * math.ceil(context / window)
    return {"attention_window": window, "max_encoder_position_embeddings": positions}


def _half_rotary(*kinds: str) -> dict[str, Any]:
    return {
        kind: {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
        for kind in kinds
    }


def check_family(architecture: str, size: Mapping[str, int]) -> None:
    """Raise a `ConfigError` for a family that cannot be trained, or not with these dimensions.

    Args:
        architecture: The family.
        size: Its `width` and `heads`.
    """
    if architecture in REFUSED:
        raise ConfigError(
            f"model.architecture: {architecture} {REFUSED[architecture]}. "
            "Set another model, such as llama or lfm2."
        )
    name, step = _MULTIPLES.get(architecture, ("heads", 1))
    if size[name] % step:
        raise ConfigError(
            f"model.{name}={size[name]}: {architecture} needs a multiple of {step}. "
            f"Set model.{name}={step * math.ceil(size[name] / step)}."
        )


Attention = Literal["eager", "sdpa", "flash_attention_2", "flex_attention"]

_LONGEST_EAGER = 256  # tokens; on a CPU the fused kernels are slower up to here


def choose_attention(asked: Attention | None, max_length: int) -> Attention | None:
    """What was asked for, else the fastest; None leaves it to transformers (SDPA if it can)."""
    if asked is not None or torch.cuda.is_available() or max_length > _LONGEST_EAGER:
        return asked
    return "eager"
