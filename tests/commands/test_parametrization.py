"""What each role learns at, in a plan."""

import json
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL
from truesweep.commands.train import train
from truesweep.errors import ConfigError

COMPLETEP = [
    *("model.parametrization=completep", "model.base_width=16", "model.base_depth=1"),
    *("model.width=64", "model.depth=3"),
]


def test_the_plan_shows_what_each_role_learns_at(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, "optimizer=adamw", "optimizer.lr=0.004", "name=x"]
    assert train([*asked, *COMPLETEP], [], None, dry_run=True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "completep, those of width 16 and depth 1: matrix x0.25, x0.0833" in said
    assert "head x0.25" in said
    assert train([*asked, *COMPLETEP], [], None, dry_run=True, as_json=True) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    (head,) = (group for group in groups if group["role"] == "head")
    assert head["lr"] == pytest.approx(0.001)
    assert head["weight_decay"] == pytest.approx(0.4)
    assert train(asked, [], None, dry_run=True) == 0
    assert "rates" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="trained whole"):
        train([*asked, *COMPLETEP, "adapter=lora"], [], None, dry_run=True)
    for key in ("model.base_width", "model.base_depth"):
        with pytest.raises(ConfigError, match=f"needs {key}"):
            train([*asked, *COMPLETEP, f"{key}=null"], [], None, dry_run=True)


def test_the_plan_shows_ratios_and_those_that_change_nothing(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = ["optimizer=adamw", "optimizer.head_lr_ratio=10", "optimizer.adapter_b_lr_ratio=16"]
    asked = [*data["classification"], *SMALL, *ratios, "name=x"]
    assert train([*asked, "adapter=lora"], [], None, dry_run=True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rates matrix x1; adapter_b x16; head x10; gain x1" in said
    assert "changes nothing" not in said
    assert train(asked, [], None, dry_run=True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rates matrix x1; embedding x1; head x10; gain x1" in said
    assert "optimizer.adapter_b_lr_ratio=16.0 changes nothing: no adapter_b is trained" in said
    assert train([*data["lm"], *SMALL, "optimizer=muon", "name=x"], [], None, dry_run=True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "embedding x2" in said
    assert "changes nothing" not in said
