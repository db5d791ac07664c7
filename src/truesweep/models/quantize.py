"""Weights in four bits, beside which an adapter is trained: QLoRA (Dettmers et al. 2023).

They are quantised on the CPU, so that they are the same on every device, and stay what they are.
"""

from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from truesweep.errors import ConfigError
from truesweep.models.init import inner_layers

INSTALL = "pip install 'truesweep[qlora]'"
BLOCK = 64
"""Weights that share a scale."""


def require_bitsandbytes() -> None:
    """Raise a `ConfigError` where weights cannot be quantised."""
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"adapter.quantize: needs the package bitsandbytes; type {INSTALL}")


@torch.no_grad()
def quantize(model: PreTrainedModel, whole: Collection[str] = ()) -> None:
    """Have the linear layers of a model keep their weights as NF4, in blocks of 64, in place.

    The output layer stays as it is, and so does what the model itself keeps in fp32. So does a
    layer of whose rows blocks are no part: bitsandbytes 0.50 reads these wrong on a CPU, silently.

    Args:
        model: With weights, on the CPU.
        whole: Names of further modules that stay as they are, or the ends of these.

    Raises:
        ConfigError: The package is missing, or there is no such layer.
    """
    require_bitsandbytes()
    layers = inner_layers(model, BLOCK, whole=whole)
    if not layers:
        raise ConfigError(
            f"adapter.quantize: {model.config.model_type} has no linear layers (torch.nn.Linear) "
            f"of a multiple of {BLOCK} inputs, whose weights could be quantised. Set "
            "adapter.quantize=null"
        )
    with torch.device("cpu"):
        for name, layer in layers.items():
            model.set_submodule(name, _in_four_bits(layer))
    vars(model)["is_loaded_in_4bit"] = True  # by which peft and transformers know


def dequantize(model: PreTrainedModel) -> None:
    """Give the layers that `quantize` has changed the weights that they stand for, in place."""
    for name, layer in dict(model.named_modules()).items():
        if is_quantized(getattr(layer, "weight", None)):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(dequantized(layer.weight), requires_grad=False)
            plain.bias = layer.bias
            model.set_submodule(name, plain)
    vars(model).pop("is_loaded_in_4bit", None)


def is_quantized(weight: Any) -> bool:
    """Whether a weight is kept in four bits."""
    return getattr(weight, "quant_state", None) is not None


def has_quantized(model: PreTrainedModel) -> bool:
    """Whether a model has weights in four bits."""
    return any(is_quantized(parameter) for parameter in model.parameters())


def loadable_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state of a model, without what is beside the weights in four bits, and stays."""
    beside = tuple(f"{name}." for name, p in model.named_parameters() if is_quantized(p))
    return {n: tensor for n, tensor in model.state_dict().items() if not n.startswith(beside)}


def dequantized(weight: Any) -> Tensor:
    """The numbers that a quantised weight stands for."""
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return found


def _in_four_bits(layer: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Params4bit

    four = _linear()(layer.in_features, layer.out_features, bias=False, device="meta")
    kept = {"quant_type": "nf4", "blocksize": BLOCK, "compress_statistics": False, "module": four}
    four.weight = Params4bit(layer.weight.data, requires_grad=False, **kept).to("cpu")
    four.bias = layer.bias
    found: nn.Module = four
    return found


@cache
def _linear() -> Any:
    """The layer of bitsandbytes, which peft knows, computing as torch's does.

    By itself it takes the precision of what it is first given, whatever comes then, and in
    evaluations on a CPU that has it computes in bf16.
    """
    from bitsandbytes import matmul_4bit
    from bitsandbytes.nn import Linear4bit

    class Linear(Linear4bit):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            kind = x.device.type
            if torch.is_autocast_enabled(kind):
                x = x.to(torch.get_autocast_dtype(kind))
            bias = None if self.bias is None else self.bias.to(x.dtype)
            found: Tensor = matmul_4bit(x, self.weight, quant_state=self.quant_state, bias=bias)
            return found

    return Linear
