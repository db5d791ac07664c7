"""Drivers that are killed, interrupted, and two at once; each job is done once all the same."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sweeps.test_pool import _clean_path as _clean_path  # a fixture
from tests.sweeps.test_pool import results, starts
from tests.sweeps.tiny import drive_here, make_sweep, start_driver, until
from truesweep.callbacks.preemption import SAME_PRESS_SECONDS
from truesweep.commands.resume import resume
from truesweep.commands.status import status
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps.local import SECONDS_TO_STOP

pytestmark = pytest.mark.slow

WAITS = {"callbacks.mishap.how": "wait", "callbacks.checkpoint.every_n_steps": 2}
POINTS = [{**WAITS, "seed": seed} for seed in range(3)]


def completed_once(folder: Path, jobs: list[Run], twice: set[str]) -> None:
    """Every job has ended well, and was started once, or went on where it was stopped."""
    assert [job.state for job in jobs] == ["completed"] * len(jobs)
    for job, rows in starts(folder).items():
        steps = [row["step"] for row in rows]
        assert steps[0] == 0
        assert len(steps) == 1 or (job in twice and len(steps) == 2), (job, steps)


def trainers(folder: Path) -> set[int]:
    """Living processes that have trained here."""
    pids = {row["pid"] for rows in starts(folder).values() for row in rows}
    return {
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    }


def running(jobs: list[Run], count: int) -> bool:
    """Whether so many jobs have saved something and train on."""
    saved = [job for job in jobs if (job.checkpoints / "last.ckpt").exists()]
    return sum(job.state == "running" for job in saved) >= count


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_sweep_goes_on_where_it_was(workplace: Path, signum: int) -> None:
    sweep, jobs = make_sweep(workplace, POINTS)
    (workplace / "wait").touch()  # in the third step, so that none of them ends before the signal
    driver = start_driver(sweep)
    until(lambda: running(jobs, 2))
    assert driver.pid is not None
    os.kill(driver.pid, signum)
    driver.join(60)
    assert driver.exitcode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(
        signal.Signals(signum), -9
    )
    until(lambda: not trainers(workplace), 30)  # by themselves, if the driver is gone
    assert Counter(job.state for job in jobs) == {"preempted": 2, "queued": 1}
    stopped = {job.id for job in jobs if job.state == "preempted"}
    (workplace / "wait").unlink()
    assert drive_here(sweep) == 0
    completed_once(workplace, jobs, twice=stopped)
    assert all(starts(workplace)[name][1]["step"] > 0 for name in stopped)

    whole, same = make_sweep(workplace, POINTS[:1], name="whole")
    assert drive_here(whole) == 0
    first = jobs[0]
    assert results(same)[same[0].id] == results([first])[first.id]


def test_two_drivers_share_a_sweep(workplace: Path) -> None:
    sweep, jobs = make_sweep(workplace, [{"seed": seed} for seed in range(6)])
    drivers = [start_driver(sweep), start_driver(sweep)]
    for driver in drivers:
        driver.join(120)
        assert driver.exitcode == 0
    completed_once(workplace, jobs, twice=set())


def test_a_second_interrupt_kills(workplace: Path) -> None:
    points: list[dict[str, Any]] = [{"callbacks.mishap.how": "hang"}]
    sweep, jobs = make_sweep(workplace, points)
    driver = start_driver(sweep)
    until(lambda: (workplace / "hangs").exists())
    assert driver.pid is not None
    os.kill(driver.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(driver.pid, signal.SIGINT)  # the same press: from the terminal, and handed on
    time.sleep(SAME_PRESS_SECONDS + 1)
    assert driver.exitcode is None
    began = time.monotonic()
    os.kill(driver.pid, signal.SIGINT)
    driver.join(60)
    assert driver.exitcode == 130
    assert time.monotonic() - began < SECONDS_TO_STOP - 10
    assert not trainers(workplace)
    assert jobs[0].state == "interrupted"


def test_the_commands_know_a_sweep(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points: list[dict[str, Any]] = [{"seed": 1}, {"callbacks.mishap.how": "fail"}]
    sweep, jobs = make_sweep(workplace, points)
    assert status(sweep.path) == 0
    assert "2 jobs: 2 queued" in capsys.readouterr().out
    (jobs[0].path / "logs").rmdir()  # which it makes again
    (jobs[0].path / "overrides.yaml").unlink()  # which it does not need
    assert resume(sweep.path) == 1
    said = capsys.readouterr().out
    assert "nothing good comes of this" in said
    assert os.path.relpath(jobs[1].path / "logs") in said
    assert status(sweep.path) == 0
    shown = capsys.readouterr().out
    assert "1 completed, 1 failed" in shown
    assert f"{jobs[0].read_results()['val/loss']:.4g}" in shown
    assert status(jobs[0].path) == 0
    assert "12/12" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="resumed as it is"):
        resume(sweep.path, ["trainer.max_steps=20"])
    with pytest.raises(ConfigError, match="neither"):
        status(workplace)
    assert [row["state"] for row in sweep.read_jobs()] == ["completed", "failed"]
