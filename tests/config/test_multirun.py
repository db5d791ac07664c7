from collections.abc import Callable
from pathlib import Path

import pytest

from truesweep.config.compose import PointComposer, compose, compose_multirun
from truesweep.config.overrides import split_hydras
from truesweep.config.roots import search_roots
from truesweep.config.space import Space, read_axes
from truesweep.errors import ConfigError

AddFiles = Callable[[Path, dict[str, str]], Path]
NAMED = {
    "train.yaml": """
        defaults:
          - _self_
          - model: small
          - optimizer: adam
          - task: lm
          - sweeps: null
        seed: 0
        name: null
        allowed_packages: [toy_targets]
        double: ${seed}
        """,
    "sweeps/wide.yaml": """
        # @package _global_
        defaults:
          - override /model: large
        sweeps:
          space:
            optimizer.lr: 1e-3,2e-3
            seed: [1, 2]
        """,
}


def test_the_node_of_a_named_sweep(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, NAMED)
    overrides = ["sweeps=wide", "sweeps.jobs=3", "model.depth=1,2", "sweeps.zip=[[a,b]]"]
    multirun = compose_multirun(overrides, [tree])
    assert multirun.node == {
        "space": {"optimizer.lr": "1e-3,2e-3", "seed": [1, 2]},
        "jobs": 3,
        "zip": [["a", "b"]],
    }
    assert multirun.choices["sweeps"] == "wide"
    assert multirun.choices["model"] == "large"
    assert multirun.overrides == overrides


def test_no_job_has_the_node(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, NAMED)
    composer = PointComposer(["sweeps=wide"], [], [tree])
    composed = composer.compose({})
    assert composed.config["model"]["depth"] == 9
    assert "sweeps" not in composed.config


def test_a_point_is_what_hydra_composes_from_it(tree: Path, add_files: AddFiles) -> None:
    add_files(tree, NAMED)
    lines = ["seed=1,2", "optimizer.lr=1e-3,3e-3", "model=small,large", "model.width=32,64"]
    lines += ["optimizer.betas=[0.8,0.9],[0.9,0.95]", "model.cache='${name}',null"]
    fixed = ["name=x", "model.tied=true"]
    axes, _ = read_axes({}, lines, search_roots([tree]))
    composer = PointComposer(fixed, axes, [tree])
    points = Space(axes).grid()
    assert len(points) == 64
    for point in points[::7]:
        overrides = [axis.override(point[axis.key]) for axis in axes]
        composed = composer.compose(point)
        assert composed.config == compose([*fixed, *overrides], [tree]).config
        assert composed.config["double"] == point["seed"]
        assert sorted(composed.overrides) == sorted([*fixed, *overrides])
    assert len(composer._composer._trees) < 10


def test_what_was_swept_is_said_to_be(tree: Path) -> None:
    axes, _ = read_axes({}, ["optimizer.lr=1,2"], search_roots([tree]))
    composed = PointComposer([], axes, [tree]).compose({"optimizer.lr": 1})
    assert composed.origins("optimizer.lr") == "swept"
    assert composed.origins("seed") == f"{tree}/train.yaml:14"


def test_points_share_nothing_that_can_change(tree: Path) -> None:
    composer = PointComposer([], [], [tree])
    first = composer.compose({"optimizer.lr": 1.0})
    assert "lr" not in composer.compose({}).config["optimizer"]
    assert first.config["optimizer"]["lr"] == 1.0


def test_hydras_launcher_and_sweeper_are_its_own() -> None:
    given = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "a=1", "hydra/sweeper=basic"]
    hydras, own = split_hydras(given)
    assert hydras == [
        "hydra/launcher=slurm",
        "++hydra.launcher.partition=gpu",
        "hydra/sweeper=basic",
    ]
    assert own == ["a=1"]


@pytest.mark.parametrize("override", ["hydra.run.dir=x", "hydra.verbose=true", "hydra/help=x"])
def test_hydras_other_settings_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="launcher and sweeper"):
        split_hydras([override])


@pytest.mark.parametrize("override", ["sweeps=lm", "sweeps.jobs=3", "seed=1,2"])
def test_a_single_run_is_told_of_m(override: str) -> None:
    with pytest.raises(ConfigError, match="add -m"):
        compose([override])
