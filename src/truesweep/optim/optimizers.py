"""The optimizers behind `optimizer=adamw|muon|sgd`; each takes the groups of `parameter_groups`."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Protocol

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from transformers.pytorch_utils import Conv1D

from truesweep.compat import muon_rate
from truesweep.errors import ConfigError
from truesweep.optim.muon_adamw import BatchedMuon, MuonAdamW, parts_of

Groups = list[dict[str, Any]]
Rate = Annotated[float, Gt(0)]
Decay = Annotated[float, Ge(0)]
Momentum = Annotated[float, Ge(0), Lt(1)]

Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine"
]
_FULL = {"32-true": torch.float32, "64-true": torch.float64}
_FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}


def adamw(
    params: Groups,
    lr: Rate = 1e-3,
    weight_decay: Decay = 0.1,
    betas: tuple[Momentum, Momentum] = (0.9, 0.95),
    eps: Rate = 1e-8,
    embedding_lr_ratio: Rate = 1.0,
    head_lr_ratio: Rate = 1.0,
    gain_lr_ratio: Rate = 1.0,
    adapter_b_lr_ratio: Rate = 1.0,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused where the device has such a kernel.

    Args:
        params: groups of `parameter_groups`, whose own decay counts.
        lr: peak learning rate.
        weight_decay: of a group that says nothing; `parameter_groups` is given the same number.
        betas: decay of the averages of gradient and squared gradient.
        eps: added to the root of the squared average.
        embedding_lr_ratio: rate of embeddings over `lr`.
        head_lr_ratio: likewise of an untied output layer or a classifier's last.
        gain_lr_ratio: likewise of norms, biases and convolution kernels.
        adapter_b_lr_ratio: likewise of LoRA's second matrices (LoRA+, Hayou et al. 2024).
    """
    groups = _at_ratios(
        params,
        lr,
        embedding=embedding_lr_ratio,
        head=head_lr_ratio,
        gain=gain_lr_ratio,
        adapter_b=adapter_b_lr_ratio,
    )
    return torch.optim.AdamW(
        groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, fused=_can_fuse(groups)
    )


def sgd(
    params: Groups,
    lr: Rate = 0.1,
    momentum: Momentum = 0.9,
    nesterov: bool = True,
    weight_decay: Decay = 0.0,
    embedding_lr_ratio: Rate = 1.0,
    head_lr_ratio: Rate = 1.0,
    gain_lr_ratio: Rate = 1.0,
    adapter_b_lr_ratio: Rate = 1.0,
) -> torch.optim.SGD:
    """Stochastic gradient descent, with Nesterov's momentum unless `momentum` is 0.

    Args:
        params: groups of `parameter_groups`.
        lr: peak learning rate.
        momentum: share of the last step in the next.
        nesterov: look one step of momentum ahead.
        weight_decay: of a group that says nothing.
        embedding_lr_ratio: rate of embeddings over `lr`.
        head_lr_ratio: likewise of an untied output layer or a classifier's last.
        gain_lr_ratio: likewise of norms, biases and convolution kernels.
        adapter_b_lr_ratio: likewise of LoRA's second matrices (LoRA+, Hayou et al. 2024).
    """
    groups = _at_ratios(
        params,
        lr,
        embedding=embedding_lr_ratio,
        head=head_lr_ratio,
        gain=gain_lr_ratio,
        adapter_b=adapter_b_lr_ratio,
    )
    return torch.optim.SGD(
        groups,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        # torch 2.13 has a fused AdamW of weights that ranks share, and no such SGD.
        fused=_can_fuse(groups) and not any(isinstance(p, DTensor) for p in _parameters(groups)),
    )


