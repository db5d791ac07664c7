"""What a model is for: which transformers class each architecture has for a head."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from truesweep.errors import ConfigError, did_you_mean, nearest

Head = Literal["causal", "masked", "seq2seq", "classifier"]

PRESETS = ("gpt2", "llama", "qwen3", "lfm2", "t5", "bart", "mbart", "marian", "bert", "modernbert")
"""Architectures with a file in `conf/model`; others go by `model=auto model.architecture=NAME`."""

AUTO_CLASSES: dict[Head, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classifier": AutoModelForSequenceClassification,
}
_MODEL_TYPES: dict[Head, set[str]] = {
    "causal": set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    # Not BART and its kin, whose decoder is no use for it.
    "masked": {
        n for n, c in MODEL_FOR_MASKED_LM_MAPPING_NAMES.items() if c.endswith("ForMaskedLM")
    },
    "seq2seq": set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "classifier": set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
}
_PURPOSES: dict[Head, str] = {
    "causal": "language modelling",
    "masked": "masked language modelling",
    "seq2seq": "translation and the like",
    "classifier": "classification",
}
ENDINGS: dict[str, Head] = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "classifier",
    "ForConditionalGeneration": "seq2seq",
    "MTModel": "seq2seq",
}
"""How the names of transformers' classes end that have a head."""


def config_class(architecture: str) -> type[PreTrainedConfig]:
    """The transformers configuration class of a `model_type`.

    Raises:
        ConfigError: transformers has no such architecture; names the nearest.
    """
    if architecture not in CONFIG_MAPPING:
        hint = did_you_mean(architecture.lower(), CONFIG_MAPPING, partial(nearest, most=3))
        raise ConfigError(f"model.architecture: transformers has no '{architecture}'{hint}")
    found: type[PreTrainedConfig] = CONFIG_MAPPING[architecture]
    return found


def head_of(architectures: Iterable[str]) -> Head | None:
    """What a model is for whose configuration has these `architectures`; None if that is none."""
    found = [h for name in architectures for end, h in ENDINGS.items() if name.endswith(end)]
    return found[0] if found else None


def check_head(architecture: str, head: Head) -> None:
    """Raise a `ConfigError` that lists what fits if the architecture has no such head."""
    if architecture in _MODEL_TYPES[head]:
        return
    fitting = ", ".join(name for name in PRESETS if name in _MODEL_TYPES[head])
    raise ConfigError(
        f"model.architecture: transformers has no {architecture} for {_PURPOSES[head]}; "
        f"set model to one of {fitting}"
    )
