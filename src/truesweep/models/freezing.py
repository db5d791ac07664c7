"""What training leaves alone: parameters that no gradient reaches, or none that means anything.

Data-parallel training waits for the gradient of all that is trained.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from truesweep.models.heads import Head
from truesweep.models.trials import apart, logits, longest_sample, one_thread, sample

_KEY_BIASES = {"bart", "mbart", "marian", "bert"}  # have biases of keys, and no rotary positions
_SHORT, _LONG = 9, 1024  # tokens; longer samples need no other weights
_EXPERTS = re.compile(r"\bexperts\.")  # of which tokens choose some, or none beside those that copy


def freeze(
    model: PreTrainedModel, head: Head, max_length: int, tried: PreTrainedModel | None
) -> None:
    """Leave alone what cannot learn, in a new model or in one that was loaded.

    Args:
        model: What is to be trained.
        head: What it is for.
        max_length: The longest sample, in tokens.
        tried: The model, or a copy of it with weights; None: there is none to be tried.
    """
    if tried is not None:
        _freeze_unreached(model, head, max_length, tried)
    _freeze_key_biases(model)
    _freeze_fixed_positions(model)


def unreached(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters, by name, that are left alone since no gradient reaches them."""
    names = getattr(model, "unreached", ())
    return {name: p for name, p in model.named_parameters() if name in names}


def is_reached_at_times(model: nn.Module) -> bool:
    """Whether some parameters are reached by the gradient of some samples, and not of others."""
    return getattr(model, "reached_at_times", False)


def _freeze_unreached(
    model: PreTrainedModel, head: Head, max_length: int, tried: PreTrainedModel
) -> None:
    """What the logits do not depend on, as poolers that a head passes by, or indexers.

    What chosen experts or long samples need is trained. So is all of a model with code of its own:
    nobody knows what else its forward pass goes by, such as tokens, or whether it is trained.
    """
    with one_thread():
        without = _unreached(tried, head, min(_SHORT, max_length))
    never = set[str]()
    if without and type(model).__module__.startswith("transformers."):
        always = without & _unreached(tried, head, min(_LONG, max_length))
        never = {name for name in always if not _EXPERTS.search(name)}
    for name, parameter in model.named_parameters():
        if name in never:
            parameter.requires_grad_(False)
    cast(Any, model).unreached = never
    cast(Any, model).reached_at_times = without != never


@torch.enable_grad()
def _unreached(model: PreTrainedModel, head: Head, length: int) -> set[str]:
    """The names of trained parameters that the logits of a sample have no gradient for."""
    names = {n: p for n, p in model.named_parameters() if p.requires_grad}
    row = sample(model, longest_sample(model, length))[None]
    try:
        found = logits(apart(model), head, row, torch.ones_like(row))
    except Exception:  # transformers, and a user's own model, raise what they like
        return set()
    if not found.requires_grad:
        return set()
    reached = set(_leaves(found))
    return {name for name, parameter in names.items() if parameter not in reached}


def _leaves(result: Tensor) -> Iterator[Tensor]:
    """What autograd would give a gradient of a result, as data-parallel training looks for it."""
    seen, waiting = set[Any](), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(following for following, _ in node.next_functions)


def keep_frozen(model: PreTrainedModel, layers: Collection[str]) -> None:
    """Leave alone what was added to layers that cannot learn, or copied from them.

    Args:
        model: With an adapter.
        layers: What `frozen_layers` gave before it had one.
    """
    within = tuple(f"{layer}." for layer in layers)
    names = {n for n, p in model.named_parameters() if p.requires_grad and n.startswith(within)}
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    cast(Any, model).unreached = names
    _freeze_key_biases(model)  # of whole layers that are trained beside it


def frozen_layers(model: PreTrainedModel) -> set[str]:
    """The names of modules that have parameters, none of which is trained."""
    return {
        name
        for name, module in model.named_modules()
        if (learns := [parameter.requires_grad for parameter in module.parameters()])
        and not any(learns)
    }


def _freeze_key_biases(model: PreTrainedModel) -> None:
    """What changes nothing: a key's bias adds the same to all scores of a query.

    The softmax takes it out again. Its gradient is rounding, which AdamW would scale up to steps of
    the usual size, and other ones for each way of splitting a batch.
    """
    if model.config.model_type in _KEY_BIASES:
        for name, parameter in model.named_parameters():
            if name.endswith((".k_proj.bias", ".self.key.bias")):
                parameter.requires_grad_(False)


def _freeze_fixed_positions(model: PreTrainedModel) -> None:
    """Sines and cosines, which transformers freezes in new models, and not in those it loads."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and "Sinusoidal" in type(module).__name__:
            module.requires_grad_(False)