def muon(
    params: Groups,
    lr: Rate = 0.02,
    weight_decay: Decay = 0.0,
    momentum: Momentum = 0.95,
    ns_steps: Annotated[int, Gt(0), Lt(100)] = 4,
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original",
    embedding_lr_ratio: Rate = 2.0,
    head_lr_ratio: Rate = 0.5,
    gain_lr_ratio: Rate = 1.5,
    adapter_b_lr_ratio: Rate = 1.0,
    betas: tuple[Momentum, Momentum] = (0.9, 0.95),
    eps: Rate = 1e-8,
    precision: Precision = "32-true",
) -> MuonAdamW:
    """Muon (Jordan 2024) for hidden matrices, AdamW for the rest, all rates ratios of one `lr`.

    Args:
        params: groups of `parameter_groups`; the role decides who gets a group.
        lr: peak learning rate of Muon.
        weight_decay: decoupled, of a group that says nothing.
        momentum: of Muon, with Nesterov's correction.
        ns_steps: Newton-Schulz iterations; four learned as well as the usual five here.
        adjust_lr_fn: how Muon's rate follows a matrix' shape, see `torch.optim.Muon`; at a rate
            of 0.02, `original` was 0.02 to 0.04 nats better after 115 steps.
        embedding_lr_ratio: AdamW's rate for embeddings over `lr`.
        head_lr_ratio: likewise for an untied output layer or classifier.
        gain_lr_ratio: likewise for norms, biases and convolution kernels.
        adapter_b_lr_ratio: Muon's for LoRA's second matrices (LoRA+, Hayou et al. 2024).
        betas: of AdamW.
        eps: of AdamW.
        precision: that of the training, as in `trainer.precision`. In full precision Muon's
            products have it too: those in bf16 amplify rounding, so that results agree to 1e-3 only
            where gradients agree to 1e-7. In any other they are bf16, in half the time.

    Raises:
        ConfigError: no group has the role `matrix`, as when parameters are sharded flat.
    """
    groups = _at_ratios(
        [{"weight_decay": weight_decay, **group} for group in params],
        lr,
        embedding=embedding_lr_ratio,
        head=head_lr_ratio,
        gain=gain_lr_ratio,
        adapter_b=adapter_b_lr_ratio,
    )
    matrices = [group for group in groups if group["role"] in _ORTHOGONAL]
    others = [group for group in groups if group["role"] not in _ORTHOGONAL]
    if not matrices:
        raise ConfigError(
            "optimizer=muon: found no 2-D weights of linear layers (none are trainable, or the "
            "strategy shards them flat); set optimizer=adamw"
        )
    return MuonAdamW(
        matrices,
        others,
        muon={
            "momentum": momentum,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "dtype": _FULL.get(precision, torch.bfloat16),
        },
        adamw={"betas": betas, "eps": eps, "fused": _can_fuse(others)},
    )


def _at_ratios(groups: Groups, lr: float, **ratios: float) -> Groups:
    """The groups at `lr` times the ratio of their role, which is 1 for roles without one."""
    paced = ((group, ratios.get(group["role"], 1.0)) for group in groups)
    return [{**group, "lr": lr * ratio, OVER_BASE: ratio} for group, ratio in paced]


def _can_fuse(groups: Groups) -> bool:
    return all(
        parameter.device.type in _FUSED_DEVICES and parameter.is_floating_point()
        for parameter in _parameters(groups)
    )


def _parameters(groups: Groups) -> Iterator[Tensor]:
    return (parameter for group in groups for parameter in group["params"])


# -- a model's parameters, by the role they play ---------------------------------------------------

OVER_BASE = "lr_over_base"
"""What a group's learning rate is over the optimizer's `lr`; 1 of a group that does not say."""

Role = Literal["matrix", "adapter_b", "embedding", "head", "gain"]
ROLES: tuple[Role, ...] = ("matrix", "adapter_b", "embedding", "head", "gain")

_ORTHOGONAL: frozenset[Role] = frozenset({"matrix", "adapter_b"})
_DECAYED: frozenset[Role] = _ORTHOGONAL | {"head"}


