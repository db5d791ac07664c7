"""What a model is for: which transformers class each architecture has for a head."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
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
    # Not BART and its kin, whose decoder is no use for it, nor Perceiver, which fills in as many
    # tokens as it has positions, whatever it reads.
    "masked": {
        n
        for n, c in MODEL_FOR_MASKED_LM_MAPPING_NAMES.items()
        if c.endswith("ForMaskedLM") and n != "perceiver"
    },
    "seq2seq": set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "classifier": set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
}
PURPOSES: dict[Head, str] = {
    "causal": "language modelling",
    "masked": "masked language modelling",
    "seq2seq": "translation and the like",
    "classifier": "classification",
}
TASKS: dict[Head, str] = {
    "causal": "lm",
    "masked": "mlm",
    "seq2seq": "translation",
    "classifier": "classification",
}
"""A task for each head, as its group is called."""
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


def architectures(head: Head) -> list[str]:
    """All that transformers has for a head, in alphabetical order."""
    return sorted(_MODEL_TYPES[head])


def text_part(architecture: str) -> str:
    """The `model_type` of the language model inside one that reads images or sounds, too.

    That of an architecture that is made of no such parts is its own.

    Raises:
        ConfigError: transformers has no such architecture.
    """
    config = config_class(architecture)
    part = config.sub_configs.get("text_config")
    if part is None:
        return architecture
    return str(getattr(part, "model_type", "") or config().get_text_config().model_type)


def head_of(architectures: Iterable[str]) -> Head | None:
    """What a model is for whose configuration has these `architectures`; None if that is none."""
    found = [h for name in architectures for end, h in ENDINGS.items() if name.endswith(end)]
    return found[0] if found else None


def check_head(architecture: str, head: Head, whole: str | None = None) -> None:
    """Raise a `ConfigError` that lists what fits if the architecture has no such head.

    Args:
        architecture: a `model_type` of transformers.
        head: what it is to be for.
        whole: the architecture that it is the text part of.
    """
    if architecture in _MODEL_TYPES[head]:
        return
    fitting = ", ".join(name for name in PRESETS if name in _MODEL_TYPES[head])
    named = (
        architecture if whole in (None, architecture) else f"{architecture}, {whole}'s text part,"
    )
    raise ConfigError(
        f"model.architecture: transformers has no {named} for {PURPOSES[head]}; "
        f"set model to one of {fitting}"
    )


class OutputLayer:
    """A language model's last linear layer, apart from what comes before it.

    Args:
        model: Its output is what the layer gives, see `find`.
        layer: The layer.
    """

    def __init__(self, model: PreTrainedModel, layer: nn.Linear) -> None:
        self._model = model
        self._layer = layer
        offset = _offset(model)
        self._offset = None if offset is None or not bool(offset.any()) else offset.flatten()

    @classmethod
    @torch.no_grad()
    def find(cls, model: PreTrainedModel, logits: Callable[[], Tensor]) -> "OutputLayer | None":
        """The layer, or None if more is done with its logits, such as to scale or to cap them.

        The layer is made to give numbers to see whether they come out as they are: what a new model
        gives may be nought, scaled or not.

        Args:
            model: With weights.
            logits: Computes those of a few tokens.
        """
        layer = model.get_output_embeddings()
        if type(layer) is not nn.Linear:
            return None
        given: list[Tensor] = []

        def numbers(hidden: Tensor) -> Tensor:
            shape = *hidden.shape[:-1], layer.out_features
            values = torch.linspace(-100, 100, math.prod(shape), device=hidden.device)
            given.append(values.view(shape))
            return given[-1]

        modes = [(module, module.training) for module in model.modules()]
        try:
            model.eval()  # dropout by sample counts its calls
            with torch.compiler.set_stance("force_eager"), _giving(layer, numbers):
                found = logits()
        finally:
            for module, mode in modes:
                module.training = mode
        if len(given) != 1:
            return None
        offset = _offset(model)
        expected = given[0] if offset is None else given[0] + offset
        return cls(model, layer) if torch.equal(found, expected) else None

    @property
    def weight(self) -> Tensor:
        """[vocabulary, width]."""
        return self._layer.weight

    @property
    def bias(self) -> Tensor | None:
        """[vocabulary]; None: there is none."""
        if self._layer.bias is None or self._offset is None:
            return self._layer.bias if self._offset is None else self._offset
        return self._layer.bias + self._offset

    def hidden(self, logits: Callable[[], Tensor]) -> Tensor:
        """What the layer makes logits of: features [batch, length, width].

        Args:
            logits: Computes them by the model.
        """
        offset = _offset(self._model)
        try:
            if offset is not None:
                self._model.final_logits_bias = offset.new_zeros(1, 1)
            with _giving(self._layer, lambda hidden: hidden):
                return logits()
        finally:
            if offset is not None:
                self._model.final_logits_bias = offset


def _offset(model: PreTrainedModel) -> Tensor | None:
    """What models of BART's family add to their logits: a buffer [1, vocabulary]."""
    return getattr(model, "final_logits_bias", None)


@contextmanager
def _giving(layer: nn.Linear, give: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Have a layer do something else."""
    layer.forward = give  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del layer.forward
