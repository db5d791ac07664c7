"""One learning rate for all sizes: how weights start and learn, relative to a smaller model.

With m = width / base width and l = depth / base depth, and of each matrix its own ratios of fan-in
and fan-out, m_in and m_out (all m, but where rounding has its say), relative to the base model:

                          starts (std)   AdamW's rate   Muon's step (norm)    epsilon
    embeddings            1              1              -                     1 / m
    norms, biases         1              1              -                     1 / m
    hidden matrices       m_in^(-1/2)    1 / m_in       (m_out / m_in)^(1/2)  1 / m_out
    output layer          1 / m          1 / m          -                     1
    inside blocks, depth  1              1              1                     times 1 / l
    into the residual
      stream, depth       times 1 / l    times 1 / l    times 1 / l           1
    weight decay          as much a step as the base has: over the factor of the rate

The width's rules are those of Yang et al. 2022 (arXiv 2203.03466, table 3, which has no multipliers
in the forward pass), for Muon those of the spectral condition (Yang, Simon & Bernstein 2023, arXiv
2310.17813); the depth's, epsilon's and the decay's are those of Dey et al. 2025 (CompleteP, arXiv
2505.01618, table 1).

What a paper multiplies in the forward pass is folded into the weights that come before it: for
optimizers whose steps do not change with the gradient's scale, W = a w with w starting at s and
learning at r is the same as W starting at a s and learning at a r, with decay / a and epsilon / a.
So the model is a plain one of transformers. Folded are

- a block's share of the residual stream, 1 / l, into the layer that writes it;
- attention by 1 / d in place of 1 / sqrt(d), with d a head's features, into the queries;
- the logits' 1 / m, where the output layer is the table of embeddings, into the norm before it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from truesweep.errors import ConfigError
from truesweep.models.init import output_layers, residual_writers

Parametrization = Literal["standard", "mup", "completep"]


@dataclass(frozen=True)
class Scale:
    """By what the numbers of a parameter differ from those it would have in the base model.

    Args:
        init: Of the standard deviation that it starts with.
        rate: Of AdamW's learning rate.
        spectral: Of the spectral norm of a step of Muon's.
        eps: Of AdamW's epsilon.
        fold: The part of these that stands for a multiplier in the forward pass.
        base: Its shape in the base model; none where nothing differs.
    """

    init: float = 1.0
    rate: float = 1.0
    spectral: float = 1.0
    eps: float = 1.0
    fold: float = 1.0
    base: tuple[int, ...] = ()

    def folded(self, multiplier: float) -> "Scale":
        """The same with a multiplier of the forward pass folded in."""
        return replace(
            self,
            init=self.init * multiplier,
            rate=self.rate * multiplier,
            spectral=self.spectral * multiplier,
            eps=self.eps / multiplier,
            fold=self.fold * multiplier,
        )


NEUTRAL = Scale()

_LAST_NORMS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), r"model\.norm"),
    "lfm2": r"model\.embedding_norm",
    "gpt2": r"transformer\.ln_f",
    "bert": r"cls\.predictions\.transform\.LayerNorm",
    "mbart": r"model\.decoder\.layer_norm",
    **dict.fromkeys(("bart", "marian"), r"model\.decoder\.layers\.{last}\.final_layer_norm"),
}
"""The norm before the output layer, by architecture: all those that this is known to be right for.

