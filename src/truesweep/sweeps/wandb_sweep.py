"""A sweep in the form that `wandb sweep` takes, so that W&B's agents run our jobs.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from truesweep import dotted
from truesweep.config.overrides import as_text, parse
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.jobs.loggers import wandb_key
from truesweep.record.wandb import project_name
from truesweep.secrets import redact_overrides
from truesweep.sweeps.directory import swept
from truesweep.sweeps.request import Asked, of_jobs
from truesweep.sweeps.settings import AUTO
from truesweep.text import label

METHODS = {"grid": "grid", "random": "random", "search": "bayes"}


def wandb_sweep(asked: Asked) -> dict[str, Any]:
    """W&B's sweep configuration; an agent's arguments are ordinary overrides.

    Raises:
        ConfigError: The sweep has what W&B's lack: paired axes, excluded combinations, several
            objectives, seeds of each point but in a grid; it holds a secret, or leaves W&B out.
    """
    settings = asked.settings
    _refuse_lacking(asked)
    _refuse_secrets(asked)
    config = asked.example()
    key = wandb_key(config)
    if key is None:
        raise ConfigError(
            "logger: the jobs of W&B's agents are W&B's runs; leave out logger=none, or whatever "
            "leaves W&B out"
        )
    logger = dotted.get(config, key)
    parameters = {axis.name: _parameter(axis) for axis in asked.space.axes}
    seeds = settings.seed_list(int(config["seed"]))
    if len(seeds) > 1:
        parameters["seed"] = {"values": seeds}
    sweep: dict[str, Any] = {
        "name": asked.name,
        "project": project_name(logger.get("project")),
        **({"entity": logger["entity"]} if logger.get("entity") else {}),
        "method": METHODS[settings.method],
        "metric": {"name": settings.objectives[0], "goal": settings.directions[0]},
        "parameters": parameters,
        "command": [
            *("${env}", "truesweep", "train", *_fixed(asked)),
            *(f"{key}.mode=online", "${args_no_hyphens}"),
        ],
    }
    if settings.jobs is not None:
        sweep["run_cap"] = settings.jobs * len(seeds)
    if settings.pruner not in (None, AUTO):  # W&B's agents pause no run
        sweep["early_terminate"] = {"type": "hyperband", "min_iter": 2}
    return sweep


def agents_job(name: str, overrides: Sequence[str]) -> dict[str, Any] | None:
    """The place of a run that W&B's agent has started in its sweep; see `Run.job`.

    The agent writes down for W&B which of the overrides it has chosen. None without an agent.

    Args:
        name: The run's name, which is the sweep's.
        overrides: What the command line changed.
    """
    file = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not file or not os.environ.get("WANDB_SWEEP_ID"):
        return None
    chosen = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    parsed = {one.key_or_group: one for one in map(parse, overrides)}
    varies = {key: one.value() for key, one in parsed.items() if key in chosen}
    return {"sweep": name, "label": label(varies), "varies": varies, "swept": swept(varies)}


def _refuse_lacking(asked: Asked) -> None:
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
    if settings.seeds != 1 and settings.method != "grid":
        raise ConfigError(
            f"sweeps.seeds={as_text(settings.seeds)}: W&B would choose among the seeds, too, as if "
            "one were better; set sweeps.seeds=1 or sweeps.method=grid"
        )


def _refuse_secrets(asked: Asked) -> None:
    """Refuse what would be written into a file, and be sent to W&B's server."""
    for line, redacted in zip(asked.lines, redact_overrides(asked.lines), strict=True):
        if redacted != line:
            key = parse(line).key_or_group
            raise ConfigError(
                f"{redacted}: a secret, which would stand in the file and with W&B; leave it in "
                f"the agents' environment, as WANDB_API_KEY or as '{key}=${{oc.env:NAME}}'"
            )


def _fixed(asked: Asked) -> Sequence[str]:
    folders = [word for folder in asked.config_dirs for word in ("--config-dir", str(folder))]
    return [*folders, *of_jobs(asked.fixed), f"name={as_text(asked.name)}"]


def _parameter(axis: Axis) -> dict[str, Any]:
    if axis.values:
        return {"values": [_value(value) for value in axis.values]}
    if axis.kind == "int":
        names = ("q_log_uniform_values", "int_uniform")
    else:
        names = ("log_uniform_values", "uniform")
    return {"distribution": names[0] if axis.log else names[1], "min": axis.low, "max": axis.high}


def _value(value: Any) -> Any:
    """A value that is read back from Python's way of writing it, as the agent passes it on."""
    return value if isinstance(value, int | float) else as_text(value)
