import json
from pathlib import Path
from typing import Any

import pytest

from truesweep.errors import ConfigError
from truesweep.runs.run import Run, write_entries
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.progress import Board, counts
from truesweep.sweeps.settings import Sweep


def add(sweep: SweepDirectory, lr: float, seed: int = 0, number: int = 0) -> Run:
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
    file = found[0].path / "job.json"
    write_entries(file, found[0].job | {"label": "lr=1e-3"})
    assert sweep.jobs()[0].label == "lr=0.001"  # as version 0.1.0 kept it
    assert [job.devices for job in found] == [2, 2, 2]
    assert all(job.state == "queued" for job in found)


def test_the_same_job_is_not_made_twice(sweep: SweepDirectory) -> None:
    first = add(sweep, 0.1)
    first.begin()
    assert add(sweep, 0.1, number=7) == first
    assert sweep.jobs()[0].job["number"] == 0
    assert first.status["state"] == "running"
    assert sweep.find({"name": "s", "seed": 0, "optimizer": {"lr": 0.1}}) == first
    assert sweep.find({"name": "s", "seed": 1, "optimizer": {"lr": 0.1}}) is None


def test_what_was_asked_is_kept_once(sweep: SweepDirectory) -> None:
    for overrides in (["a=1,2"], ["a=1,2"], ["a=1,2,3"]):
        sweep.ask(overrides, [Path("mine")], Sweep(retries=2), {"slots": 1})
    record = SweepDirectory.open(sweep.path).read()
    assert [entry["overrides"] for entry in record["asked"]] == [["a=1,2"], ["a=1,2,3"]]
    assert record["asked"][0]["config_dirs"] == [str(Path("mine").absolute())]
    assert sweep.settings == Sweep(retries=2, direction=["minimize"])
    assert sweep.launcher == {"slots": 1}


def test_a_repeated_command_is_the_latest(sweep: SweepDirectory) -> None:
    for overrides in (["a=1,2"], ["a=1,2,3"], ["a=1,2"]):
        sweep.ask(overrides, [], Sweep(), {}, ["x"])
    assert [one["overrides"] for one in sweep.read()["asked"]] == [["a=1,2,3"], ["a=1,2"]]


def test_planned_jobs_count_before_they_have_directories(sweep: SweepDirectory) -> None:
    here = add(sweep, 0.1)
    sweep.ask(["lr=0.1,0.2"], [], Sweep(), {}, [here.id, "b"])
    sweep.ask(["lr=0.1,0.2,0.3"], [], Sweep(), {}, [here.id, "b", "c"])
    assert [sweep.missing(one) for one in sweep.read()["asked"]] == [{"b"}, {"b", "c"}]
    assert sweep.planned == 3
    sweep.ask(["search"], [], Sweep(method="search", jobs=7), {})
    assert sweep.planned == 7


def test_two_drivers_make_the_same_job_at_once(
    sweep: SweepDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, find = add(sweep, 0.1, number=1), SweepDirectory.find
    looked: list[bool] = []

    def late(self: SweepDirectory, config: dict[str, Any]) -> Run | None:
        looked.append(True)
        return find(self, config) if len(looked) > 1 else None  # not there yet, a moment ago

    monkeypatch.setattr(SweepDirectory, "find", late)
    assert add(sweep, 0.1, number=2) == first
    assert first.job["number"] == 1


def test_another_digit_in_what_was_asked_is_noticed(sweep: SweepDirectory) -> None:
    sweep.ask(["lr=0.1,0.2"], [], Sweep(jobs=24), {})
    sweep.asked.write_text(sweep.asked.read_text().replace("24", "25"))
    with pytest.raises(ConfigError, match=r"sweep\.yaml: is not as the program wrote it"):
        SweepDirectory.open(sweep.path).read()


@pytest.mark.parametrize("name", ["status.json", "results.json", "job.json", "config.yaml"])
def test_a_job_with_a_damaged_file_is_broken(sweep: SweepDirectory, name: str) -> None:
    broken, whole = add(sweep, 0.1), add(sweep, 0.2, number=1)
    damaged, board = broken.path / name, Board("val/loss", "min")
    before = damaged.read_text() if damaged.exists() else None
    damaged.write_text("")
    assert {job.id: job.state for job in sweep.jobs()} == {broken.id: "broken", whole.id: "queued"}
    assert name in (broken.error or "")
    assert counts(board.rows([broken, whole]), 0) == "2 jobs: 1 broken, 1 queued"
    sweep.write_jobs([broken, whole], Sweep())
    assert [row["state"] for row in sweep.read_jobs()] == ["broken", "queued"]
    if before is None:
        damaged.unlink()
    else:
        damaged.write_text(before)
    assert counts(board.rows([broken, whole]), 0) == "2 jobs: 2 queued"


def test_what_a_job_was_asked_with_is_not_needed(sweep: SweepDirectory) -> None:
    job = add(sweep, 0.1)
    (job.path / "overrides.yaml").unlink()
    sweep.write_jobs([job], Sweep())
    assert [(row["state"], row["overrides"]) for row in sweep.read_jobs()] == [("queued", None)]


@pytest.mark.parametrize("text", ["", "name: s", "a: [", "asked: []"])
def test_a_damaged_record_of_what_was_asked_is_named(sweep: SweepDirectory, text: str) -> None:
    sweep.path.mkdir(parents=True)
    sweep.asked.write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.yaml: "):
        _ = sweep.settings


def test_jobs_are_summed_up(sweep: SweepDirectory) -> None:
    a, b = add(sweep, 0.1), add(sweep, 0.2, number=1)
    a.begin()
    a.end("completed", 0)
    a.results.write_text(json.dumps({"val/loss": 2.5}))
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
