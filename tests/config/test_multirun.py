import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from packaging.version import Version

from truesweep.config.compose import Composed, PointComposer, compose, compose_multirun
from truesweep.config.overrides import parse, split_hydras
from truesweep.config.roots import search_roots
from truesweep.config.space import Space, read_axes
from truesweep.errors import ConfigError
from truesweep.jobs.plan import checked
from truesweep.sweeps.request import ask

PLUGINS = "hydra_plugins.truesweep"
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
    with pytest.raises(ConfigError, match="train -m"):
        compose([override])


@pytest.mark.parametrize(
    "lines",
    [
        ["model=large", "model={width:32}", "seed=1,2"],
        ["seed=1,2", "model={width:64}", "model={kind:llama}"],
        ["model={width:8},{width:16}", "model.width=32", "seed=3,4"],
        ["model.width=8,16", "model={tied:true}"],
        ["model.options={a:1}", "model.options={b:2}", "seed=1,2"],
        ["model.options={a:1},{a:2}", "model.options.a=3", "model=small,large"],
        ["seed=1,2", "model.width=8", "model={width:16}", "model.width=24"],
        ["model.width=8,16", "~model.depth", "+model.depth=3"],
        ["model.tags=[a],[b]", "model.tags=[c]", "seed=1,2"],
        ["model={depth:3}", "model={width:32},{width:64}"],
        ["model={width:32},{width:64}", "model={depth:3}"],
        ["model.width=8", "model={depth:5},{width:6}"],
        ["model={width:8,depth:3}", "model.width=8,16"],
        ["model.options={a:1}", "model={options:{b:2}},{options:{a:3}}"],
        ["model.options={a:1}", "model.options={},{b:2}"],
        ["model.options={}", "model.options={a:1},{a:2}", "++model={width:7}"],
        ["model={width:7}", "model=small,large", "model.options={a:1}"],
        ["model={width:7},small", "model=large", "seed=1,2"],
        ["model.width=8,9", "model=large,{width:3}"],
        ["experiment=best,null", "optimizer={lr:0.3}", "optimizer={weight_decay:0.2}"],
    ],
)
def test_a_sweep_composes_what_its_single_runs_do(tree: Path, lines: list[str]) -> None:
    axes, fixed = read_axes({}, lines, search_roots([tree]))
    composer = PointComposer(fixed, axes, [tree])
    points = Space(axes).grid()
    assert len(points) > 1
    for point in points:
        # Each word in its place, what is swept with one of its values.
        words = []
        for line in lines:
            parsed = parse(line)
            if parsed.is_sweep_override():
                axis = next((a for a in axes if a.text == line), None)
                words += [axis.override(point[axis.key])] if axis else []
            else:
                words.append(line)
        assert composer.compose(point).config == compose(words, [tree]).config


WORDS = [
    "model={depth:5}",
    "model={width:16,options:{a:1}}",
    "model.options={b:2}",
    "model.options.a=3",
    "++model={options:{a:4}}",
    "model=large",
    "experiment=best",
    "~model.options",
    "~model.width",
]
SWEPT = [
    ("model", ("{depth:6}", "{width:32}")),
    ("model.options", ("{a:5}", "{b:6}")),
    ("model", ("{options:{c:7}}", "{options:{a:8}}")),
    ("++model.width", ("64", "128")),
    ("model.options.a", ("9", "{d:10}")),
    ("optimizer", ("{lr:0.1}", "{lr:0.2}")),
    ("experiment", ("best", "null")),
]


@pytest.mark.parametrize("seed", range(16))
def test_words_in_any_order_are_composed_as_single_runs_are(tree: Path, seed: int) -> None:
    rng = random.Random(seed)
    key, values = rng.choice(SWEPT)
    lines = [*rng.sample(WORDS, 3), f"{key}={','.join(values)}"]
    swept = lines[-1]
    rng.shuffle(lines)
    singles = []
    for value in values:
        words = [f"{key}={value}" if line is swept else line for line in lines]
        singles.append(config_of(compose, words, [tree]))
    try:
        asked = ask(lines, [tree])
    except ConfigError:  # nothing varies
        assert singles[0] == singles[1]
        return
    composer = asked.composer()
    points = asked.space.grid()
    assert [config_of(composer.compose, point) for point in points] == singles


def config_of(make: Callable[..., Composed], *arguments: Any) -> dict[str, Any] | None:
    """What is composed; None where it is refused."""
    try:
        return make(*arguments).config
    except ConfigError:
        return None


