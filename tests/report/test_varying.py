"""By which keys the runs of several sweeps are told apart."""

import json
from pathlib import Path

import pytest

from tests.report.conftest import MakeRun, configuration
from truesweep.report import compare
from truesweep.report.payload import label, payload

LRS = (0.001, 0.01)


@pytest.fixture
def two_sweeps(make_run: MakeRun, tmp_path: Path) -> list[Path]:
    """Both over the learning rate: A at one width, B at another, of another name."""
    for sweep, width in (("a", 32), ("b", 64)):
        for i, lr in enumerate(LRS):
            config = configuration(optimizer__lr=lr, model__width=width, name=sweep)
            job = {"sweep": sweep, "label": f"lr={lr}", "varies": {"optimizer.lr": lr}}
            make_run(f"{sweep}/{i}", config, end=2.0 + lr + width, job=job)
    return [tmp_path / "a", tmp_path / "b"]


def test_two_sweeps_differ_in_what_neither_varied(two_sweeps: list[Path]) -> None:
    found = compare(two_sweeps)
    assert found.keys == ["optimizer.lr", "model.width"]
    labels = [label(found, run) for run in found.runs]
    assert labels == [f"lr={lr:g} width={width}" for width in (32, 64) for lr in LRS]
    assert len(found.ranking.standings) == 4


def test_one_sweep_is_told_apart_by_what_it_varied(two_sweeps: list[Path]) -> None:
    found = compare(two_sweeps[:1])
    assert found.keys == ["optimizer.lr"]
    assert [label(found, run) for run in found.runs] == ["lr=0.001", "lr=0.01"]


def test_what_follows_from_a_swept_choice_is_no_difference_of_sweeps(
    make_run: MakeRun, tmp_path: Path
) -> None:
    rates = {"adamw": 0.001, "muon": 0.02}
    for sweep, depth in (("a", 2), ("b", 3)):
        for i, target in enumerate(sorted(rates, reverse=sweep == "b")):
            optimizer = {"_target_": f"truesweep.optim.{target}", "lr": rates[target]}
            config = configuration(optimizer=optimizer, model__depth=depth)
            make_run(f"{sweep}/{i}", config, job={"varies": {"optimizer": target}})
    assert compare([tmp_path]).keys == ["optimizer", "model.depth"]


def test_a_key_that_an_older_run_lacks_is_a_difference_only_if_it_asks_for_something(
    make_run: MakeRun,
) -> None:
    older = make_run("older")
    newer = [
        make_run(f"newer{verify}", {**configuration(), "data": {"verify": verify}, "adapter": None})
        for verify in ("sample", "full")
    ]
    found = compare([older, newer[0]])
    assert found.keys == []
    assert payload(found)["config"].keys() == payload(compare([older]))["config"].keys()
    assert compare([older, *newer]).keys == ["data.verify"]
    assert compare(newer).keys == ["data.verify"]


@pytest.mark.parametrize("bound", [float("inf"), 10**400, 1e308])
def test_a_swept_value_may_be_as_large_as_can_be(make_run: MakeRun, bound: float) -> None:
    folders = []
    for i, value in enumerate((0.5, 1.0, 4.0, bound)):
        config = configuration(trainer__gradient_clip_val=value)
        job = {"sweep": "s", "label": "", "varies": {"trainer.gradient_clip_val": value}}
        folders.append(make_run(f"s/{i}", config, end=2.0 + i, job=job))
    found = payload(compare(folders))
    (key,) = found["keys"]
    assert key["numeric"] == (bound == 1e308)
    assert json.dumps(found["runs"][3]["values"]) == json.dumps([bound])
