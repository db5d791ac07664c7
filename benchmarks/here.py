"""Trainings in this process, without checkpoints and records: a fifth of what a job takes."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from truesweep import dotted
from truesweep.jobs.parts import (
    build_model,
    build_recipe,
    build_task,
    data_module,
    make,
    prepare_data,
)
from truesweep.jobs.plan import checked
from truesweep.optim.schedules import Schedule


class Trainings:
    """Trainings of one configuration and what is changed of it, on data that is prepared once.

    Args:
        overrides: The configuration.
        held_out: Validation samples that are scored; None: all.
    """

    def __init__(self, overrides: Sequence[str], held_out: int | None = 128) -> None:
        self.config = checked(overrides)
        self.source, self.prepared = prepare_data(self.config)
        self._held_out = math.inf if held_out is None else held_out

    def changed(self, change: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of one training."""
        config = copy.deepcopy(self.config)
        for key, value in change.items():
            dotted.put(config, key, value)
        return config

    def loss(self, change: Mapping[str, Any]) -> float:
        """The loss at the end of a training; infinite if it diverged."""
        return self.curve(change)[-1][1]

    def curve(self, change: Mapping[str, Any], every: int | None = None) -> list[tuple[int, float]]:
        """Steps and losses of a training within an epoch, in nats a token or sample held out.

        Args:
            change: What is changed of the configuration, by key; none of the data's.
            every: Steps between two validations; None: one at the end.
        """
        config = self.changed(change)
        torch.manual_seed(config["seed"])
        model = build_model(config, self.prepared, self.source)
        data = data_module(config, self.prepared, self.source, model)
        recipe = build_recipe(config, make(config, "trainer"), data.steps_per_epoch)
        task = build_task(config, model, self.prepared, recipe)
        optimizer: Any = task.configure_optimizers()
        batches, found = iter(data.train_dataloader()), []
        for step in range(recipe.total_steps):
            for group in optimizer.param_groups:
                factor = recipe.schedule.factor(step, recipe.total_steps)
                group["lr"] = group["initial_lr"] * factor
            loss, _, count = task.loss(next(batches))
            (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step + 1 == recipe.total_steps or (every and (step + 1) % every == 0):
                found.append((step + 1, self._validated(task, data)))
        return found

    def schedule(self, change: Mapping[str, Any], steps: int) -> list[float]:
        """The rate over its peak at each step."""
        made: Schedule = make(self.changed(change), "scheduler")
        return [made.factor(step, steps) for step in range(steps)]

    def _validated(self, task: Any, data: Any) -> float:
        total, number, left = 0.0, 0, self._held_out
        task.eval()
        with torch.no_grad():
            for batch in data.val_dataloader():
                _, nll, count = task.loss(batch)
                total, number = total + float(nll), number + int(count)
                left -= len(batch["index"])
                if left <= 0:
                    break
        task.train()
        mean = total / number
        return mean if math.isfinite(mean) else math.inf
