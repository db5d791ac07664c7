import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands.conftest import TIMED
from tests.sweeps.tiny import DIVERGES, drive_here, make_sweep, until
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps.local import LocalPool

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _clean_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def results(jobs: list[Run]) -> dict[str, dict[str, Any]]:
    """What the jobs found, without what a clock says."""
    return {job.id: {k: v for k, v in job.read_results().items() if k not in TIMED} for job in jobs}


def starts(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What each job was, whenever it began to train."""
    by_job = defaultdict(list)
    for line in (folder / "starts.jsonl").read_text().splitlines():
        row = json.loads(line)
        by_job[row["job"]].append(row)
    return dict(by_job)


def in_session(leader: int) -> list[int]:
    """Living processes of a job."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            same = os.getsid(process.pid) == leader
        except ProcessLookupError:
            continue
        if same and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_jobs_that_come_to_grief_leave_the_others_alone(workplace: Path) -> None:
    good: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2}]
    bad: list[dict[str, Any]] = [
        {"callbacks.mishap.how": "fail"},
        {"callbacks.mishap.how": "memory"},
        {"callbacks.mishap.how": "kill"},
        dict(DIVERGES),
        {"callbacks.mishap.how": "hang"},
    ]
    points: list[dict[str, Any]] = [*bad[:2], good[0], *bad[2:], good[1]]
    sweep, jobs = make_sweep(workplace, points, stall_minutes=10 / 60)
    assert drive_here(sweep) == 1
    fine = [job for job in jobs if job.varies in good]
    errors = [str(job.status.get("error")) for job in jobs if job not in fine]
    named = ["nothing good", "out of memory: CUDA", "SIGKILL", "infinite or NaN", "hanging: "]
    assert all(name in error for name, error in zip(named, errors, strict=True))
    assert [job.state for job in fine] == ["completed"] * 2
    for job, word in zip(jobs, ("nothing good", "OutOfMemoryError"), strict=False):
        assert word in job.log(0).read_text()
    rows = [json.loads(line) for line in sweep.summary.read_text().splitlines()]
    assert [row["exit_code"] for row in rows] == [1, 1, 0, 137, 1, 137, 0]
    assert [row["objective"] for row in rows if row["state"] == "completed"] == [
        job.read_results()["val/loss"] for job in fine
    ]

    alone, same = make_sweep(workplace, good, name="s2")
    found, expected = results(fine), {}
    assert drive_here(alone) == 0
    expected = dict(zip(found, results(same).values(), strict=True))
    assert found == expected


def test_jobs_share_neither_memory_nor_cores_nor_environment(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    points: list[dict[str, Any]] = [{"seed": seed} for seed in range(4)]
    points[0] = {"callbacks.mishap.how": "memory"}
    sweep, jobs = make_sweep(workplace, points)
    assert drive_here(sweep) == 1
    (first,), *others = (starts(workplace)[job.id] for job in jobs)
    for (row,) in others:
        assert row["resident"] < first["resident"] + 64 * 2**20  # not the ballast of 256 MiB
    assert all(not row["place"] for (row,) in [(first,), *others])
    assert len({row["pid"] for (row,) in others}) == 3
    if len(os.sched_getaffinity(0)) > 1:
        assert first["cores"] != others[0][0]["cores"]
        assert len(first["cores"]) < len(os.sched_getaffinity(0))


@pytest.mark.parametrize("devices", [(2, 1), (1, 2)])
def test_jobs_of_one_and_of_several_devices_mix(workplace: Path, devices: tuple[int, ...]) -> None:
    points = [{"trainer.devices": count, "model.dropout": 0} for count in devices]
    sweep, jobs = make_sweep(workplace, points)
    assert drive_here(sweep) == 0
    found = results(jobs)
    losses = [found[job.id]["test/loss"] for job in jobs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for job in jobs:
        rows = starts(workplace)[job.id]
        assert sorted(row["rank"] for row in rows) == list(range(job.devices))
        assert {row["ranks"] for row in rows} == {job.devices}
        assert all(("RANK" in row["place"]) == (job.devices > 1) for row in rows)
    order = [
        json.loads(line)["job"] for line in (workplace / "starts.jsonl").read_text().splitlines()
    ]
    biggest = max(jobs, key=lambda job: job.devices)
    assert order[0] == biggest.id


def test_nothing_is_left_of_a_job_whose_main_process_is_killed(workplace: Path) -> None:
    point = {"trainer.devices": 2, "callbacks.mishap.how": "hang"}
    _, (job,) = make_sweep(workplace, [point])
    pool = LocalPool(2)
    pool.start(job, resume=False)
    until(lambda: (workplace / "starts.jsonl").exists() and len(starts(workplace)[job.id]) == 2)
    leader = job.status["pid"]
    assert len(in_session(leader)) >= 3
    os.kill(leader, signal.SIGKILL)
    ended: list[tuple[Run, int]] = []
    while not ended:
        ended = pool.wait(0.1)
    assert ended == [(job, -signal.SIGKILL)]
    until(lambda: not in_session(leader), 5)
    assert not job.alive
    assert pool.fits(job)


def test_a_job_that_needs_too_much_is_refused_before_anything_starts(workplace: Path) -> None:
    sweep, jobs = make_sweep(workplace, [{"seed": 1}, {"trainer.devices": 3}])
    with pytest.raises(ConfigError, match=r"trainer.devices=3, but there are 2 slots"):
        drive_here(sweep)
    assert all(not job.status for job in jobs)


def test_a_retry_goes_on_from_the_checkpoint(workplace: Path) -> None:
    point = {"callbacks.mishap.how": "kill", "callbacks.mishap.at": 9}
    point |= {"callbacks.mishap.once": True}
    sweep, (job,) = make_sweep(workplace, [point], retries=1)
    assert drive_here(sweep) == 0
    assert [row["step"] for row in starts(workplace)[job.id]] == [0, 6]
    assert job.state == "completed"
