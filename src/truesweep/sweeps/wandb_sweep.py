"""A sweep in the form that `wandb sweep` takes, so that W&B's agents run our jobs.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys
"""

from collections.abc import Sequence
from typing import Any

from truesweep.config.axes import Axis
from truesweep.errors import ConfigError
from truesweep.sweeps.ask import Asked

METHODS = {"grid": "grid", "random": "random", "search": "bayes"}


def wandb_sweep(asked: Asked) -> dict[str, Any]:
    """W&B's sweep configuration; an agent's arguments are ordinary overrides.

    Raises:
        ConfigError: The sweep has what W&B's lack: paired axes, excluded combinations, several
            objectives.
    """
    settings = asked.settings
    lacking = {"zip": settings.zip, "exclude": settings.exclude}
    for name, value in lacking.items():
        if value:
            raise ConfigError(
                f"sweeps.{name}: W&B's sweeps have no such thing; set 'sweeps.{name}=[]', or run "
                "the sweep without W&B's agents"
            )
    if len(settings.objectives) > 1:
        raise ConfigError("sweeps.objective: W&B's sweeps have one; name one")
    parameters = {axis.name: _parameter(axis) for axis in asked.space.axes}
    seeds = settings.seed_list(0)
    if len(seeds) > 1:
        parameters["seed"] = {"values": seeds}
    config: dict[str, Any] = {
        "name": asked.name,
        "method": METHODS[settings.method],
        "metric": {"name": settings.objectives[0], "goal": settings.directions[0]},
        "parameters": parameters,
        "command": ["${env}", "truesweep", "train", *_fixed(asked), "${args_no_hyphens}"],
    }
    if settings.jobs is not None:
        config["run_cap"] = settings.jobs * len(seeds)
    if settings.pruner is not None:
        config["early_terminate"] = {"type": "hyperband", "min_iter": 2}
    return config


def _fixed(asked: Asked) -> Sequence[str]:
    ours = [o for o in asked.fixed if o.partition("=")[0].split(".")[0] not in ("sweeps", "name")]
    return [*ours, f"name={asked.name}", "logger.mode=online"]


def _parameter(axis: Axis) -> dict[str, Any]:
    if axis.values:
        return {"values": list(axis.values)}
    if axis.kind == "int":
        names = ("q_log_uniform_values", "int_uniform")
    else:
        names = ("log_uniform_values", "uniform")
    return {"distribution": names[0] if axis.log else names[1], "min": axis.low, "max": axis.high}
