"""Sort a model's parameters by the role they play, for weight decay and rates per role."""

from typing import Any, Literal

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

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
