"""What a few steps do to each layer of a model, at several sizes: a coordinate check.

If one learning rate is for all sizes, no layer does more or less in a larger model. What a layer
gives is taken apart: what the weights that it started from make of its input, and what training has
added. As the input of most layers is normalised, a layer that learns too fast is so told from
those that are only given its output.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from truesweep import dotted
from truesweep.analysis.transfer import Growth, slope
from truesweep.data.batch import Batch, split
from truesweep.data.module import DataModule
from truesweep.jobs.parts import (
    build_model,
    build_recipe,
    build_task,
    data_module,
    make,
    prepare_data,
)
from truesweep.models.init import output_layers
from truesweep.tasks import Task

SAMPLES = 4
"""Samples of the batch that is trained on: what is measured depends little on how many there are,
and their logits are few enough to be computed as they are.
"""

Amounts = dict[str, tuple[float, float]]
"""By layer, the mean absolute value of what it gives by its start, and of what steps have added."""


def check_coordinates(
    config: dict[str, Any], key: str, sizes: Sequence[int], *, steps: int, seeds: int
) -> list[Growth]:
    """Train a model of each size for a few steps, and see how each layer follows the size.

    What a parametrization folds into a layer's weights follows the size as it shall, and is taken
    out. The batch is the same for all sizes, and all steps have the peak rate.

    Args:
        config: A checked configuration.
        key: What makes the size, `model.width` or `model.depth`.
        sizes: Its values, ascending.
        steps: Optimizer steps.
        seeds: Repetitions, which tell the noise.

    Returns:
        The layers that are there in all sizes, in the order of the model.

    Raises:
        ConfigError: A size is none of the model's.
    """
    source, prepared = prepare_data(config)
    tables: list[list[Amounts]] = []
    narrow: set[str] = set()
    for seed in range(config["seed"], config["seed"] + seeds):
        tables.append([])
        for size in sizes:
            own = copy.deepcopy(config)
            dotted.put(own, key, size)
            own["seed"] = seed
            model = build_model(own, prepared, source)
            data = data_module(own, prepared, source, model)
            recipe = build_recipe(own, make(own, "trainer"), data.steps_per_epoch)
            task = build_task(own, model, prepared, recipe)
            batch = task.seen(_batch(data), 0)
            tables[-1].append(_amounts(model, task, batch, steps))
            narrow |= _narrow(model)
    layers = [name for name in tables[0][0] if all(name in one for row in tables for one in row)]
    found = []
    for name in layers:
        start, step = (
            slope(sizes, [[one[name][part] for one in row] for row in tables]) for part in (0, 1)
        )
        found.append(Growth(name, start[0], step[0], start[1], step[1], name in narrow))
    return found


def _batch(data: DataModule) -> Batch:
    """The first samples of the first step."""
    whole = next(iter(data.train_dataloader()))
    return next(split(whole, SAMPLES, -(-len(whole["lengths"]) // SAMPLES)))


def _amounts(model: PreTrainedModel, task: Task, batch: Batch, steps: int) -> Amounts:
    model.eval()  # nothing is dropped
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer: Any = task.configure_optimizers()
    for _ in range(steps):
        loss, _, count = task.loss(batch)
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return _measure(model, task, batch, start)


@torch.no_grad()
def _measure(model: PreTrainedModel, task: Task, batch: Batch, start: dict[str, Tensor]) -> Amounts:
    layers = {
        name: module
        for name, module in model.named_modules()
        if not any(module.children()) and any(p.requires_grad for p in module.parameters())
    }
    calls: dict[str, tuple[Any, Any, Any]] = {}

    def remember(name: str) -> Any:
        return lambda _module, args, kwargs, out: calls.__setitem__(name, (args, kwargs, out))

    hooks = [
        module.register_forward_hook(remember(name), with_kwargs=True)
        for name, module in layers.items()
    ]
    task.loss(batch)
    for hook in hooks:
        hook.remove()
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales = getattr(model, "scales", {})
    amounts: Amounts = {}
    for name, (args, kwargs, out) in calls.items():
        module = layers[name]
        first = {n: start[names[p]] for n, p in module.named_parameters()}
        before = functional_call(module, first, args, kwargs)
        folds = [scales[names[p]].fold for p in module.parameters()] if scales else [1.0]
        fold = max(folds, key=lambda one: abs(one - 1))
        amounts[name] = _mean(before) / fold, _mean(out - before) / fold
    return amounts


def _mean(output: Tensor) -> float:
    return output.abs().mean().item()


def _narrow(model: PreTrainedModel) -> set[str]:
    """The names of layers whose outputs are as many in all sizes."""
    layers: set[nn.Module] = {*output_layers(model)}
    if (output := model.get_output_embeddings()) is not None:
        layers.add(output)
    return {name for name, module in model.named_modules() if module in layers}
