"""Starting weights that let a small model learn fast."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from truesweep.errors import ConfigError
from truesweep.models.residual import residual_writers

GAIN = 0.7
"""Standard deviation of a weight times the root of its fan-in."""


@torch.no_grad()
def scale_weights(model: PreTrainedModel) -> None:
    """Give linear layers and convolutions std 0.7 / sqrt(fan-in), and start from nothing learned.

    Zero is what writes into the residual stream, so that each block starts as the identity, and
    the output layer unless it is tied to the embeddings, so that each class or token starts
    equally likely. Embeddings, norms and biases keep the architecture's own.

    Raises:
        ConfigError: it is not known which layers write into the residual stream.
    """
    writers = residual_writers(model)
    if not writers:
        raise ConfigError(
            "model.init=scaled: it is not known which layers of "
            f"{model.config.model_type} write into the residual stream. Set model.init=default."
        )
    zero = {id(module.weight) for module in [*writers, *output_layers(model)]}
    for module in model.modules():
        if not isinstance(module, nn.Linear | Conv1D | nn.Conv1d):
            continue
        if id(module.weight) in zero:
            module.weight.zero_()
        elif module.weight is not model.get_input_embeddings().weight:
            module.weight.normal_(std=GAIN / math.sqrt(_fan_in(module)))


def _fan_in(module: nn.Linear | Conv1D | nn.Conv1d) -> int:
    """How many inputs one output sums over."""
    weight: Tensor = module.weight
    return weight.shape[0] if isinstance(module, Conv1D) else weight[0].numel()


def output_layers(model: PreTrainedModel) -> list[nn.Linear]:
    """The untied output layer of a language model, or a classifier's last."""
    output = model.get_output_embeddings()
    if output is not None:
        tied = output.weight is model.get_input_embeddings().weight
        return [] if tied else [output]
    inner = set(model.base_model.modules())
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and module not in inner
        and module.out_features == model.config.num_labels
    ]
