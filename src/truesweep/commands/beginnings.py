"""How trainings begin, and what two of them have in common then."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch

from truesweep.data.batch import Step
from truesweep.data.module import DataModule
from truesweep.jobs.parts import build_model, prepare_data

LOOKED_AT = 8
"""Steps whose samples are compared: two orders that are the same for so long are one."""


@dataclass(frozen=True)
class Common:
    """What two trainings have in common when they begin.

    Args:
        order: Whether they take the same samples in the same order.
        parameters: How many parameters of the second begin with the values that those of the same
            name in the first begin with.
        of: How many it has.
    """

    order: bool
    parameters: int
    of: int


@dataclass(frozen=True)
class Beginning:
    """How a training begins.

    Args:
        data: Hash of its data.
        order: The places of the samples that its first steps take.
        weights: Of each parameter of a new model by its name a hash of its values, and how many
            there are; nothing of a model that was trained before.
    """

    data: str
    order: list[int]
    weights: dict[str, tuple[str, int]]

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Beginning":
        """That of a checked configuration; data and model are made as a training makes them."""
        source, prepared = prepare_data(config)
        loader = DataModule(prepared, source, config["seed"]).train_dataloader().loader
        steps = islice(cast(Iterable[Step], loader.sampler), LOOKED_AT)
        order = [index for step in steps for index in step.indices]
        weights = {}
        if "init_seeding" in config["model"]:
            for name, parameter in build_model(config, prepared, source).named_parameters():
                values = parameter.detach().numpy().tobytes()
                weights[name] = hashlib.sha256(values).hexdigest(), parameter.numel()
        return cls(prepared.fingerprint, order, weights)

    def common(self, first: "Beginning") -> Common:
        """What it has in common with another."""
        pairs = zip(self.order, first.order, strict=False)
        same = self.data == first.data and all(own == other for own, other in pairs)
        equal = self.weights.items() & first.weights.items()
        numbers = sum(count for _, (_, count) in equal)
        return Common(same, numbers, sum(count for _, count in self.weights.values()))


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters by their names; it is made without memory for them."""
    source, prepared = prepare_data(config)
    with torch.device("meta"):
        model = build_model(config, prepared, source)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
