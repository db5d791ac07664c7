"""`truesweep transfer`: a sweep's rates by size, and the layer that moves them."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.conftest import SMALL, typed
from tests.report.conftest import MakeRun, configuration, make_run
from truesweep.commands.coordinates import Checked, check
from truesweep.commands.transfer import transfer
from truesweep.errors import ConfigError
from truesweep.models import scratch
from truesweep.models.parametrization import parametrize
from truesweep.sweeps.request import ask

__all__ = ["make_run"]  # a fixture

RATES = [0.001, 0.002, 0.004, 0.008, 0.016]


def make_sweep(make_run: MakeRun, best: dict[int, float], **keys: Any) -> Path:
    """A sweep over rates and widths, with the best rate of each width."""
    for width, at in best.items():
        for rate in RATES:
            varies = {"optimizer.lr": rate, "model.width": width, **keys}
            changes = {key.replace(".", "__"): value for key, value in varies.items()}
            loss = 2 + math.log2(rate / at) ** 2 / 10
            name = "-".join(map(str, varies.values()))
            path = make_run(
                f"sweep/{name}",
                configuration(**changes),
                end=loss - 0.1,
                parameters=width**2,
                job={"sweep": "sweep", "label": name, "varies": varies},
            )
    settings = {"objective": "val/loss", "direction": None}
    (path.parent / "sweep.yaml").write_text(yaml.safe_dump({"sweeps": settings}))
    return path.parent


def test_a_rate_that_stays_and_one_that_moves(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(make_run, {32: 0.008, 64: 0.004, 128: 0.002}, **{"seed": 0, "model.depth": 2})
    sweep = make_sweep(make_run, {32: 0.004, 64: 0.0042, 128: 0.0038}, **{"model.depth": 4})
    assert transfer([str(sweep)], [], None, as_json=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "width=128 depth=4" in said
    assert "does not transfer" in said  # over both depths
    assert transfer([str(sweep)], [], None, as_json=True) == 0
    (told,) = json.loads(capsys.readouterr().out)["transfers"]
    assert told["verdict"] == "moves"
    assert told["factor"] == pytest.approx(4)


def test_a_figure_keeps_the_digits_that_its_task_declared(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep(make_run, {32: 0.004, 64: 0.004})
    for job in sweep.glob("*/"):
        declared = {"loss": {"higher_is_better": False, "digits": 6}}
        (job / "provenance.json").write_text(json.dumps({"figures": declared}))
    assert transfer([str(sweep)], [], None, as_json=False) == 0
    assert " 2.00000 " in capsys.readouterr().out


def test_what_a_table_lacks_is_said(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(make_run, {32: 0.004, 64: 0.004})
    first, second, *_ = sorted(sweep.glob("*/results.json"))
    first.unlink()
    (first.parent / "status.json").unlink(missing_ok=True)
    second.write_text("{")
    assert transfer([str(sweep)], [], None, as_json=True) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["transfers"]
    said = " ".join(err.split())
    assert "results.json: cannot be read" in said
    assert "runs without a result, and without a row: 1 of 10" in said


def test_what_else_was_swept_has_verdicts_of_its_own(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(make_run, {32: 0.008, 128: 0.002}, **{"trainer.devices": 1})
    sweep = make_sweep(make_run, {32: 0.004, 128: 0.0042}, **{"trainer.devices": 2})
    assert transfer([str(sweep)], [], None, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    verdicts = {one["of"]["trainer.devices"]: one["verdict"] for one in told["transfers"]}
    assert verdicts == {1: "moves", 2: "transfers"}
    typed_out = typed("transfer", str(sweep), cwd=sweep)
    assert typed_out.code == 0, typed_out.err
    said = " ".join(typed_out.out.split())
    assert "The learning rate does not transfer: from width=32 to width=128 the best rate" in said
    assert "goes from 0.008 to 0.002, and over all sizes it moves by 4.0 times" in said
    assert "loses 0.40 in val/loss" in said
    assert "The learning rate transfers: " in said


def test_a_sweep_of_no_rates_or_sizes_is_refused(make_run: MakeRun) -> None:
    sweep = make_sweep(make_run, {32: 0.004})
    with pytest.raises(ConfigError, match="has finished jobs of 1 size; two are needed"):
        transfer([str(sweep)], [], None, as_json=False)
    make_run("other/1", job={"sweep": "other", "varies": {"optimizer.lr": 0.1}})
    with pytest.raises(ConfigError, match=r"varies no model\.width and no model\.depth"):
        transfer([str(sweep.parent / "other")], [], None, as_json=False)


ASKED = Checked((32, 128), (), 4, 1, json=True)
CHECK = [
    *("model=llama", "model.init=scaled", "model.tie_embeddings=false", "optimizer=adamw"),
    *("optimizer.lr=0.01", "model.parametrization=mup", "model.base_width=32"),
]


def test_a_wrong_multiplier_in_one_layer_is_named(
    data: dict[str, list[str]],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [*data["lm"], *SMALL, *CHECK]
    assert check(asked, [], ASKED) == 0
    told = json.loads(capsys.readouterr().out)["model.width"]
    assert len(told) == 2 * 9 + 3
    assert not any(one["breaks"] for one in told)

    for layer, change in [
        ("model.layers.1.mlp.up_proj", {"rate": 1.0}),
        ("lm_head", {"rate": 1.0}),
        ("model.layers.1.self_attn.v_proj", {"init": 1.0}),
    ]:

        def plant(
            model: Any, *args: Any, layer: str = layer, change: Any = change, **keys: Any
        ) -> None:
            parametrize(model, *args, **keys)
            name = f"{layer}.weight"
            own = model.scales[name]
            if "init" in change:
                model.get_parameter(name).data.div_(own.init)
            model.scales[name] = replace(own, **change)

        monkeypatch.setattr(scratch, "parametrize", plant)
        assert check(asked, [], ASKED) == 1
        told = json.loads(capsys.readouterr().out)["model.width"]
        named = [one["layer"] for one in told if one["breaks"]]
        assert named[0] == layer
        # Values are not normalised before the layer that they are given to.
        assert set(named[1:]) <= {"model.layers.1.self_attn.o_proj"}


def test_the_standard_parametrization_follows_the_width(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, *CHECK, "model.parametrization=standard"]
    assert check(asked, [], replace(ASKED, json=False)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "layers follow the width" in said
    assert "model.layers.0.mlp.up_proj" in said


def test_depth_follows_completep(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    depth = ["model.parametrization=completep", "model.base_depth=2", "optimizer=muon"]
    asked = [*data["lm"], *SMALL, *CHECK, *depth]
    check(asked, [], replace(ASKED, widths=(), depths=(2, 6), seeds=2))
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["model.depth"]
    assert [one for one in told["model.depth"] if one["breaks"]] == []


def test_what_cannot_be_checked_is_refused(data: dict[str, list[str]], workplace: Path) -> None:
    with pytest.raises(ConfigError, match="--widths 64: expected two sizes or more"):
        replace(ASKED, widths=(64,))
    with pytest.raises(ConfigError, match="--steps 0"):
        replace(ASKED, steps=0)
    with pytest.raises(ConfigError, match="does not divide"):
        check([*data["lm"], *SMALL, *CHECK, "model.heads=3"], [], ASKED)
    with pytest.raises(ConfigError, match="pretrained"):
        check([*data["lm"], "model=pretrained", "model.name_or_path=x"], [], ASKED)


def test_overrides_are_answered_by_the_commands_that_take_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As typed, with what has to vary; what varies already stays."""

    def said(*arguments: str) -> str:
        with pytest.raises(ConfigError) as refused:
            transfer(arguments, [tmp_path], None, as_json=False)
        return str(refused.value)

    command = f"truesweep train -m --config-dir {tmp_path} "
    rates, widths = "optimizer.lr=1e-3,2e-3,4e-3,8e-3", "model.width=64,128,256"
    told = said("model=llama", "optimizer.lr=0.1", "logger.api_key=hush")
    assert f"\n  {command}model=llama 'logger.api_key=<redacted>' {rates} {widths} name=" in told
    assert "\n  truesweep transfer outputs/sweeps/transfer\n" in told
    assert "--check" in told
    told = said("optimizer.lr=1,2", "model.depth=2,4", "name=mine")
    assert f"\n  {command}optimizer.lr=1,2 model.depth=2,4 name=mine\n" in told
    assert "\n  truesweep transfer outputs/sweeps/mine\n" in told
    assert f"{command}{rates} {widths} name=transfer\n" in said()
    assert said("outputs/s", "seed=1").endswith("alone: truesweep transfer outputs/s")
    composed = ask(shlex.split(said().partition(str(tmp_path))[2].partition("\n")[0]))
    assert len(composed.space.grid()) == 12