def parameter_groups(
    model: nn.Module, weight_decay: float, *, adapter_b: bool = False
) -> list[dict[str, Any]]:
    """Trainable parameters as optimizer groups, one for each role that occurs.

    - `matrix`: the 2-D weight of a linear layer inside the model;
    - `adapter_b`: the second matrix of a LoRA on such a layer, if asked for; else a `matrix`;
    - `embedding`: any table that is looked up: tokens, positions, segments, T5's relative
      positions. A table that is also the output layer (tied) is an embedding;
    - `head`: the 2-D weight of the output layer: the untied vocabulary or the classes;
    - `gain`: the rest: biases, norms, convolution kernels, a mixture's stacked experts.

    Only matrices and the head are decayed. A table is not: the row of a rare token would be
    shrunk at every step and corrected at few.

    A model whose parametrization has `scales` has a group for each scale of a role, and of Muon's
    matrices for each shape, which `rescale` needs.

    Args:
        model: the model, on its final device. Frozen parameters are left out.
        weight_decay: the decay of matrices and the head.
        adapter_b: whether LoRA's second matrices have a role of their own. States of optimizers
            go by the order of parameters, which this changes.

    Returns:
        Dicts of `params`, `weight_decay`, `role` and, where the model has some, `scale`, in the
        order of `ROLES`, each parameter in exactly one.
    """
    scales: dict[str, Scale] = getattr(model, "scales", {})
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    groups: dict[Any, dict[str, Any]] = {}
    for parameter, role in _roles(model, adapter_b).items():
        if not parameter.requires_grad:
            continue
        decay = weight_decay if role in _DECAYED else 0.0
        group: dict[str, Any] = {"params": [], "weight_decay": decay, "role": role}
        key: tuple[Any, ...] = (role,)
        if scales:
            group["scale"] = scale = scales[names[parameter]]
            shape = parameter.shape if role == "matrix" and scale.base else ()
            key = role, scale.rate, scale.spectral, scale.eps, shape
        groups.setdefault(key, group)["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: ROLES.index(group["role"]))


class Scale(Protocol):
    """How a parameter learns relative to a smaller model, see `models.parametrization`."""

    @property
    def rate(self) -> float:
        """AdamW's learning rate over the smaller model's."""
        ...

    @property
    def spectral(self) -> float:
        """The spectral norm of Muon's step, likewise."""
        ...

    @property
    def eps(self) -> float:
        """AdamW's epsilon, likewise."""
        ...

    @property
    def base(self) -> tuple[int, ...]:
        """The shape in the smaller model; none where nothing differs."""
        ...


def rescale(optimizer: Optimizer) -> None:
    """Have each group learn as its `scale` says; a step then decays as much as without.

    Raises:
        ConfigError: There are scales, and no rules for such an optimizer.
    """
    for part in parts_of(optimizer):
        for group in part.param_groups:
            scale: Scale | None = group.pop("scale", None)
            if scale is None:
                continue
            factor = scale.rate
            if isinstance(part, BatchedMuon):
                factor = scale.spectral * _norm_over_base(group, scale.base)
            elif isinstance(part, AdamW):
                group["eps"] *= scale.eps
            else:
                raise ConfigError(
                    f"optimizer: model.parametrization has rules for AdamW and Muon, none for "
                    f"{type(part).__name__}. Set optimizer=adamw or optimizer=muon, or "
                    "model.parametrization=standard."
                )
            group["lr"] *= factor
            group["weight_decay"] /= factor
            group[OVER_BASE] = group.get(OVER_BASE, 1.0) * factor


def _norm_over_base(group: dict[str, Any], base: tuple[int, ...]) -> float:
    """What undoes how Muon's own rule makes steps follow a matrix' shape."""
    if not base:
        return 1.0
    rates = [
        muon_rate({**group, "lr": 1.0}, shape) for shape in (base, tuple(group["params"][0].shape))
    ]
    return rates[0] / rates[1]


def _roles(model: nn.Module, adapter_b: bool) -> dict[Tensor, Role]:
    heads = _head_weights(model)
    roles: dict[Tensor, Role] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                roles[parameter] = "embedding"  # over "head": a tied table is met twice
            elif parameter in heads:
                roles.setdefault(parameter, "head")
            elif isinstance(module, nn.Linear | Conv1D) and name == "weight":
                second = adapter_b and "lora_B" in path.split(".")
                roles.setdefault(parameter, "adapter_b" if second else "matrix")
            else:
                roles.setdefault(parameter, "gain")
    return roles


def _head_weights(model: nn.Module) -> set[Tensor]:
    """Weights of the output layer of a language model, or of the classes of a classifier."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:
        return {output.weight}
    inner = set(getattr(model, "base_model", model).modules())
    classes = getattr(getattr(model, "config", None), "num_labels", None)
    return {
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and module not in inner and module.out_features == classes
    }
