"""How large a model is: parameters, operations per token, and what its layers keep of a sample."""

import copy
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from truesweep.compat import set_attention, shapes_only
from truesweep.models.adapters import added_parameters, has_adapter, is_replaced
from truesweep.models.dimensions import taken
from truesweep.models.dropout import add_residual_dropout


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters, a tied one counted once."""

    total: int
    trainable: int
    embedding: int
    """In tables that are looked up: tokens, positions, segments."""


@dataclass(frozen=True)
class Flops:
    """Operations of forward and backward pass for one token."""

    per_token: int
    method: Literal["counted", "estimated"]


@dataclass(frozen=True)
class Activations:
    """Bytes that layers keep in a forward pass for the backward pass."""

    fixed: int
    """Whatever the number of samples: of weights, what they are cast to."""
    sample: int
    """More for each sample."""
    method: Literal["counted", "estimated"]


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters; not those that an adapter's trained copies stand in for."""
    found = {p: n for n, p in model.named_parameters() if not is_replaced(n)}
    tables = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    return ParameterCount(
        total=sum(_numel(p) for p in found),
        trainable=sum(p.numel() for p in found if p.requires_grad),
        embedding=sum(p.numel() for p in tables),
    )


def _numel(parameter: Tensor) -> int:
    """How many numbers a parameter stands for, which may be kept in four bits."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def flops_per_token(model: PreTrainedModel, length: int) -> Flops:
    """Training operations per token in a sample of `length` tokens.

    Counts the matrix products of a forward pass over one sample, a multiplication and an addition
    as two, on a copy without memory, and takes the backward pass as two more. Translation is
    counted on a source and a target of `length` each, over the tokens of both; a classifier's
    last layer, once a sample, is left out. Where an architecture cannot run without data,
    6 N + 12 depth width length (Kaplan et al. 2020), with N the parameters outside of tables that
    a token passes through: of a mixture's experts, those that are chosen for it.

    Beside an adapter, the backward pass through the base is one product more, since no gradient of
    its weights is computed; what is trained adds its own products.

    Args:
        model: any model; not changed.
        length: tokens of a sample, within the model's context.
    """
    try:
        return Flops(_with_backward(model, _forward_flops(model, length)), "counted")
    except Exception:  # an operation that depends on values, or has no shape-only version
        return Flops(_with_backward(model, _estimate(model, length)), "estimated")


def _with_backward(model: PreTrainedModel, forward: int) -> int:
    """Operations of forward and backward pass, from those of the base's forward pass."""
    if not has_adapter(model):
        return 3 * forward
    trained = count_parameters(model).trainable
    return 2 * forward + 2 * trained + 4 * added_parameters(model)


def _forward_flops(model: PreTrainedModel, length: int) -> int:
    config = copy.deepcopy(model.config)
    set_attention(config, "eager")  # the fused kernels are not all known to the counter
    with shapes_only(), no_init_weights():
        empty = type(model)(config).eval()  # in training some draw what layers to leave out
        tokens = torch.ones(1, length, dtype=torch.long)
        inputs = {"input_ids": tokens}
        if empty.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = tokens
        classifies = empty.get_output_embeddings() is None
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            (empty.base_model if classifies else empty)(**inputs)
    # A classifier's decoder, as in BART, reads the source once more: no tokens of its own.
    tokens_read = length if classifies else length * len(inputs)
    return int(counter.get_total_flops()) // tokens_read


def activations(model: PreTrainedModel, length: int, mixed: torch.dtype | None) -> Activations:
    """What the layers keep of samples of `length` tokens, if they are not computed twice.

    Counts the tensors that autograd saves in a forward pass without memory, as a processor would
    do it. The output layer is left out: its logits are taken a part at a time where they are many.
    Of a translation, source and target have `length` tokens each. Where an architecture cannot run
    without data, 34 bytes for each feature of each layer and token, twice as many without mixed
    precision (Korthikanti et al. 2022, without what attention keeps).

    Args:
        model: any model; not changed. What is kept beside an adapter is what its base would keep.
        length: tokens of a sample, within the model's context.
        mixed: what products are computed in, of a mixed precision.
    """
    try:
        one, two = (_kept(model, rows, length, mixed) for rows in (1, 2))
    except Exception:  # as in `flops_per_token`
        depth, width = taken(model.config, "depth"), taken(model.config, "width")
        sample = 34 * depth * width * length * (1 if mixed else 2)
        return Activations(0, sample, "estimated")
    return Activations(max(0, 2 * one - two), two - one, "counted")


