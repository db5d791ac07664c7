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
    "sweeps.pruner=forecast",
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
    sweep = workplace / "outputs/sweeps/s"
    driver = start(["-m", *small(data["lm"], *SEARCH)], workplace)
    wait_for_thaw(sweep)
    driver.kill()
    driver.wait()
    while any(job.alive for job in runs(sweep)):
        time.sleep(0.05)
    before = {job.id: (job.status, job.read_metrics()) for job in runs(sweep)}
    assert "paused" in {known["state"] for known, _ in before.values()}
    assert resume(sweep) == 0
    said = capsys.readouterr().out
    ended = {job.id: job.state for job in runs(sweep)}
    assert set(ended.values()) == {"completed", "paused"}
    for job in runs(sweep):
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
    assert status(sweep) == 0
    assert counted in capsys.readouterr().out
    assert {row["id"]: row["state"] for row in rows(sweep)} == ended
    assert compare_runs([sweep], Options()) == 0
    assert capsys.readouterr().out.count("paused") == number
    assert json.dumps("paused") in (sweep / "report.html").read_text()
    # One that waits can be trained to its end by itself; the search then knows of it.
    one = next(name for name, state in ended.items() if state == "paused")
    assert resume(sweep / one) == 0
    assert Run(sweep / one).state == "completed"
    capsys.readouterr()
    assert resume(sweep) == 0
    assert f"3 jobs: {4 - number} completed" in capsys.readouterr().out