Their matrices start from one number for all widths, nothing in them is multiplied by the width, and
their tests compare them with the multipliers in the forward pass.
"""
_AFTER_THE_SUM = ("bert", "bart", "marian")
"""Architectures whose norms come after the residual sum, so that a block has no share of it."""
_FUSED = ("gpt2",)
"""Architectures whose queries are part of a larger matrix."""
_STARTS_BY_DEPTH = ("gpt2",)
"""Architectures that start what writes into the residual stream at 1 / sqrt(depth)."""

_QUERY_NORM = re.compile(r"\.(q_norm|q_layernorm)\.weight$")
_QUERY = re.compile(r"\.(q_proj|query)\.(weight|bias)$")
_BLOCK = re.compile(r"\.\d+\.")


def check_parametrization(
    architecture: str, how: Parametrization, *, head_features: tuple[int, int]
) -> None:
    """Refuse an architecture for which a parametrization is not known to be exact.

    Args:
        architecture: A `model_type` of transformers.
        how: The parametrization.
        head_features: Of an attention head, in the model and in the base model.

    Raises:
        ConfigError: It is one; the message says what to do.
    """
    if how == "standard":
        return
    asked = f"model.parametrization={how}"
    if architecture not in _LAST_NORMS:
        raise ConfigError(
            f"{asked}: is not known to be right for {architecture}. Set model.architecture to one "
            f"of {', '.join(_LAST_NORMS)}, or model.parametrization=standard."
        )
    if how == "completep" and architecture in _AFTER_THE_SUM:
        raise ConfigError(
            f"{asked}: {architecture} has its norms after the residual sum, where depth has no "
            "such rule. Set model.parametrization=mup, or another model."
        )
    own, base = head_features
    if architecture in _FUSED and own != base:
        raise ConfigError(
            f"{asked}: {architecture} has queries, keys and values in one matrix, so that its "
            f"attention cannot be scaled: a head has {own} features, and {base} in the base model. "
            f"Set model.heads so that it has {base}, with model.base_heads for the base model, "
            "or another model, such as llama."
        )


@torch.no_grad()
def parametrize(
    model: PreTrainedModel, base: PreTrainedModel, depth_ratio: float, *, scaled: bool
) -> None:
    """Scale a new model's weights, and keep with it, as `scales`, how its parameters learn.

    Args:
        model: With weights as they start in the standard parametrization.
        base: The same architecture of the base width and heads, as deep as the model; only its
            shapes count.
        depth_ratio: The depth over that of the base model; 1 where depth has no rule.
        scaled: Whether weights started from `init=scaled`, which follows the fan-in.
    """
    found = dict(_scales(model, base, depth_ratio))
    writers = {module.weight for module in residual_writers(model)}
    matrices = _matrices(model)
    for name, parameter in model.named_parameters():
        own = 1.0
        if parameter in matrices and scaled:
            own = matrices[parameter].ratios(found[name].base)[0] ** -0.5
        elif parameter in writers and model.config.model_type in _STARTS_BY_DEPTH:
            own = depth_ratio**-0.5
        if (factor := found[name].init / own) != 1:
            parameter.mul_(factor)
    model.scales = found  # type: ignore[assignment]


@dataclass(frozen=True)
class _Matrix:
    """A linear layer's weight: which of its two sizes is which."""

    shape: tuple[int, int]
    transposed: bool

    def ratios(self, base: tuple[int, ...]) -> tuple[float, float]:
        """Of fan-in and of fan-out to those in the base model."""
        rows, columns = (own / of for own, of in zip(self.shape, base or self.shape, strict=True))
        return (rows, columns) if self.transposed else (columns, rows)


def _matrices(model: PreTrainedModel) -> dict[Tensor, _Matrix]:
    """The weights of linear layers, tables that are output layers left out."""
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        module.weight: _Matrix((module.weight.shape[0], module.weight.shape[1]), transposed)
        for module in model.modules()
        if (transposed := isinstance(module, Conv1D)) or isinstance(module, nn.Linear)
        if module.weight not in tables
    }


def _scales(
    model: PreTrainedModel, base: PreTrainedModel, depth_ratio: float
) -> Iterator[tuple[str, Scale]]:
    """Each parameter's scale by its name."""
    width_ratio = model.config.hidden_size / base.config.hidden_size
    matrices, folds = _matrices(model), _folds(model, base, depth_ratio)
    writers = {p for module in residual_writers(model) for p in module.parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in base.named_parameters()}
    for name, parameter in model.named_parameters():
        scale, shape = NEUTRAL, shapes[name]
        if parameter in matrices:
            fan_in, fan_out = matrices[parameter].ratios(shape)
            narrow = fan_out == 1 != fan_in  # as many outputs in all sizes
            scale = Scale(
                init=1 / fan_in if narrow else fan_in**-0.5,
                rate=1 / fan_in,
                spectral=math.sqrt(fan_out / fan_in),
                eps=1 / fan_out,
            )
        elif shape != parameter.shape:
            scale = Scale(eps=1 / width_ratio)
        if _BLOCK.search(name) and parameter not in writers:
            scale = replace(scale, eps=scale.eps / depth_ratio)
        if parameter in writers:
            # Its gradient is that of the residual stream, which has no share of the depth.
            scale = replace(scale.folded(1 / depth_ratio), eps=scale.eps)
        scale = scale.folded(folds.get(name, 1.0))
        yield name, scale if scale == NEUTRAL else replace(scale, base=shape)


def _folds(model: PreTrainedModel, base: PreTrainedModel, depth_ratio: float) -> dict[str, float]:
    """The multipliers of attention and of tied logits, by the names of what they are folded into.

    Attention's is 1 / d over the base model's, where the model's own scaling is already a part.
    """
    folds: dict[str, float] = {}
    names = [name for name, _ in model.named_parameters()]
    queries = [n for n in names if _QUERY_NORM.search(n)] or [n for n in names if _QUERY.search(n)]
    ratio = _head_features(model) / _head_features(base)
    if ratio != 1:
        folds |= dict.fromkeys(queries, ratio**-0.5)
    if model.get_output_embeddings() is not None and not output_layers(model):
        last = _LAST_NORMS[model.config.model_type].replace(
            "{last}", str(model.config.num_hidden_layers - 1)
        )
        width_ratio = model.config.hidden_size / base.config.hidden_size
        folds |= {n: 1 / width_ratio for n in names if re.match(rf"{last}\.(weight|bias)$", n)}
    return folds


def _head_features(model: PreTrainedModel) -> int:
    config = model.config
    found = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(found)
