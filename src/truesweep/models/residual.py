"""The linear layers whose output is added to the residual stream."""

import re

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

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
        and _features_out(module) == width
    ]


def _features_out(module: nn.Linear | Conv1D) -> int:
    return module.out_features if isinstance(module, nn.Linear) else int(module.nf)
