"""One dropout rate, whatever an architecture calls its own."""

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from truesweep.compat import attention
from truesweep.errors import ConfigError
from truesweep.models.residual import residual_writers

_RATE = re.compile(r"(^|_)(dropout|pdrop)(_prob|_rate|_p)?$")
_ON_ATTENTION = re.compile(r"^att(entio)?n_")
_POSITIONS_FIRST = {"xlnet", "fsmt"}  # tensors of theirs are [positions, samples, features]
_ON_RESIDUALS = {
    *("resid_pdrop", "resid_dropout", "residual_dropout", "hidden_dropout_prob", "hidden_dropout"),
    *("dropout", "dropout_rate", "dropout_p", "mlp_dropout"),
}


def dropout_fields(config: type[PreTrainedConfig], rate: float) -> dict[str, Any]:
    """The rate for every dropout of a configuration, of its embeddings, attention, residuals, head.

    Dropout inside an MLP's activation keeps the architecture's own rate, which is 0.
    """
    return {
        field.name: rate
        for field in fields(config)
        if _RATE.search(field.name)
        and field.name != "activation_dropout"
        and not isinstance(field.default, bool)
    }


def check_layerdrop(given: Mapping[str, Any]) -> None:
    """Raise a `ConfigError` if whole layers shall be dropped."""
    for name, value in given.items():
        if "layerdrop" in name and value:
            raise ConfigError(
                f"model.config.{name}={value}: which layers are dropped would depend on how a "
                "batch is split. Remove it."
            )


def add_residual_dropout(model: PreTrainedModel, rate: float) -> None:
    """Drop features of what is added to the residual stream where the architecture drops none.

    Llama and its descendants have dropout on attention weights at most. It is added by hooks, so
    that the names of weights stay those of transformers; it is not part of a saved model.

    Raises:
        ConfigError: it is not known which layers write into the residual stream.
    """
    names = {field.name for field in fields(type(model.config))}
    if rate == 0 or names & _ON_RESIDUALS:
        return
    writers = residual_writers(model)
    if not writers:
        raise ConfigError(
            f"model.dropout={rate}: {model.config.model_type} has no dropout of its own. "
            "Set model.dropout=0."
        )
    model.residual_dropout = rate  # type: ignore[assignment]
    for writer in writers:
        writer.register_forward_hook(partial(_drop, rate=rate))


def restrict_dropout(model: PreTrainedModel) -> None:
    """Leave only dropout that `SampleDropout` can replace; whole layers (BART's) are kept.

    Raises:
        ConfigError: some other dropout is on, so that results would depend on how batches split.
    """
    for module in model.modules():
        if getattr(module, "layerdrop", 0):
            module.layerdrop = 0.0  # type: ignore[assignment]
    config, dropped = model.config, _dropped(model)
    if dropped and config.model_type in _POSITIONS_FIRST:
        raise ConfigError(
            f"model.dropout: what {config.model_type} drops would depend on how a batch is split. "
            "Set model.dropout=0, or another model."
        )
    on_attention = any(_ON_ATTENTION.match(name) for name in dropped)
    if on_attention and attention(config) == "flash_attention_2":
        raise ConfigError(
            "model.attention=flash_attention_2: what it drops of the attention's weights would "
            "depend on how a batch is split. Set model.attention=sdpa."
        )


def drops(model: PreTrainedModel) -> bool:
    """Whether a model drops anything while it is trained."""
    own = any(isinstance(module, nn.Dropout) and module.p for module in model.modules())
    return own or bool(getattr(model, "residual_dropout", 0)) or bool(_dropped(model))


def _dropped(model: PreTrainedModel) -> list[str]:
    """The rates of a model's configuration that are not nought, by name."""
    names = [field.name for field in fields(type(model.config)) if _RATE.search(field.name)]
    return [name for name in names if getattr(model.config, name, None)]


def _drop(module: nn.Module, _inputs: Any, output: Tensor, *, rate: float) -> Tensor:
    return functional.dropout(output, rate, module.training)
