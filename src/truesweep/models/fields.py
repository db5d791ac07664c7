"""The fields that an architecture's transformers configuration declares."""

from collections.abc import Iterable
from dataclasses import fields
from typing import get_args

from transformers import PreTrainedConfig

from truesweep.errors import ConfigError, did_you_mean

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