def test_a_sweep_may_be_taken_back(tree: Path, add_files: AddFiles) -> None:
    """As `model.width=8 ~model.width` is in a single run, though no file sets the width."""
    for lines in (["model.width=8,9"], ["model={width:8},{width:9}"], ["model.width=range(1,3)"]):
        asked = ask([*lines, "~model.width", "seed=1,2"], [tree])
        assert [axis.key for axis in asked.space.axes] == ["seed"]
        composed = asked.composer().compose({"seed": 1})
        assert composed.config == compose(["seed=1"], [tree]).config
    composer = ask(["~model.width", "seed=1,2"], [tree]).composer()
    with pytest.raises(ConfigError, match="Could not delete"):
        composer.compose({"seed": 1})
    add_files(tree, NAMED)
    asked = ask(["sweeps=wide", "~optimizer.lr"], [tree])
    assert [axis.key for axis in asked.space.axes] == ["seed"]
    assert "lr" not in asked.composer().compose({"seed": 1}).config["optimizer"]


def test_a_key_is_swept_once(tree: Path) -> None:
    for lines in (["model=small,large"], ["model={depth:1},{depth:2}"]):
        with pytest.raises(ConfigError, match=r"model is swept twice; .* such as model\.KEY=VALUE"):
            ask([*lines, "model={width:1},{width:2}"], [tree])


def test_an_axis_of_which_nothing_is_left_is_none(tree: Path) -> None:
    lines = ["model.width=8,16", "seed=1,2", "model={width:32}"]
    axes, fixed = read_axes({}, lines, search_roots([tree]))
    assert [axis.key for axis in axes] == ["seed"]
    assert fixed == ["model={width:32}"]
    axes, fixed = read_axes({"model.width": [8, 16]}, lines[1:], search_roots([tree]))
    assert [axis.key for axis in axes] == ["seed"]


OWN = {
    "experiment/varied.yaml": """
        # @package _global_
        sweeps: {space: {optimizer.lr: [0.1, 0.2]}}
        """,
    "experiment/named.yaml": """
        # @package _global_
        name: w${model.width}
        """,
    "experiment/cluster.yaml": """
        # @package _global_
        defaults:
          - override /hydra/launcher: slurm
        hydra: {launcher: {partition: gpu}}
        """,
    "experiment/foreign.yaml": """
        # @package _global_
        defaults:
          - override /hydra/sweeper: basic
        """,
    "experiment/varying.yaml": """
        # @package _global_
        defaults:
          - override /hydra/sweeper: basic
        hydra: {sweeper: {params: {model.depth: "2,4", model: "small,large", +seed: "1"}}}
        """,
    "experiment/broken.yaml": """
        # @package _global_
        defaults:
          - override /hydra/sweeper: basic
        hydra: {sweeper: {params: {seed: "1,("}}}
        """,
    "experiment/slots.yaml": """
        # @package _global_
        hydra: {launcher: {slots: 3}}
        """,
    "experiment/folder.yaml": """
        # @package _global_
        hydra:
          run: {dir: elsewhere}
        """,
    "experiment/silent.yaml": """
        # @package _global_
        defaults:
          - override /hydra/job_logging: disabled
        """,
}


def test_an_experiment_that_is_swept_loses_no_space(tree: Path, add_files: AddFiles) -> None:
    own = add_files(tree.parent / "own", OWN)
    asked = ask(["experiment=varied,lm_char"], [own])
    with pytest.raises(ConfigError, match="experiment=varied: has a `sweeps` node of its own"):
        asked.composer().compose({"experiment": "varied"})
    assert ask(["experiment=varied"], [own]).space.axes[0].values == (0.1, 0.2)


def test_an_experiment_with_a_space_is_not_trained_once(tree: Path, add_files: AddFiles) -> None:
    own = add_files(tree.parent / "own", OWN)
    with pytest.raises(ConfigError, match=r"varies optimizer\.lr \(.*varied.yaml:2\).* Add -m"):
        checked(["experiment=varied"], [own])
    checked(["experiment=varied", "sweeps=null"], [own])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["experiment=named"], "w128"),
        (["experiment=named", "model.width=64"], "w64"),
        (["name=x${model.width}"], "x128"),
        (["experiment=named", "name=mine"], "mine"),
    ],
)
def test_a_sweeps_name_is_resolved_and_may_stand_in_a_file(
    tree: Path, add_files: AddFiles, overrides: list[str], name: str
) -> None:
    own = add_files(tree.parent / "own", OWN)
    assert ask([*overrides, "seed=1,2"], [own]).name == name


