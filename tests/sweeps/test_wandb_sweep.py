"""The file for W&B's agents, and the commands that they make of it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.sdk.lib.config_util import save_config_file_from_dict

from truesweep.commands import app
from truesweep.commands.sweep import write_wandb_sweep
from truesweep.errors import ConfigError
from truesweep.jobs.plan import checked
from truesweep.sweeps.wandb_sweep import agents_job

CANARY = "canary" * 6 + "abcd"


def written(overrides: list[str], folder: Path) -> dict[str, object]:
    assert write_wandb_sweep(overrides, [], folder / "sweep.yaml") == 0
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


def agents_overrides(config: dict[str, object], chosen: dict[str, object]) -> list[str]:
    """What `truesweep train` is given by W&B's agent, made by W&B's own functions."""
    template = config["command"]
    assert isinstance(template, list)
    command = create_sweep_command(list(template))
    made = create_sweep_command_args({"args": {key: {"value": chosen[key]} for key in chosen}})
    place = command.index("${args_no_hyphens}")
    command[place : place + 1] = made["args_no_hyphens"]
    return list(command[command.index("train") + 1 :])


def test_a_dry_run_writes_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = workplace / "sweep.yaml"
    assert write_wandb_sweep(["seed=1,2"], [], file, dry_run=True) == 0
    assert not file.exists()
    assert yaml.safe_load(capsys.readouterr().out)["parameters"] == {"seed": {"values": [1, 2]}}


def test_without_m_there_is_no_sweep_to_write(workplace: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--wandb-sweep", "sweep.yaml"])
    assert done.exit_code == 2
    assert "add -m" in done.output
    assert list(workplace.iterdir()) == []


def values(config: dict[str, object], key: str) -> list[object]:
    parameters = config["parameters"]
    assert isinstance(parameters, dict)
    return list(parameters[key]["values"])


def test_an_agents_command_is_a_run_of_ours(workplace: Path) -> None:
    config = written(["optimizer.lr=1e-3,3e-3", "model.width=64", "name=mine"], workplace)
    composed = checked(agents_overrides(config, {"optimizer.lr": 1e-3}))
    assert composed["optimizer"]["lr"] == 1e-3
    assert composed["model"]["width"] == 64
    assert (composed["name"], composed["logger"]["mode"]) == ("mine", "online")


def test_values_reach_the_jobs_as_they_were_meant(workplace: Path) -> None:
    swept: dict[str, tuple[str, list[object]]] = {
        "trainer.gradient_clip_val": ("null,0.5", [None, 0.5]),
        "trainer.compile": ("false,layers", [False, "layers"]),
        "data.train": ("'a,b','c=d'", ["a,b", "c=d"]),
        "logger.tags": ("[a,b],[c]", [["a", "b"], ["c"]]),
        "optimizer.lr": ("1e-5,2", [1e-5, 2.0]),
    }
    asked = [f"{key}={text}" for key, (text, _) in swept.items()]
    config = written(["data=files", *asked], workplace)
    for number in (0, 1):
        chosen = {key: values(config, key)[number] for key in swept}
        composed = checked(agents_overrides(config, chosen))
        for key, (_, expected) in swept.items():
            group, _, name = key.partition(".")
            assert composed[group][name] == expected[number]


def test_an_agent_finds_the_users_own_groups(workplace: Path) -> None:
    folder = workplace / "mine"
    (folder / "optimizer").mkdir(parents=True)
    (folder / "optimizer/own.yaml").write_text("_target_: torch.optim.SGD\nmomentum: 0.5\n")
    file = workplace / "sweep.yaml"
    assert write_wandb_sweep(["optimizer=own", "optimizer.lr=1,2"], [folder], file) == 0
    words = agents_overrides(yaml.safe_load(file.read_text()), {"optimizer.lr": 1})
    assert words[:2] == ["--config-dir", str(folder)]
    assert checked(words[2:], [folder])["optimizer"]["momentum"] == 0.5


def test_the_sweep_lies_where_its_runs_do(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(["seed=1,2", "logger.project=mine", "logger.entity=us"], workplace)
    assert (config["project"], config["entity"]) == ("mine", "us")
    said = capsys.readouterr().out
    assert "wandb sweep --entity us --project mine" in said
    assert "wandb agent us/mine/SWEEP_ID" in said


def test_of_several_loggers_agents_are_told_of_ours_for_w_and_b(workplace: Path) -> None:
    config = written(["seed=1,2", "logger=[csv,wandb]", "logger.wandb.project=other"], workplace)
    assert config["project"] == "other"
    composed = checked(agents_overrides(config, {"seed": 1}))
    assert composed["logger"]["wandb"]["mode"] == "online"


def test_an_agents_run_is_named_by_what_the_agent_chose(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(["trainer.gradient_clip_val=null,1", "seed=3,4", "name=s"], workplace)
    chosen: dict[str, object] = {"trainer.gradient_clip_val": "null", "seed": 3}
    overrides = agents_overrides(config, chosen)
    assert agents_job("s", overrides) is None
    file = workplace / "wandb/sweep-1/config-2.yaml"
    save_config_file_from_dict(str(file), {key: {"value": chosen[key]} for key in chosen})
    monkeypatch.setenv("WANDB_SWEEP_ID", "1")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file.relative_to(workplace)))
    assert agents_job("s", overrides) == {
        "sweep": "s",
        "label": "gradient_clip_val=null seed=3",
        "varies": {"trainer.gradient_clip_val": None, "seed": 3},
        "swept": {"gradient_clip_val": None, "seed": 3},
    }


@pytest.mark.parametrize(
    "secret",
    [f"logger.api_key={CANARY}", f"+x.password={CANARY},b", f"'logger={{api_key:{CANARY}}}'"],
)
def test_a_secret_is_not_written(workplace: Path, secret: str) -> None:
    file = workplace / "s.yaml"
    with pytest.raises(ConfigError, match="WANDB_API_KEY") as caught:
        write_wandb_sweep(["optimizer.lr=1e-3,3e-3", secret.strip("'")], [], file)
    assert CANARY not in str(caught.value)
    assert not file.exists()


def test_a_reference_to_a_secret_is_the_agents_own(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", CANARY)
    config = written(["seed=1,2", "logger.api_key=${oc.env:MY_KEY}"], workplace)
    assert "logger.api_key=${oc.env:MY_KEY}" in agents_overrides(config, {"seed": 1})
    assert CANARY not in (workplace / "sweep.yaml").read_text()


def test_what_wandb_lacks_is_refused(workplace: Path) -> None:
    asked = ["optimizer.lr=1e-3,3e-3", "model.depth=1,2"]
    with pytest.raises(ConfigError, match=r"sweeps\.zip"):
        write_wandb_sweep(
            [*asked, "sweeps.zip=[[optimizer.lr,model.depth]]"], [], workplace / "x.yaml"
        )
    assert not (workplace / "x.yaml").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["logger=none"], "logger=none"),
        (["logger=csv"], "leaves W&B out"),
        (["sweeps.method=search", "sweeps.jobs=4", "sweeps.seeds=2"], r"sweeps\.seeds=2"),
        (["sweeps.method=random", "sweeps.jobs=4", "sweeps.seeds=[1,2]"], r"sweeps\.seeds=\[1,2\]"),
    ],
)
def test_what_agents_would_get_wrong_is_refused(
    workplace: Path, asked: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_wandb_sweep(["optimizer.lr=1e-3,3e-3", *asked], [], workplace / "x.yaml")
    assert not (workplace / "x.yaml").exists()


def test_seeds_count_up_from_the_configurations_own(workplace: Path) -> None:
    config = written(["model.depth=1,2", "seed=5", "sweeps.seeds=2"], workplace)
    assert values(config, "seed") == [5, 6]
