"""Which linear layer does what in a model, and starting weights that learn fast."""

import math
import re
from collections.abc import Collection

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from truesweep.compat import kept_in_fp32
from truesweep.errors import ConfigError

# Last parts of the names that transformers gives the last layer of an attention, MLP,
# convolution or state-space block; a number before them says that it stands in a stack of layers.
_WRITERS = re.compile(
    r"\.\d+\.(.*\.)?("
    r"o_proj|out_proj|down_proj|c_proj|fc2|w2|wo|Wo|o|out_lin|lin2|fc_out|ffn_output|"
    r"dense_4h_to_h|(output|attention|self_attention|self_attn)\.dense)$"
)


def residual_writers(model: PreTrainedModel) -> list[nn.Module]:
    """Layers that write into the residual stream, two or three a block; none if not known."""
    width = model.config.hidden_size
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and _WRITERS.search(name)
        and (module.nf if isinstance(module, Conv1D) else module.out_features) == width
    ]


GAIN = 0.7  # std of a weight times the root of its fan-in
TABLE_STD = 0.3  # of untied embeddings; against 0.02, better in the first hundred steps


@torch.no_grad()
def scale_weights(model: PreTrainedModel) -> None:
    """Give linear layers and convolutions std 0.7 / sqrt(fan-in), and start from nothing learned.

    Zero is what writes into the residual stream, so that each block starts as the identity, and
    the output layer unless it is tied to the embeddings, so that each class or token starts
    equally likely. Embeddings get std 0.3 unless they are tied, when their scale is the logits'.
    Norms and biases keep the architecture's own.

    Raises:
        ConfigError: it is not known which layers write into the residual stream.
    """
    writers = residual_writers(model)
    if not writers:
        raise ConfigError(
            "model.init=scaled: it is not known which layers of "
            f"{model.config.model_type} write into the residual stream. Set model.init=default."
        )
    outputs = output_layers(model)
    zero = {module.weight for module in [*writers, *outputs]}
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            if outputs:
                _scale_table(module, model.config.hidden_size)
        elif isinstance(module, nn.Linear | Conv1D | nn.Conv1d) and module.weight not in tables:
            std = 0 if module.weight in zero else GAIN / math.sqrt(_fan_in(module))
            module.weight.normal_(std=std)


def _scale_table(table: nn.Embedding, width: int) -> None:
    """Redraw a table that feeds the residual stream; not T5's biases, nor fixed positions."""
    if table.embedding_dim == width and table.weight.requires_grad:
        table.weight.normal_(std=TABLE_STD)
        if table.padding_idx is not None:
            table.weight[table.padding_idx].zero_()


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


def inner_layers(
    model: PreTrainedModel, inputs: int, outputs: int = 1, whole: Collection[str] = ()
) -> dict[str, nn.Linear]:
    """Linear layers that may have another type than the rest, by name.

    Neither the output layer nor what the model itself keeps in fp32, nor subclasses of torch's.

    Args:
        model: The model.
        inputs: What their number of inputs is a multiple of.
        outputs: Likewise their number of outputs.
        whole: Names of further modules that are none of them, or the ends of these.
    """
    spared = {*whole, *kept_in_fp32(model)}
    last = {id(layer) for layer in [model.get_output_embeddings(), *output_layers(model)]}
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module.in_features % inputs == module.out_features % outputs == 0
        and id(module) not in last
        and not spared.intersection(name.split("."))
    }
