"""Products of linear layers in eight bits, in training, by torchao.

Each token of an input, and of a gradient, has a scale of its own, and gradients of weights are
computed as they are without (torchao's recipe `rowwise_with_gw_hp`). One scale for a whole tensor
is faster, but depends on what else is in it: results would change with the size of micro-batches.
"""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from truesweep.errors import ConfigError
from truesweep.models.init import inner_layers

RECIPE = "rowwise_with_gw_hp"
CAPABILITY = 9.0
"""The oldest GPU of NVIDIA's that has such products with a scale for each row."""
MULTIPLE = 16
"""What its kernels want the sizes of a layer to be multiples of."""


def require_torchao() -> None:
    """Raise a `ConfigError` where there is no torchao."""
    if find_spec("torchao") is None:
        raise ConfigError(
            "trainer.fp8: needs the package torchao; type pip install 'truesweep[fp8]'"
        )


def fitting_layers(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear layers whose products can be in eight bits.

    Not the output layer, nor what the model itself keeps in fp32.

    Raises:
        ConfigError: There are none.
    """
    layers = list(inner_layers(model, MULTIPLE, MULTIPLE).values())
    if not layers:
        raise ConfigError(
            f"trainer.fp8: {model.config.model_type} has no linear layers (torch.nn.Linear) of a "
            f"multiple of {MULTIPLE} features. Set trainer.fp8=false, or another model"
        )
    return layers


def train_in_fp8(model: PreTrainedModel, emulate: bool = False) -> None:
    """Have the linear layers of a model compute in eight bits while it is trained, in place.

    Their weights stay what they are, under their names, and an evaluation takes them as it would
    without: its figures are those of the model that is exported. So do what hangs on a layer, such
    as dropout.

    Args:
        model: Before it is compiled.
        emulate: Whether a device without such products imitates them.

    Raises:
        ConfigError: The package is missing, or there is no such layer.
    """
    require_torchao()
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = replace(Float8LinearConfig.from_recipe_name(RECIPE), emulate=emulate)
    plain = nn.Linear(MULTIPLE, MULTIPLE, device="meta")
    # Layers keep their identity and take on the class of one that torchao has converted.
    (converted,) = convert_to_float8_training(nn.Sequential(plain), config=config)
    eight_bit = _in_training(type(converted))
    added = {name: one for name, one in vars(converted).items() if name not in vars(plain)}
    for layer in fitting_layers(model):
        vars(layer).update(added)
        layer.__class__ = eight_bit


def _in_training(converted: Any) -> Any:
    """Torchao's layer, which knows of autocast on GPUs only, and knows no evaluation."""

    class Float8Linear(converted):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return linear(x, self.weight, self.bias)
            kind = x.device.type
            if torch.is_autocast_enabled(kind):
                x = x.to(torch.get_autocast_dtype(kind))
            found: Tensor = super().forward(x)
            return found

    return Float8Linear
