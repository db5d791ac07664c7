"""`truesweep duel`: who is better, by runs with the same seeds."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import SMALL, truesweep
from truesweep.commands.duel import Terms, duel, read_contenders
from truesweep.commands.resume import resume_sweep
from truesweep.commands.sweep import sweep
from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory

TERMS = Terms(None, 0.05, 0.0, 20, None, dry_run=True, json=False)
TINY = ["model.depth=1", "trainer.max_steps=4", "trainer.val_check_interval=4"]


@pytest.mark.slow
def test_a_run_is_beaten_and_the_same_command_again_trains_nothing(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, *TINY, "optimizer.lr=1e-4", "name=x"]
    assert truesweep("train", *asked, cwd=workplace).code == 0
    (run,) = (workplace / "outputs/x").iterdir()
    fight = ["duel", str(run), "optimizer.lr=0.02", "--json"]
    done = truesweep(*fight, cwd=workplace)
    assert done.code == 0, done.out + done.err
    told = json.loads(done.out)
    found = told["duels"]["B"]
    assert (found["verdict"], found["seeds"]) == ("better", 4)
    assert found["low"] < found["difference"] < found["high"] < 0
    values = {letter: one["values"] for letter, one in told["contenders"].items()}
    assert values["A"].keys() == values["B"].keys() == {"0", "1", "2", "3"}
    # Of seed 0, the run itself was trained again, to the same figure.
    results = json.loads((run / "results.json").read_text())
    assert values["A"]["0"] == results["val/loss"]
    jobs = sorted((workplace / "outputs/sweeps").glob("duel-*/*/status.json"))
    assert len(jobs) == 8
    before = [path.stat().st_mtime_ns for path in jobs]
    again = truesweep(*fight[:-1], cwd=workplace)
    assert again.code == 0, again.out + again.err
    assert "B is better than A by" in again.out
    assert "Winner" not in again.out  # by another statistic, of seeds that are not paired
    assert [path.stat().st_mtime_ns for path in jobs] == before


def test_secrets_of_contenders_are_not_kept() -> None:
    (first, _) = read_contenders(["model=llama logger.api_key=sk-canary", "seed=1"], [])
    assert "sk-canary" not in first.typed + first.text


def test_what_cannot_be_fought_is_refused(data: dict[str, list[str]], workplace: Path) -> None:
    first = " ".join([*data["lm"], *SMALL])
    refused = [
        ([first], "a duel is of 2 to 26 contenders, and 1 are given"),
        ([first, f"{first} seed=3"], "A and B are the same configuration"),
        ([first, f"{first} optimizer.lrr=1"], r"optimizer\.lrr: no such key"),
        ([first, "outputs/none"], "outputs/none"),
        ([first, "name='x"], "contender B: a quote in it is not closed"),
    ]
    for contenders, message in refused:
        with pytest.raises(ConfigError, match=message):
            duel(contenders, [], TERMS)
    with pytest.raises(ConfigError, match="val/blue"):
        duel(
            [first, f"{first} model.depth=1"], [], Terms("val/blue", 0.05, 0, 20, None, True, False)
        )
    assert not (workplace / "outputs").exists()


def test_a_dry_run_writes_nothing(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = " ".join([*data["lm"], *SMALL])
    assert duel([first, f"{first} model.depth=1"], [], TERMS) == 0
    assert "2 contenders, 4 seeds at first, 20 at most, by val/loss" in capsys.readouterr().out
    assert not (workplace / "outputs").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"error": 0.0}, "--error 0.0: expected a share between 0 and 1"),
        ({"seeds": 1}, "--seeds 1: expected 2 or more"),
        ({"smallest": -1.0}, "--smallest -1.0: expected 0 or more"),
        ({"smallest": float("nan")}, "--smallest nan: expected 0 or more"),
        ({"name": "../elsewhere"}, "--name ../elsewhere: is no folder inside outputs/"),
    ],
)
def test_terms_that_mean_nothing_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TERMS, **changed)


@pytest.mark.slow
def test_the_leaders_of_a_sweep_are_settled(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two points that come to the same are tied, and stay so."""
    monkeypatch.setattr(sys.modules[duel.__module__], "SEEDS", 2)
    rows = "trainer.log_every_n_steps=1,2"
    asked = [*data["lm"], *SMALL, *TINY, rows, "name=x", "sweeps.settle=true"]
    assert sweep(asked, [], dry_run=False) == 0
    said = capsys.readouterr().out
    assert "Settling 2 leaders: at most 2 seeds each" in said
    assert "B against A is undecided" in said
    settled = SweepDirectory(workplace / "outputs/sweeps/x-settled").jobs()
    assert sorted(job.varies["seed"] for job in settled) == [0, 0, 1, 1]
    assert resume_sweep(workplace / "outputs/sweeps/x") == 0
    assert "B against A is undecided" in capsys.readouterr().out
