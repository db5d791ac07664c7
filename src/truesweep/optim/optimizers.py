"""The optimizers behind `optimizer=adamw|muon|sgd`; each takes the groups of `parameter_groups`."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from truesweep.errors import ConfigError
from truesweep.optim.muon_adamw import MuonAdamW

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
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused where the device has such a kernel.

    Args:
        params: groups of `parameter_groups`, whose own decay counts.
        lr: peak learning rate.
        weight_decay: of a group that says nothing; `parameter_groups` is given the same number.
        betas: decay of the averages of gradient and squared gradient.
        eps: added to the root of the squared average.
    """
    return torch.optim.AdamW(
        params, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, fused=_can_fuse(params)
    )


def sgd(
    params: Groups,
    lr: Rate = 0.1,
    momentum: Momentum = 0.9,
    nesterov: bool = True,
    weight_decay: Decay = 0.0,
) -> torch.optim.SGD:
    """Stochastic gradient descent, with Nesterov's momentum unless `momentum` is 0.

    Args:
        params: groups of `parameter_groups`.
        lr: peak learning rate.
        momentum: share of the last step in the next.
        nesterov: look one step of momentum ahead.
        weight_decay: of a group that says nothing.
    """
    return torch.optim.SGD(
        params,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        fused=_can_fuse(params),
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
        betas: of AdamW.
        eps: of AdamW.
        precision: that of the training, as in `trainer.precision`. In full precision Muon's
            products have it too: those in bf16 amplify rounding, so that results agree to 1e-3 only
            where gradients agree to 1e-7. In any other they are bf16, in half the time.

    Raises:
        ConfigError: no group has the role `matrix`, as when parameters are sharded flat.
    """
    ratios = {
        "matrix": 1.0,
        "embedding": embedding_lr_ratio,
        "head": head_lr_ratio,
        "gain": gain_lr_ratio,
    }
    groups = [{"weight_decay": weight_decay, **g, "lr": lr * ratios[g["role"]]} for g in params]
    matrices = [group for group in groups if group["role"] == "matrix"]
    others = [group for group in groups if group["role"] != "matrix"]
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


def _can_fuse(groups: Groups) -> bool:
    return all(
        parameter.device.type in _FUSED_DEVICES and parameter.is_floating_point()
        for group in groups
        for parameter in group["params"]
    )


# -- a model's parameters, by the role they play ---------------------------------------------------

Role = Literal["matrix", "embedding", "head", "gain"]
ROLES: tuple[Role, ...] = ("matrix", "embedding", "head", "gain")

_DECAYED: frozenset[Role] = frozenset({"matrix", "head"})


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters as optimizer groups, one for each role that occurs.

    - `matrix`: the 2-D weight of a linear layer inside the model;
    - `embedding`: any table that is looked up: tokens, positions, segments, T5's relative
      positions. A table that is also the output layer (tied) is an embedding;
    - `head`: the 2-D weight of the output layer: the untied vocabulary or the classes;
    - `gain`: the rest: biases, norms, convolution kernels, a mixture's stacked experts.

    Only matrices and the head are decayed. A table is not: the row of a rare token would be
    shrunk at every step and corrected at few.

    Args:
        model: the model, on its final device. Frozen parameters are left out.
        weight_decay: the decay of matrices and the head.

    Returns:
        Dicts of `params`, `weight_decay` and `role`, in the order of `ROLES`, each parameter in
        exactly one.
    """
    sorted_parameters: dict[Role, list[Tensor]] = {role: [] for role in ROLES}
    for parameter, role in _roles(model).items():
        if parameter.requires_grad:
            sorted_parameters[role].append(parameter)
    return [
        {"params": found, "weight_decay": weight_decay if role in _DECAYED else 0.0, "role": role}
        for role, found in sorted_parameters.items()
        if found
    ]


def _roles(model: nn.Module) -> dict[Tensor, Role]:
    heads = _head_weights(model)
    roles: dict[Tensor, Role] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                roles[parameter] = "embedding"  # over "head": a tied table is met twice
            elif parameter in heads:
                roles.setdefault(parameter, "head")
            elif isinstance(module, nn.Linear | Conv1D) and name == "weight":
                roles.setdefault(parameter, "matrix")
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
