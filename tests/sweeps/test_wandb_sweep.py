"""The file for W&B's agents, and the commands that they make of it."""

import json
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from truesweep.commands.wandb_sweep import write
from truesweep.errors import ConfigError
from truesweep.jobs.plan import checked


def written(overrides: list[str], folder: Path) -> dict[str, object]:
    assert write(overrides, [], folder / "sweep.yaml") == 0
    loaded: dict[str, object] = yaml.safe_load((folder / "sweep.yaml").read_text())
    return loaded


def test_a_grid_with_seeds(workplace: Path) -> None:
    asked = ["optimizer.lr=1e-3,3e-3", "model=llama,gpt2", "sweeps.seeds=2", "model.depth=2"]
    config = written(asked, workplace)
    assert config["method"] == "grid"
    assert config["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert config["parameters"] == {
        "optimizer.lr": {"values": [1e-3, 3e-3]},
        "model": {"values": ["llama", "gpt2"]},
        "seed": {"values": [0, 1]},
    }


def test_a_search(workplace: Path) -> None:
    config = written(["sweeps=lr_batch_depth_epochs_search"], workplace)
    assert config["method"] == "bayes"
    assert config["run_cap"] == 24
    parameters = json.loads(json.dumps(config["parameters"]))
    assert parameters["optimizer.lr"] == {
        "distribution": "log_uniform_values",
        "min": 0.003,
        "max": 0.1,
    }
    assert parameters["model.depth"] == {"values": [2, 3, 4, 5, 6]}


def test_an_agents_command_is_a_run_of_ours(workplace: Path) -> None:
    config = written(["optimizer.lr=1e-3,3e-3", "model.width=64", "name=mine"], workplace)
    chosen = {"args": {"optimizer.lr": {"value": 1e-3}}}
    template = config["command"]
    assert isinstance(template, list)
    command = create_sweep_command(template)
    place = command.index("${args_no_hyphens}")
    command[place : place + 1] = create_sweep_command_args(chosen)["args_no_hyphens"]
    overrides = command[command.index("train") + 1 :]
    composed, _ = checked(overrides)
    assert composed["optimizer"]["lr"] == 1e-3
    assert composed["model"]["width"] == 64
    assert (composed["name"], composed["logger"]["mode"]) == ("mine", "online")


def test_what_wandb_lacks_is_refused(workplace: Path) -> None:
    asked = ["optimizer.lr=1e-3,3e-3", "model.depth=1,2"]
    with pytest.raises(ConfigError, match=r"sweeps\.zip"):
        write([*asked, "sweeps.zip=[[optimizer.lr,model.depth]]"], [], workplace / "x.yaml")
    assert not (workplace / "x.yaml").exists()
