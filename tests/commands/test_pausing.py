"""A search that pauses its jobs, with real trainings, and its driver killed in their middle."""

import json
import time
from pathlib import Path

import pytest

from tests.commands.conftest import start
from tests.commands.test_sweep import rows, small
from truesweep.commands.compare import Options, compare_runs
from truesweep.commands.resume import resume
from truesweep.commands.status import status
from truesweep.commands.sweep import sweep
from truesweep.compat import storage_id
from truesweep.jobs.launch import launch
from truesweep.record.files import write_json
from truesweep.record.study import PAUSED, open_storage
from truesweep.runs.run import Run

SLICE = 4
SEARCH = [
    "name=s",
    "optimizer.lr=1e-4,1e-3,1e-2",
    "model.depth=1",
    "trainer.max_steps=60",
    "trainer.val_check_interval=2",
    "sweeps.method=search",
    "sweeps.sampler=grid",
    "sweeps.jobs=3",
    "sweeps.parallel=1",
    f"sweeps.pruner_warmup={SLICE}",
]


def runs(sweep: Path) -> list[Run]:
    return [Run(path.parent) for path in sweep.glob("*/config.yaml")]


def wait_for_thaw(sweep: Path) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        jobs = runs(sweep)
        if len(jobs) == 3 and any(job.step > SLICE and job.state == "running" for job in jobs):
            return
        time.sleep(0.02)
    raise AssertionError(f"no job of {sweep} goes on")


def assert_trained_once(job: Run) -> None:
    """Assert that every step was told of once, whatever pauses lay between."""
    steps = [row["step"] for row in job.read_metrics() if "train/loss" in row]
    assert steps == [1, *range(2, job.step + 1, 2)]


def test_a_killed_search_goes_on_where_each_job_was(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workplace / "outputs/sweeps/s"
    driver = start(["-m", *small(data["lm"], *SEARCH)], workplace)
    wait_for_thaw(folder)
    driver.kill()
    driver.wait()
    while any(job.alive for job in runs(folder)):
        time.sleep(0.05)
    before = {job.id: (job.status, job.read_metrics()) for job in runs(folder)}
    assert "paused" in {known["state"] for known, _ in before.values()}
    assert resume(folder) == 0
    said = capsys.readouterr().out
    ended = {job.id: job.state for job in runs(folder)}
    assert set(ended.values()) == {"completed", "paused"}
    for job in runs(folder):
        status_then, record = before[job.id]
        # Nothing of it was trained again; a validation that was struck joins the last row, and
        # the row then has its time.
        kept = job.read_metrics()[: len(record)]
        assert kept[:-1] == record[:-1]
        assert kept[-1].items() >= {k: v for k, v in record[-1].items() if k != "time"}.items()
        assert_trained_once(job)
        if ended[job.id] == "paused" and f"thawed     {job.id}" not in said:
            assert job.status == status_then
    number = list(ended.values()).count("paused")
    counted = f"3 jobs: {3 - number} completed, {number} paused"
    assert counted in said
    assert "\nWaiting: " in said
    assert status(folder) == 0
    shown = capsys.readouterr().out
    assert counted in shown
    assert "what is paused keeps its state: truesweep resume outputs/sweeps/s/JOB" in shown
    assert {row["id"]: row["state"] for row in rows(folder)} == ended
    assert compare_runs([folder], Options()) == 0
    shown = capsys.readouterr().out
    assert shown.partition("\nWaiting: ")[0].count("paused") == number
    longest = max((job for job in runs(folder) if job.state == "paused"), key=lambda job: job.step)
    assert f"truesweep resume {longest.path.relative_to(workplace)}" in " ".join(shown.split())
    assert json.dumps("paused") in (folder / "report.html").read_text()
    # One that waits can be trained to its end by itself; the search then knows of it.
    one = next(name for name, state in ended.items() if state == "paused")
    assert resume(folder / one) == 0
    assert Run(folder / one).state == "completed"
    capsys.readouterr()
    assert resume(folder) == 0
    assert f"3 jobs: {4 - number} completed" in capsys.readouterr().out


def test_jobs_of_two_ranks_pause_and_thaw_as_those_of_one(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SEARCH[2:], "optimizer.lr=1e-3,1e-1", "trainer.max_steps=12", "sweeps.jobs=2"]
    asked += ["sweeps.pruner=forecast"]  # at rungs that are too far apart to be the default
    found = []
    for devices in (1, 2):
        here = [f"name=on{devices}", f"trainer.devices={devices}"]
        assert sweep(small(data["lm"], *asked, *here), [], False) == 0
        assert "thawed" in capsys.readouterr().out
        jobs = runs(workplace / f"outputs/sweeps/on{devices}")
        for job in jobs:
            assert_trained_once(job)
        found.append({job.varies["optimizer.lr"]: job for job in jobs})
    one, two = found
    for rate, job in one.items():
        assert (two[rate].state, two[rate].step) == (job.state, job.step)
        for mine, other in zip(job.read_metrics(), two[rate].read_metrics(), strict=True):
            same = {k: v for k, v in mine.items() if k == "step" or k.endswith("/loss")}
            assert {k: other.get(k) for k in same} == pytest.approx(same, rel=1e-4)
    assert {job.state for job in one.values()} == {"completed", "paused"}


def test_a_job_that_was_killed_as_it_was_told_to_wait_waits(
    data: dict[str, list[str]], workplace: Path
) -> None:
    """It was marked in the study and could not say so itself; nobody has had it go on."""
    assert sweep(small(data["lm"], *SEARCH, "sweeps.jobs=2"), [], False) == 0
    (job,) = (job for job in runs(workplace / "outputs/sweeps/s") if job.state == "paused")
    ended, record = job.status, job.metrics.read_bytes()
    struck = {key: value for key, value in ended.items() if key not in ("finished", "exit_code")}
    write_json(job.path / "status.json", {**struck, "state": "running"})
    assert job.state == "interrupted"
    assert launch(job, resume=True) == 0
    assert (job.state, job.step, job.metrics.read_bytes()) == ("paused", ended["step"], record)

    storage = open_storage("../study.journal", job.path)
    trial = storage.get_all_trials(0)[job.job["trial"]["number"]]
    storage.set_trial_user_attr(storage_id(trial), PAUSED, False)  # the driver has it go on
    write_json(job.path / "status.json", {**struck, "state": "running"})
    assert launch(job, resume=True) == 0
    assert job.step > ended["step"]
