"""Wishes that cannot be met: the message says what was meant, and where."""

import re
import sys
from pathlib import Path

import pytest

from truesweep.commands.sweep import sweep
from truesweep.config.compose import compose, compose_multirun
from truesweep.errors import ConfigError
from truesweep.jobs.plan import checked
from truesweep.sweeps.launchers import make_executor
from truesweep.sweeps.request import ask

GLOBAL = "# @package _global_\n"


def refused(overrides: list[str], said: str, folder: Path | None = None) -> None:
    with pytest.raises(ConfigError, match=said):
        checked(overrides, [folder] if folder else [])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=range(3),7", (0, 1, 2, 7)),
        ("seed=9,range(1,3),choice(4,5)", (9, 1, 2, 4, 5)),
        ("model=glob(q*),llama", ("qwen3", "llama")),
    ],
)
def test_a_list_may_hold_ranges_choices_and_globs(text: str, values: tuple[object, ...]) -> None:
    (axis,) = ask([text]).space.axes
    assert axis.values == values


def test_an_interval_in_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"seed=interval\(1,3\),7: an interval has no list"):
        ask(["seed=interval(1,3),7"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer/x=adamw", r"There is no such group; did you mean optimizer\?"),
        ("logger=[wandb,wandb]", "names wandb twice"),
        ("logger=[wandb,none]", "none is not one of several"),
        ("logger=[wandb,wandbb]", r"logger=wandbb: .*did you mean wandb\? Options: csv, none"),
        ("optimizer=[adamw,sgd]", "a run has one optimizer; .*optimizer=adamw,sgd"),
        ("optimizer.lr={a:1}", r"found \{a:1\} \(command line\)"),
        ("data.train=[{a:b}]", r"no such key"),
        ("expermient=lm_char", r"did you mean experiment\?"),
        ("debgu=overfit", r"did you mean debug\?"),
        ("var=3", r"did you mean vars\?"),
        ("nonesuch=3", r"the root has .*task, vars, .*experiment"),
    ],
)
def test_a_wish_that_cannot_be_met(override: str, said: str) -> None:
    refused([override], said)


def test_a_group_that_nothing_chooses_from(tmp_path: Path) -> None:
    (tmp_path / "optimizer" / "extra").mkdir(parents=True)
    (tmp_path / "optimizer" / "extra" / "big.yaml").write_text("lr: 1\n")
    refused(["optimizer/extra=big"], r"write \+optimizer/extra=OPTION", tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["vars.x=3", "seed=${vars.y}"], r"^\$\{vars\.y\}: there is no vars\.y; there is x$"),
        (["vars.seeds=3", "seed=${vars.seed}"], r"did you mean seeds\?"),
        (["seed=${vars.y}"], r"there is no vars\.y; vars\.y=VALUE sets it$"),
    ],
)
def test_a_helper_value_that_is_not_there(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)


LISTED = "truesweep show lists the keys, and vars.NAME=VALUE adds one of your own"


@pytest.mark.parametrize(
    ("reference", "remedy"),
    [
        ("model.wdth", "did you mean model.width?"),
        ("lr", "did you mean optimizer.lr?"),
        ("model.nothing", "model has depth, width, heads, "),
        ("nothing", LISTED),
        ("now", "it takes an argument: ${now:…}"),
    ],
)
def test_a_reference_to_what_is_not_there(reference: str, remedy: str) -> None:
    said = rf"seed: Interpolation key '{reference}' not found; {re.escape(remedy)}.*\(command line"
    refused([f"seed=${{{reference}}}"], said)


@pytest.mark.parametrize("key", ["hydra.launcher.slots", "sweeps.jobs"])
def test_a_reference_of_a_sweep_to_what_is_not_there(key: str) -> None:
    asked = ["seed=1,2", f"{key}=${{vars.many}}"]
    with pytest.raises(ConfigError, match=rf"^{key}: .*'vars\.many' not found; did you mean "):
        ask([*asked, "vars.manny=3"])
    assert ask([*asked, "vars.many=3"]).multirun.fixed["vars"] == {"many": 3}


@pytest.mark.parametrize("plugin", ["launcher=joblib", "launcher=submitit_slurm", "sweeper=optuna"])
def test_a_plugin_without_its_package(plugin: str) -> None:
    name = plugin.partition("=")[2].partition("_")[0]
    with pytest.raises(ConfigError, match=rf"hydra/{plugin} needs .* pip install hydra-{name}"):
        compose_multirun([f"hydra/{plugin}", "seed=1,2"])


def test_hydras_own_launcher_for_ray_without_its_package() -> None:
    with pytest.raises(ConfigError, match=r"RayLauncher: .*; type pip install hydra-ray-launcher$"):
        sweep(["hydra/launcher=hydra_ray", "seed=1,2"], [], dry_run=True)


@pytest.mark.parametrize(
    ("key", "launchers"),
    [("partition", "slurm$"), ("resources", "ray$"), ("mem_gb", "slurm or ray$")],
)
def test_a_key_of_a_cluster_given_to_slots(key: str, launchers: str) -> None:
    pytest.importorskip("ray", reason="needs Ray (pip install 'truesweep[ray]')")
    with pytest.raises(ConfigError, match=rf"launcher\.{key}: .*hydra/launcher={launchers}"):
        make_executor({key: 1})


@pytest.mark.parametrize(
    ("launcher", "extra", "package"),
    [("SlurmLauncher", "slurm", "submitit"), ("RayLauncher", "ray", "ray")],
)
def test_a_cluster_without_its_package(
    launcher: str, extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = f"truesweep.sweeps.{extra}"
    for name in list(sys.modules):
        if name.startswith((ours, f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"hydra/launcher={extra} needs {package}\S*; type pip install 'truesweep\[{extra}\]'"
    with pytest.raises(ConfigError, match=said):
        make_executor({"_target_": f"hydra_plugins.truesweep.{launcher}"})


def test_a_key_with_dots_in_a_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "e.yaml").write_text(f"{GLOBAL}seed: 1\noptimizer.lr: 0.1\n")
    said = r"optimizer\.lr: has a dot in it; .*write lr below optimizer: \(.*e\.yaml:3\)"
    refused(["experiment=e"], said, tmp_path)


def test_a_primary_file_of_the_users_that_lacks_groups(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("seed: 3\n")
    refused([], r"train\.yaml: takes the place of .* chooses no data, .*task", tmp_path)


def test_a_primary_file_of_the_users_with_all_groups(tmp_path: Path) -> None:
    from truesweep.config.roots import shipped

    ours = (shipped("conf") / "train.yaml").read_text()
    (tmp_path / "train.yaml").write_text(ours.replace("seed: 0", "seed: 3"))
    assert compose([], [tmp_path]).config["seed"] == 3