def _kept(model: PreTrainedModel, rows: int, length: int, mixed: torch.dtype | None) -> int:
    """Bytes of all that autograd saves of some samples, a tensor and its views counted once."""
    with shapes_only(), no_init_weights():
        empty = type(model)(copy.deepcopy(model.config))
        add_residual_dropout(empty, getattr(model, "residual_dropout", 0))
        tokens = torch.ones(rows, length, dtype=torch.long)
        inputs = {"input_ids": tokens}
        if empty.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = tokens
        own = {tensor.untyped_storage() for tensor in (*empty.parameters(), *empty.buffers())}
        saved = {}

        def save(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage not in own:
                saved[storage] = storage.nbytes()
            return tensor

        cast = torch.autocast("cpu", mixed or torch.bfloat16, enabled=mixed is not None)
        with cast, saved_tensors_hooks(save, lambda tensor: tensor):
            kept = empty.train().base_model(**inputs)  # holds on to what storages are told apart by
        del kept
    return sum(saved.values())


def _estimate(model: PreTrainedModel, length: int) -> int:
    count = count_parameters(model)
    depth, width = taken(model.config, "depth"), taken(model.config, "width")
    added = added_parameters(model) if has_adapter(model) else 0
    used = count.total - added - count.embedding - _passed_by(model)
    return 2 * used + 4 * depth * width * length


def _passed_by(model: PreTrainedModel) -> int:
    """Parameters of the experts that are not chosen for a token; 0: the configuration tells none.

    A layer's experts are stacked in weights of three dimensions.
    """
    chosen = getattr(model.config.get_text_config(), "num_experts_per_tok", None)
    if not chosen:
        return 0
    stacks = [p for name, p in model.named_parameters() if ".experts." in name and p.ndim == 3]
    return sum(p.numel() // len(p) * max(0, len(p) - chosen) for p in stacks)


_PEAKS: dict[str, tuple[float, float | None, float | None]] = {
    "GB300": (2500, 1250, None),
    "GB200": (2500, 1250, 80),
    "B300": (2250, 1125, None),
    "B200": (2250, 1125, 75),
    "H200": (989.4, 494.7, 66.9),
    "GH200": (989.4, 494.7, 66.9),
    "H100 PCIe": (756, 378, 51.2),
    "H100 NVL": (835.5, 417.7, 60),
    "H100": (989.4, 494.7, 66.9),
    "H800 PCIe": (756, 378, 51.2),
    "H800": (989.4, 494.7, 66.9),
    "H20": (148, 74, 44),
    "A800": (312, 156, 19.5),
    "A100": (312, 156, 19.5),
    "A40": (149.7, 74.8, 37.4),
    "A30": (165, 82, 10.3),
    "A10G": (70, 35, 35),
    "A10": (125, 62.5, 31.2),
    "L40S": (362, 183, 91.6),
    "L40": (181, 90.5, 90.5),
    "L4": (121, 60, 30.3),
    "V100": (125, None, 15.7),
    "T4": (65, None, 8.1),
    "RTX A6000": (154.8, 77.4, 38.7),
    "RTX 6000 Ada": (364.2, 182.1, 91.1),
    "RTX PRO 6000 Blackwell Workstation": (503.8, 251.9, 125),
    "RTX 5090": (209.5, 104.8, 104.8),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71.2, 35.6, 35.6),
    "MI325X": (1307.4, 653.7, 163.4),
    "MI300X": (1307.4, 653.7, 163.4),
}
"""By a word of a card's name, TFLOP/s of dense products: in 16 bits (sums in 32), tf32, fp32.

From the data sheets and white papers of NVIDIA and AMD, where sparsity doubles them. The first that
fits counts.
"""
_OTHERS = r"(?i:.*\b(Laptop|Max-Q|Ti|SUPER|D|MIG)\b)"
"""What makes another card of a name, or a part of one."""


def peak_flops(card: str, precision: str) -> float | None:
    """Operations a second that a card's matrix products can do at most; None: not known.

    Args:
        card: Its name, as the driver has it.
        precision: That of the training, as in `trainer.precision`.
    """
    fits = (p for name, p in _PEAKS.items() if re.search(rf"\b{name}\b(?!{_OTHERS})", card))
    found = next(fits, None)
    if found is None or precision == "64-true":
        return None
    half, tf32, single = found
    exact = torch.get_float32_matmul_precision() == "highest"
    peak = half if precision != "32-true" else single if exact else tf32 or single
    return None if peak is None else 1e12 * peak
