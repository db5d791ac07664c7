import json
from pathlib import Path
from typing import Any

import pytest

from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.job import Job
from truesweep.sweeps.settings import Sweep


def add(sweep: SweepDirectory, lr: float, seed: int = 0, number: int = 0) -> Job:
    config: dict[str, Any] = {"name": sweep.name, "seed": seed, "optimizer": {"lr": lr}}
    return sweep.add(
        config,
        [f"optimizer.lr={lr}"],
        {"optimizer.lr": lr},
        label=f"lr={lr}",
        number=number,
        provenance={},
        devices=2,
    )


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDirectory:
    return SweepDirectory(tmp_path / "outputs/sweeps/s")


def test_jobs_come_back_in_their_order(sweep: SweepDirectory) -> None:
    added = [add(sweep, lr, number=number) for number, lr in enumerate((0.3, 0.1, 0.2))]
    found = sweep.jobs()
    assert found == added
    assert [job.label for job in found] == ["lr=0.3", "lr=0.1", "lr=0.2"]
    assert [job.devices for job in found] == [2, 2, 2]
    assert all(job.state == "queued" for job in found)


def test_the_same_job_is_not_made_twice(sweep: SweepDirectory) -> None:
    first = add(sweep, 0.1)
    first.run.begin()
    assert add(sweep, 0.1, number=7) == first
    assert sweep.jobs()[0].run.job["number"] == 0
    assert first.run.status["state"] == "running"
    assert sweep.find({"name": "s", "seed": 0, "optimizer": {"lr": 0.1}}) == first.run
    assert sweep.find({"name": "s", "seed": 1, "optimizer": {"lr": 0.1}}) is None


def test_jobs_that_differ_by_their_seed_share_a_point(sweep: SweepDirectory) -> None:
    a, b, c = add(sweep, 0.1), add(sweep, 0.1, seed=1), add(sweep, 0.2)
    assert a.run.job["point"] == b.run.job["point"] != c.run.job["point"]
    assert a.id != b.id


def test_what_was_asked_is_kept_once(sweep: SweepDirectory) -> None:
    for overrides in (["a=1,2"], ["a=1,2"], ["a=1,2,3"]):
        sweep.ask(overrides, [Path("mine")], Sweep(retries=2), {"slots": 1})
    record = SweepDirectory.open(sweep.path).read()
    assert [entry["overrides"] for entry in record["asked"]] == [["a=1,2"], ["a=1,2,3"]]
    assert record["asked"][0]["config_dirs"] == [str(Path("mine").absolute())]
    assert sweep.settings == Sweep(retries=2)
    assert sweep.launcher == {"slots": 1}


def test_jobs_are_summed_up(sweep: SweepDirectory) -> None:
    a, b = add(sweep, 0.1), add(sweep, 0.2, number=1)
    a.run.begin()
    a.run.end("completed", 0)
    a.run.results.write_text(json.dumps({"val/loss": 2.5}))
    sweep.write_jobs([a, b], Sweep())
    assert sweep.read_jobs() == [
        {
            "id": a.id,
            "overrides": ["optimizer.lr=0.1"],
            "varies": {"optimizer.lr": 0.1},
            "state": "completed",
            "exit_code": 0,
            "objective": 2.5,
        },
        {
            "id": b.id,
            "overrides": ["optimizer.lr=0.2"],
            "varies": {"optimizer.lr": 0.2},
            "state": "queued",
            "exit_code": None,
            "objective": None,
        },
    ]


def test_no_sweeps_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        SweepDirectory.open(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"has no sweep\.yaml"):
        SweepDirectory.open(tmp_path)
    assert not SweepDirectory.is_sweep(tmp_path)
