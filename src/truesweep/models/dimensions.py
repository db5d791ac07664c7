"""Depth, width, heads and further dimensions, in the words of each architecture's configuration."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from transformers import PreTrainedConfig

from truesweep.errors import ConfigError, did_you_mean
from truesweep.models.families import PARTS, family_fields

VOCABULARY = (
    *("vocab_size", "decoder_vocab_size", "src_vocab_size", "tgt_vocab_size"),
    "vocab_size_per_layer_input",
)
TOKENS = (
    *("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"),
    *("mask_token_id", "decoder_start_token_id"),
)
_SET_ELSEWHERE = {
    "tie_word_embeddings": "model.tie_embeddings",
    **dict.fromkeys((*VOCABULARY, *TOKENS), "the tokenizer"),
    **dict.fromkeys(("id2label", "label2id", "num_labels"), "the data's labels"),
}


def known_fields(config: type[PreTrainedConfig]) -> set[str]:
    """Names of the fields that a configuration class declares."""
    return {field.name for field in fields(config)}


def takes_none(config: type[PreTrainedConfig], name: str) -> bool:
    """Whether a field may be None."""
    kind = next(field.type for field in fields(config) if field.name == name)
    return "None" in kind if isinstance(kind, str) else type(None) in get_args(kind)


def check_fields(config: type[PreTrainedConfig], names: Iterable[str]) -> None:
    """Raise a `ConfigError` for a field that the class lacks or that is set in another place."""
    known = known_fields(config)
    for name in names:
        if name in _SET_ELSEWHERE:
            raise ConfigError(
                f"model.config.{name} follows from {_SET_ELSEWHERE[name]}. Remove it."
            )
        if name not in known:
            hint = did_you_mean(name, sorted(known))
            raise ConfigError(f"model.config.{name}: {config.model_type} has no such field{hint}")


# Every name that transformers' configurations have for one thing. An encoder-decoder has several
# names of a row and gets the same value in each.
NAMES: dict[str, tuple[str, ...]] = {
    "depth": (
        *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_self_attends_per_block"),
        *("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"),
    ),
    "width": ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "d_latents"),
    "heads": (
        *("num_attention_heads", "num_key_value_heads", "num_heads", "n_head", "n_heads"),
        *("attention_heads", "encoder_attention_heads", "decoder_attention_heads"),
        *("num_encoder_attention_heads", "num_decoder_attention_heads"),
        *("num_self_attention_heads", "num_cross_attention_heads"),
    ),
    "head_dim": ("head_dim", "d_kv", "d_head", "attention_head_dim", "rotary_dim"),
    "feed_forward": (
        *("intermediate_size", "n_inner", "d_ff", "d_inner", "dim_ff", "dff", "ffn_dim"),
        *("hidden_dim", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim"),
    ),
    "context": (
        *("max_position_embeddings", "n_positions", "n_ctx", "context_length", "max_seq_len"),
        *("model_max_length", "max_encoder_position_embeddings", "max_decoder_position_embeddings"),
    ),
}

_TAKEN = {
    # Two attentions a layer in LongCat, and several passes of HRM through the same layers.
    "depth": (
        *("num_hidden_layers", "num_layers", "num_layers_per_stack"),
        "num_self_attends_per_block",
    ),
    "width": ("hidden_size", "d_latents"),
    "heads": ("num_attention_heads",),
}
"""Where a configuration shows that it took a dimension."""

_POSITIONS_AFTER_PAD = {
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert"),
    *("data2vec-text", "longformer", "esm", "ibert", "lilt", "layoutlmv3", "markuplm"),
    "luke",
}


@dataclass(kw_only=True, frozen=True)
class Dimensions:
    """The size of a model: layers, features, attention heads, features of the MLP, positions."""

    depth: int
    width: int
    heads: int
    feed_forward: int | None
    context: int

    def fields(self, config: type[PreTrainedConfig], given: Mapping[str, Any]) -> dict[str, Any]:
        """These dimensions as arguments of an architecture's configuration class.

        Args:
            config: the configuration class.
            given: further fields that the user set; where one is a dimension it is left alone.

        Raises:
            ConfigError: the heads do not divide the width, or leave an odd number of features to
                rotary positions.
        """
        wanted: dict[str, int] = {
            "depth": self.depth,
            "width": self.width,
            "heads": self.heads,
            "feed_forward": self.feed_forward or _feed_forward(config, self.width, given),
            "context": self.context,
        }
        known = known_fields(config)
        if not known.intersection(NAMES["head_dim"]).intersection(given):
            check_heads(self.width, self.heads, rotary="rope_parameters" in known)
            # Multi-head latent attention sets its three head sizes by itself.
            if "qk_rope_head_dim" not in known:
                wanted["head_dim"] = self.width // self.heads
        values = {
            name: value
            for dimension, value in wanted.items()
            for name in NAMES[dimension]
            if name in known and name not in given
        }
        return values | family_fields(config.model_type, self, given)


def check_heads(width: int, heads: int, *, rotary: bool = False) -> None:
    """Raise a `ConfigError` with the nearest valid numbers unless the heads fit the width.

    Args:
        width: features of a layer.
        heads: attention heads.
        rotary: positions are rotations of pairs of a head's features, so these must be even.
    """
    step = 2 if rotary else 1
    valid = [n for n in range(1, width + 1) if width % (n * step) == 0]
    if heads in valid:
        return
    below, above = [n for n in valid if n < heads], [n for n in valid if n > heads]
    nearest = " or ".join(str(n) for n in below[-1:] + above[:1])
    problem = (
        f"does not divide model.width={width}"
        if width % heads
        else f"leaves {width // heads} features a head; rotary positions need an even number"
    )
    remedy = f"Set model.heads={nearest}" if valid else "Set an even model.width"
    raise ConfigError(f"model.heads={heads} {problem}. {remedy}, or another width.")


def unused_positions(architecture: str, pad: int) -> int:
    """Positions that no token has: RoBERTa and its kin count from the padding token's id + 1."""
    if architecture == "mpnet":
        return 2  # whatever its padding token
    if architecture == "prophetnet":
        return pad + 2  # it looks one token further
    return pad + 1 if architecture in _POSITIONS_AFTER_PAD else 0


