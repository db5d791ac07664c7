"""Sweeps on a real Slurm of two nodes."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.commands.conftest import SMALL, write_data
from tests.slurm.cluster import Cluster
from tests.sweeps.on_cluster import (
    assert_paused_jobs_are_taken_up,
    assert_steps_are_shared,
    curve,
    trained,
)
from tests.sweeps.test_pool import results, starts
from tests.sweeps.tiny import FIXED, make_sweep, until
from truesweep.commands.duel import Terms, duel
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.jobs.forks import warm_up
from truesweep.jobs.plan import plan
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.local import PRELOADED
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings
from truesweep.sweeps.slurm.executor import cancel, last_words, queue

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

SETTINGS = SlurmSettings(cpus_per_task=1, timeout_min=10, poll_seconds=0.3)
ON_ONE_NODE = SlurmSettings(
    timeout_min=10,
    poll_seconds=0.3,
    nodelist="alpha",
    gres="seat:1",
    additional_parameters={"exclusive": True, "comment": "billing 7"},
)
SLOW = {"callbacks.mishap.slow": 0.3}


def forked(settings: SlurmSettings) -> SlurmSettings:
    """What jobs ask for; their processes import nothing anew, but for one test's."""
    return replace(settings, python=processes.python())


def on_slurm() -> list[str]:
    settings = ["cpus_per_task=1", "poll_seconds=0.3", f"python='{processes.python()}'"]
    return ["hydra/launcher=slurm", *(f"hydra.launcher.{setting}" for setting in settings)]


def slurm_id(job: Run) -> str:
    """The allocation that a job was given."""
    return str(json.loads((job.path / "slurm.json").read_text())["id"])


def node_of(job: Run) -> str:
    """Where Slurm runs a job, or ran it last."""
    return last_words(slurm_id(job))["BatchHost"]


def test_a_duel_is_fought_there(workplace: Path) -> None:
    asked = " ".join([*write_data(workplace)["lm"], *SMALL])
    terms = Terms(None, 0.05, 0.0, 2, "fight", dry_run=False, json=False)
    assert duel([asked, f"{asked} optimizer.lr=1", *on_slurm()], [], terms) == 0
    fight = SweepDirectory.called("fight")
    assert fight.launcher["_target_"].endswith("SlurmLauncher")
    arrays = {slurm_id(job).split("_")[0] for job in fight.jobs()}
    assert len(fight.jobs()) == 4
    assert len(arrays) == 1
    assert {job.state for job in fight.jobs()} == {"completed"}


def test_jobs_of_one_node_and_of_two_run_beside_each_other(workplace: Path) -> None:
    two: Mapping[str, Any] = {"trainer.num_nodes": 2, "trainer.devices": 1}
    shared = {**two, "trainer.strategy": "fsdp"}  # the weights, over both nodes
    jobs = [{"seed": 1}, {"seed": 2}, {"seed": 1, **two}, {"seed": 1, **shared}]
    sweep, _ = make_sweep(workplace, jobs)
    one, other, both, sharded = sweep.jobs()
    assert both.nodes == sharded.nodes == 2
    assert drive(sweep, Listed(sweep.jobs()), SlurmExecutor(forked(SETTINGS)), sweep.settings) == 0
    array, index = slurm_id(one).split("_")
    assert (index, slurm_id(other)) == ("0", f"{array}_1")
    another = slurm_id(both).split("_")[0]  # these ask for something else
    assert another != array
    assert [slurm_id(job) for job in (both, sharded)] == [f"{another}_0", f"{another}_1"]
    assert [row["rank"] for row in starts(workplace)[one.id]] == [0]
    for job in (both, sharded):
        assert sorted(row["rank"] for row in starts(workplace)[job.id]) == [0, 1]
    found = {
        job: {name: value for name, value in figures.items() if name != "verdict"}
        for job, figures in results([one, other, both, sharded]).items()
    }
    assert found[one.id] == pytest.approx(found[both.id], rel=1e-5)
    assert found[one.id] == pytest.approx(found[sharded.id], rel=1e-5)
    assert found[one.id] != pytest.approx(found[other.id], rel=1e-5)


