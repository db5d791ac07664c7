import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from truesweep.config.compose import compose
from truesweep.config.roots import shipped
from truesweep.errors import ConfigError

AddFiles = Callable[[Path, dict[str, str]], Path]


def test_defaults(tree: Path) -> None:
    composed = compose([], [tree])
    assert composed.config["model"] == {"_target_": "toy_targets.Model", "depth": 2}
    assert composed.config["seed"] == 0
    assert "hydra" not in composed.config
    assert composed.choices["model"] == "small"
    assert composed.choices["experiment"] is None
    assert not any(group.startswith("hydra") for group in composed.choices)
    assert composed.origins.roots == (tree, shipped("sweeps").parent, shipped("conf"))


def test_a_key_that_no_file_has_is_an_ordinary_override(tree: Path) -> None:
    config = compose(["optimizer.weight_decay=0.25", "model.tags=[a,b]"], [tree]).config
    assert config["optimizer"]["weight_decay"] == 0.25
    assert config["model"]["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    ("overrides", "depth", "rate", "seed"),
    [
        ([], 2, None, 0),
        (["task=translation"], 9, 0.25, 1),
        (["experiment=best"], 2, 0.125, 2),
        (["experiment=best", "model=large", "optimizer.lr=4", "seed=5"], 9, 4, 5),
        (["model=large", "optimizer.lr=4", "seed=5", "experiment=best"], 9, 4, 5),
        (["task=translation", "model=small"], 2, 0.25, 1),
        (["experiment=best", "task=lm"], 2, 0.125, 2),
    ],
)
def test_command_line_beats_experiment_beats_task(
    tree: Path, overrides: list[str], depth: int, rate: float | None, seed: int
) -> None:
    config = compose(overrides, [tree]).config
    assert config["model"]["depth"] == depth
    assert config["optimizer"].get("lr") == rate
    assert config["seed"] == seed


def test_an_experiment_chooses_the_task_and_overrules_its_groups(tree: Path) -> None:
    choices = compose(["experiment=best"], [tree]).choices
    assert (choices["task"], choices["model"], choices["optimizer"]) == (
        "translation",
        "small",
        "sgd",
    )


def test_config_dirs_win_only_for_what_they_define(
    tree: Path, tmp_path: Path, add_files: AddFiles
) -> None:
    mine = add_files(
        tmp_path / "mine",
        {
            "model/large.yaml": "_target_: toy_targets.Model\ndepth: 77",
            "model/tiny.yaml": "_target_: toy_targets.Model\ndepth: 1",
        },
    )
    assert compose(["model=large"], [mine, tree]).config["model"]["depth"] == 77
    assert compose(["model=tiny"], [mine, tree]).config["model"]["depth"] == 1
    assert compose(["model=small"], [mine, tree]).config["model"]["depth"] == 2
    assert compose(["model=large"], [tree, mine]).config["model"]["depth"] == 9


def test_the_current_directory_is_not_searched(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_files: AddFiles
) -> None:
    add_files(tmp_path / "conf", {"model/small.yaml": "_target_: toy_targets.Model\ndepth: 66"})
    monkeypatch.chdir(tmp_path)
    assert compose([], [tree]).config["model"]["depth"] == 2


def test_an_option_that_does_not_exist(tree: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["optimizer=adams"], [tree])
    message = str(caught.value)
    assert "optimizer=adams: no such option; did you mean adam?" in message
    assert "sgd" in message
    assert "search path" not in message.lower()


def test_an_experiment_that_does_not_exist_is_not_skipped(tree: Path) -> None:
    with pytest.raises(ConfigError, match="experiment=besst: no such option; did you mean best"):
        compose(["experiment=besst"], [tree])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1,2"], "a run takes one"),
        (["model=unfinished"], r"^model.depth: is required; give it as model.depth=VALUE \("),
        (["model.width=${model.dept}"], "model.width: .*'model.dept' not found; .* .command line"),
        (["model.cache=${oc.env:NOT_SET_ANYWHERE}"], "model.cache: .*NOT_SET_ANYWHERE"),
        (
            ["model.cache=${clock:%Y}"],
            "interpolation type clock; there are eval, now",
        ),
        (["~optimizer.nothing"], "'optimizer.nothing' does not exist"),
        (["nothing/here=x"], "'nothing/here'. There is no such group"),
        (["+model.depth=3"], "already at 'model.depth'. .*remove . prefix"),
        (["+experiment=best"], "without a leading"),
    ],
)
def test_errors_are_short_and_say_what_to_do(
    tree: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose(overrides, [tree])
    assert "\n" not in str(caught.value)
    assert "full_key" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_broken_yaml_is_located(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, {"experiment/broken.yaml": "# @package _global_\nmodel:\n  depth: [1\n"})
    with pytest.raises(ConfigError, match=r"experiment/broken\.yaml:4: not valid YAML"):
        compose(["experiment=broken"], [tree])


def test_a_nul_character_is_located(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, {"experiment/nul.yaml": '# @package _global_\nmodel: {tags: ["a\\0b"]}\n'})
    with pytest.raises(ConfigError, match=r"^model.tags\[0\]: has a NUL .*experiment/nul.yaml:2\)"):
        compose(["experiment=nul"], [tree])
    with pytest.raises(ConfigError, match=r"^model.cache: has a NUL .*\(command line\)"):
        compose(["model.cache='a\0b'"], [tree])


def test_a_duplicate_key_is_located(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, {"optimizer/twice.yaml": "_target_: toy_targets.Optimizer\nlr: 1\nlr: 2\n"})
    with pytest.raises(ConfigError, match=r"optimizer/twice\.yaml:3: .*duplicate key lr"):
        compose(["optimizer=twice"], [tree])


def test_interpolations_and_the_environment_resolve(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEWHERE", "/data")
    overrides = ["model.cache=${oc.env:SOMEWHERE}/cache", "model.width=${model.depth}"]
    config = compose(overrides, [tree]).config
    assert config["model"]["cache"] == "/data/cache"
    assert config["model"]["width"] == 2


def test_nothing_of_hydras_runtime_is_started(tree: Path, tmp_path: Path) -> None:
    before = (Path.cwd(), dict(os.environ), list(logging.getLogger().handlers))
    GlobalHydra.instance().clear()
    compose(["seed=1"], [tree])
    assert (Path.cwd(), dict(os.environ), list(logging.getLogger().handlers)) == before
    assert not GlobalHydra.instance().is_initialized()
    assert not list(tmp_path.rglob(".hydra"))