def positions(config: PreTrainedConfig) -> int | None:
    """Tokens that a model reads at most; None where its configuration sets no limit."""
    found = getattr(config, "max_position_embeddings", None)
    if not found or found < 0:  # XLNet's is -1
        return None
    return int(found) - unused_positions(config.model_type, config.pad_token_id or 0)


def taken(config: PreTrainedConfig, key: str) -> int:
    """The depth or the width of a configuration, whatever it calls it; 0: it does not say."""
    config = config.decoder if "decoder" in PARTS.get(config.model_type, ()) else config
    return next((v for name in _TAKEN[key] if (v := getattr(config, name, None))), 0)


def check_is_one_model(config: type[PreTrainedConfig]) -> None:
    """Raise a `ConfigError` for a model that is made of others, and has no width of its own."""
    parts, own = config.sub_configs, known_fields(config).union(config.attribute_map)
    if not parts or config.model_type in PARTS or own.intersection(_TAKEN["width"]):
        return
    raise ConfigError(
        f"model.architecture: {config.model_type} is made of several models ({', '.join(parts)}), "
        "none of which is a model of text by itself. Set another model, such as llama or mbart."
    )


def check_dimensions(config: PreTrainedConfig, dimensions: Dimensions) -> None:
    """Raise a `ConfigError` if a configuration did not take its depth, width or heads."""
    config = config.decoder if "decoder" in PARTS.get(config.model_type, ()) else config
    asked = {"depth": dimensions.depth, "width": dimensions.width, "heads": dimensions.heads}
    for key, value in asked.items():
        standard, *others = _TAKEN[key]
        found = [getattr(config, name, None) for name in (standard, *others)]
        # State-space models have no attention heads, and then there is nothing to set.
        if value in found or (key == "heads" and found[0] is None):
            continue
        raise ConfigError(
            f"model.{key}={value} cannot be set on {config.model_type}: its {standard} is "
            f"{found[0]}."
        )


def _feed_forward(config: type[PreTrainedConfig], width: int, given: Mapping[str, Any]) -> int:
    """The architecture's own ratio of feed-forward to width, rounded up to a multiple of 32."""
    return 32 * math.ceil(_ratio(config, given) * width / 32)


def _ratio(config: type[PreTrainedConfig], given: Mapping[str, Any]) -> float:
    if config.model_type == "lfm2":
        return 3.0  # learns faster than 8/3 in small models
    defaults = {field.name: field.default for field in fields(config)} | dict(given)
    gated = str(defaults.get("feed_forward_proj")).startswith("gated")
    if gated or defaults.get("hidden_act") in ("silu", "swish"):
        return 8 / 3  # three matrices with as many parameters as the two of an ungated MLP of 4
    width = defaults.get(config.attribute_map.get("hidden_size", "hidden_size"))
    own = next((defaults[name] for name in NAMES["feed_forward"] if defaults.get(name)), None)
    return own / width if isinstance(own, int) and isinstance(width, int) else 4.0