def test_a_sweeps_name_does_not_vary(tree: Path, add_files: AddFiles) -> None:
    own = add_files(tree.parent / "own", OWN)
    with pytest.raises(ConfigError, match=r"whole sweep's, and model\.width varies in it"):
        ask(["experiment=named", "model.width=64,128"], [own])
    with pytest.raises(ConfigError, match="is no folder inside outputs/"):
        ask(["name=../x", "seed=1,2"])


@pytest.mark.parametrize(
    ("overrides", "launcher", "sweeper"),
    [
        ([], {"_target_": f"{PLUGINS}.LocalLauncher"}, f"{PLUGINS}.Sweeper"),
        (
            ["experiment=cluster"],
            {"_target_": f"{PLUGINS}.SlurmLauncher", "partition": "gpu"},
            f"{PLUGINS}.Sweeper",
        ),
        (
            ["experiment=slots"],
            {"_target_": f"{PLUGINS}.LocalLauncher", "slots": 3},
            f"{PLUGINS}.Sweeper",
        ),
        (
            ["experiment=foreign"],
            {"_target_": f"{PLUGINS}.LocalLauncher"},
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        ),
        (
            ["hydra/sweeper=basic"],
            {"_target_": f"{PLUGINS}.LocalLauncher"},
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        ),
        (
            ["experiment=slots", "hydra/launcher=slurm", "hydra.launcher.slots=null"],
            {"_target_": f"{PLUGINS}.SlurmLauncher", "slots": None},
            f"{PLUGINS}.Sweeper",
        ),
    ],
)
def test_a_file_chooses_where_a_sweep_runs(
    tree: Path,
    add_files: AddFiles,
    overrides: list[str],
    launcher: dict[str, Any],
    sweeper: str,
) -> None:
    own = add_files(tree.parent / "own", OWN)
    master = compose_multirun([*overrides, "seed=1,2"], [own]).master
    assert master.hydra.launcher == launcher
    assert master.hydra.sweeper["_target_"] == sweeper


def test_hydras_other_settings_are_refused_in_files(tree: Path, add_files: AddFiles) -> None:
    own = add_files(tree.parent / "own", OWN)
    for compose_one in (compose, compose_multirun):
        with pytest.raises(ConfigError, match=r"^hydra\.run\.dir: .*folder\.yaml:3\)"):
            compose_one(["experiment=folder"], [own])
        with pytest.raises(ConfigError, match=r"^hydra/job_logging=disabled: .*silent\.yaml:3\)"):
            compose_one(["experiment=silent"], [own])
    with pytest.raises(ConfigError, match="no such option; did you mean"):
        compose_multirun(["hydra/launcher=slum"], [own])


def test_what_another_sweeper_varies_needs_no_sign(tree: Path, add_files: AddFiles) -> None:
    own = add_files(tree.parent / "own", OWN)
    multirun = compose_multirun(["experiment=varying"], [own, tree])
    expected = {"++model.depth": "2,4", "model": "small,large", "+seed": "1"}
    assert multirun.master.hydra.sweeper.params == expected


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment=broken"], r"hydra\.sweeper\.params\.seed: seed=1,\(: cannot be read"),
        (["hydra/sweeper=basic", "hydra.sweeper.params.seed=1,2"], "quotes of its own"),
        (
            ["hydra/sweeper=basic", "+hydra.sweeper.params.seed='1,2'"],
            r"params\.seed='1,2': Hydra cannot set this on the command line.*in a file",
        ),
        (["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=x"], "size=x: Value 'x' of type"),
        (
            ["hydra/sweeper=basic", "seed=1,2", "model={depth:3}", "model={width:64}"],
            "model: is set 2 times, of which another sweeper than ours takes the last alone",
        ),
    ],
)
def test_what_another_sweeper_cannot_take_is_said(
    tree: Path, add_files: AddFiles, overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(overrides, [add_files(tree.parent / "own", OWN)])


def test_what_another_sweeper_leaves_null_is_set_by_newer_versions_of_hydra(tree: Path) -> None:
    overrides = ["hydra/sweeper=basic", "hydra.sweeper.params={seed: '1,2'}"]
    if Version(hydra.__version__) < Version("1.4.0rc1"):
        with pytest.raises(ConfigError, match=r"params=\{seed: '1,2'\}: Hydra cannot set this"):
            ask(overrides, [tree])
    else:
        assert compose_multirun(overrides, [tree]).master.hydra.sweeper.params == {"++seed": "1,2"}