def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_happened(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two = [SLOW, {**SLOW, "seed": 7}]
    sweep, (broken, beside) = make_sweep(workplace, two, name="broken", retries=1)
    _, (unbroken,) = make_sweep(workplace, [SLOW], name="unbroken")

    preempted = []

    def preempt() -> None:
        until(lambda: trained(broken) and trained(beside), 600)
        preempted.append(slurm_id(broken))
        cancel(preempted, "--signal=TERM")
        cancel([slurm_id(beside)])  # of their array, this one alone; it is not requeued

    meanwhile = threading.Thread(target=preempt)
    meanwhile.start()
    jobs = Listed([broken, beside, unbroken])
    assert drive(sweep, jobs, SlurmExecutor(forked(SETTINGS)), sweep.settings) == 0
    meanwhile.join()
    assert preempted == [slurm_id(broken)]  # Slurm started it again, not the driver
    assert preempted[0].endswith("_0")
    assert "_1 was ended (cancelled" in capfd.readouterr().out
    assert slurm_id(beside).isdigit()  # the driver has tried it again
    assert len(starts(workplace)[beside.id]) == 2
    first, second = starts(workplace)[broken.id]
    assert 0 == first["step"] < second["step"]
    assert curve(broken) == curve(unbroken)
    assert results([broken])[broken.id] == results([unbroken])[unbroken.id]


def test_a_job_goes_on_where_there_is_room_when_its_node_is_lost(
    workplace: Path, slurm: Cluster
) -> None:
    sweep, (broken,) = make_sweep(workplace, [SLOW], name="broken")
    _, (unbroken,) = make_sweep(workplace, [SLOW], name="unbroken")
    lost: list[str] = []

    def lose() -> None:
        until((broken.path / "slurm.json").exists, 600)
        slurm.restart_controller()  # which may not know the job any more
        until(lambda: trained(broken) and broken.status.get("saved_step", 0) > 0, 600)
        lost.append(node_of(broken))
        slurm.lose(lost[0])

    meanwhile = threading.Thread(target=lose)
    meanwhile.start()
    executor = SlurmExecutor(forked(SETTINGS))
    try:
        assert drive(sweep, Listed([broken]), executor, sweep.settings) == 0
        meanwhile.join()
        assert node_of(broken) not in lost
    finally:
        slurm.bring_back(lost[0])
    assert drive(sweep, Listed([unbroken]), executor, sweep.settings) == 0
    first, *_, last = starts(workplace)[broken.id]
    assert 0 == first["step"] < last["step"]
    assert curve(broken) == curve(unbroken)
    assert results([broken])[broken.id] == results([unbroken])[unbroken.id]


def test_jobs_that_come_to_grief_leave_the_others_alone(workplace: Path) -> None:
    bad = [{"callbacks.mishap.how": how} for how in ("fail", "hog")]
    once = {"callbacks.mishap.slow": 0.5}
    sweep, jobs = make_sweep(workplace, [*bad, once, {"seed": 1}], retries=0)
    killed = jobs[2]

    def kill() -> None:
        until(lambda: trained(killed), 600)
        for pid in {row["pid"] for row in starts(workplace)[killed.id]}:
            os.kill(pid, signal.SIGKILL)

    meanwhile = threading.Thread(target=kill)
    meanwhile.start()
    executor = SlurmExecutor(replace(SETTINGS, mem_gb=1.75))  # of what Slurm has started itself
    assert drive(sweep, Listed(jobs), executor, sweep.settings) == 1
    meanwhile.join()
    errors = [str(job.status.get("error")) for job in jobs]
    assert "nothing good" in errors[0]
    assert errors[1].startswith("out of memory: Slurm's job ")
    assert "memory limit" in errors[1]
    assert "SIGKILL" in errors[2]
    assert jobs[3].state == "completed"
    assert [len(starts(workplace)[job.id]) for job in jobs] == [1, 1, 1, 1]  # none is requeued
    assert queue() == {}


def train_elsewhere(overrides: list[str], conf: str) -> None:
    os.environ["SLURM_CONF"] = conf  # the server that forked this may not know it yet
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    sys.exit(train(overrides, [], None, False))


def test_a_run_by_itself_is_found_again_by_a_driver_that_comes_back(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_sweep(workplace, [])
    asked = [*write_data(workplace)["classification"], *SMALL, *FIXED, "optimizer=sgd", "name=lone"]
    asked += ["callbacks.mishap.slow=0.5"]
    run = Run(workplace / "outputs/lone" / plan(asked).id)
    warm_up(PRELOADED)
    driver = get_context("forkserver").Process(
        target=train_elsewhere, args=[[*asked, *on_slurm()], os.environ["SLURM_CONF"]]
    )
    driver.start()
    until(lambda: run.path.exists() and trained(run), 600)
    driver.kill()
    driver.join()
    assert list(queue()) == [slurm_id(run)]
    capfd.readouterr()
    assert resume(run.path) == 0
    said = capfd.readouterr().out
    assert "runs on    Slurm" in said
    assert "val/loss" in said
    assert len(starts(workplace)[run.id]) == 1
    assert (run.state, queue()) == ("completed", {})


DRIVER = """
import sys
from pathlib import Path
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings
from truesweep.sweeps.protocols import Listed

sweep = SweepDirectory(Path(sys.argv[1]))
drive(sweep, Listed(sweep.jobs()), SlurmExecutor(SlurmSettings(**{settings})), sweep.settings)
"""


def test_a_driver_that_was_killed_comes_back_to_its_jobs(workplace: Path) -> None:
    slow = {"callbacks.mishap.slow": 1.0}
    sweep, jobs = make_sweep(workplace, [{**slow, "seed": 1}, {**slow, "seed": 2}])
    settings = forked(ON_ONE_NODE)
    code = DRIVER.format(settings=vars(settings))
    killed = processes.Process(["-c", code, str(sweep.path)])
    until(lambda: any(trained(job) for job in jobs) and len(queue()) == 2, 600)
    killed.kill()
    killed.wait()
    submitted = [slurm_id(job) for job in jobs]
    assert set(queue()) == set(submitted)  # the cluster goes on without it

    back = SlurmExecutor(settings)
    for job in jobs:
        back.start(job, resume=True)
    assert back.wait(0) == []
    assert [slurm_id(job) for job in jobs] == submitted
    back.stop(signal.SIGINT)
    assert queue() == {}
    running, waiting = sorted(jobs, key=lambda job: job.id not in starts(workplace))
    assert running.status["state"] == "preempted"
    assert running.status["exit_code"] == 130
    assert running.status["saved_step"] > 0
    assert waiting.state == "queued"
    assert len(starts(workplace)) == 1


def test_a_search_pauses_jobs_of_two_nodes_and_its_driver_is_killed(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert_paused_jobs_are_taken_up(workplace, on_slurm())
    assert "2 jobs: 1 completed, 1 paused" in capfd.readouterr().out
    assert queue() == {}


def test_jobs_share_steps_and_their_driver_is_killed(workplace: Path) -> None:
    assert_steps_are_shared(workplace, on_slurm())
    assert queue() == {}
