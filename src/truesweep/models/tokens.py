"""What a model's configuration takes from the data: special tokens and the names of classes."""

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.errors import ConfigError
from truesweep.models.dimensions import VOCABULARY


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that pads, or the end of text where the tokenizer has no padding token."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise ConfigError(
        f"tokenizer: {tokenizer.name_or_path or type(tokenizer).__name__} has neither a padding "
        "nor an end-of-text token. Set tokenizer=bpe, char or byte, or add a token to it."
    )


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many rows a table of all tokens has: where ids have gaps, more than there are tokens."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def token_fields(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Fields of a new model's configuration that follow from its tokenizer."""
    pad = pad_token(tokenizer)
    return {
        **dict.fromkeys(VOCABULARY, vocabulary_size(tokenizer)),
        "pad_token_id": pad,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "mask_token_id": tokenizer.mask_token_id,
        "decoder_start_token_id": pad,
        # BART and Marian would otherwise force their own checkpoints' tokens on what is generated.
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }


def label_fields(labels: Sequence[str]) -> dict[str, Any]:
    """Fields of a classifier's configuration; it has no use for a cache of keys and values.

    Raises:
        ConfigError: fewer than two classes.
    """
    if len(labels) < 2:
        raise ConfigError(f"a classifier needs two classes or more, the data has {list(labels)}")
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
        "use_cache": False,
    }


def settle_generation(model: PreTrainedModel) -> list[str]:
    """Drop what keeps a checkpoint's settings of `generate` from being saved again.

    transformers loads settings that contradict each other, such as a temperature without sampling,
    and then refuses to write them.

    Returns:
        The names of those that were dropped.
    """
    given = model.generation_config
    assert given is not None
    if _is_valid(given):
        return []
    waiting, kept = given.to_diff_dict(), GenerationConfig()
    while fitting := [
        (name, settled)
        for name, value in waiting.items()
        if _is_valid(settled := GenerationConfig(**{**kept.to_diff_dict(), name: value}))
    ]:
        name, kept = fitting[0]
        del waiting[name]
    model.generation_config = kept
    return sorted(waiting)


def _is_valid(generation: GenerationConfig) -> bool:
    try:
        generation.validate(strict=True)
    except Exception:  # of a wrong type, too
        return False
    return True


def set_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let `generate` start, end and pad with the tokenizer's tokens.

    Nothing else is carried over: no forced tokens, no lengths, greedy unless asked otherwise.
    """
    if not model.can_generate():
        return
    config: Any = model.config
    start = config.decoder_start_token_id if config.is_encoder_decoder else None
    model.generation_config = GenerationConfig(
        pad_token_id=pad_token(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=start,
    )
