"""Sweeps on a real Ray cluster of two nodes and more."""

import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import processes
from tests.commands.conftest import SMALL, start, write_data
from tests.ray_cluster.conftest import OBJECTS
from tests.sweeps.on_cluster import (
    assert_paused_jobs_are_taken_up,
    assert_steps_are_shared,
    curve,
    trained,
)
from tests.sweeps.test_pool import results, starts
from tests.sweeps.tiny import FIXED, make_sweep, until
from truesweep.commands.resume import resume
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps.driver import drive
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import LOST, Listed

ray = pytest.importorskip("ray", reason="needs Ray (pip install 'truesweep[ray]')")

from truesweep.sweeps.ray import executor  # noqa: E402
from truesweep.sweeps.ray.executor import RayExecutor  # noqa: E402
from truesweep.sweeps.ray.settings import RaySettings  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

SLOW = {"callbacks.mishap.slow": 0.3}
TWO: Mapping[str, Any] = {"trainer.num_nodes": 2, "trainer.devices": 1}


def forked(**settings: Any) -> RaySettings:
    """What jobs ask for; their processes import nothing anew, but for one test's."""
    return RaySettings(python=processes.python(), **settings)


def actors() -> list[str]:
    """The names of jobs that the cluster knows of."""
    return [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]


def free_cores() -> float:
    return float(ray.available_resources().get("CPU", 0))


def processes_of(job: Run) -> list[psutil.Process]:
    """The processes that were started for a job, and those that they forked."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "truesweep.sweeps.work" in words and str(job.path) in words:
            found.append(process)
    return found


def test_jobs_of_one_node_and_of_two_run_beside_each_other(workplace: Path) -> None:
    sweep, _ = make_sweep(workplace, [{"seed": 1}, {"seed": 2}, {"seed": 1, **TWO}])
    one, other, both = sweep.jobs()
    assert drive(sweep, Listed(sweep.jobs()), RayExecutor(forked()), sweep.settings) == 0
    assert [row["rank"] for row in starts(workplace)[one.id]] == [0]
    assert sorted(row["rank"] for row in starts(workplace)[both.id]) == [0, 1]
    found = {
        job: {name: value for name, value in figures.items() if name != "verdict"}
        for job, figures in results([one, other, both]).items()
    }
    assert found[one.id] == pytest.approx(found[both.id], rel=1e-5)
    assert found[one.id] != pytest.approx(found[other.id], rel=1e-5)
    assert actors() == []
    until(lambda: free_cores() == 4, 30)


def test_a_job_goes_on_where_there_is_room_when_its_node_is_lost(
    workplace: Path,
    ray_cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(executor, "SECONDS_PER_LOOK", 0.5)
    sweep, (broken,) = make_sweep(workplace, [SLOW], name="broken")
    _, (unbroken,) = make_sweep(workplace, [SLOW], name="unbroken")

    def add() -> Any:
        return ray_cluster.add_node(num_cpus=1, object_store_memory=OBJECTS, resources={"spot": 1})

    lost = add()

    def lose() -> None:
        until(lambda: trained(broken) and broken.status.get("saved_step", 0) > 0, 600)
        ray_cluster.remove_node(lost, allow_graceful=False)

    meanwhile = threading.Thread(target=lose)
    meanwhile.start()
    spot = RayExecutor(forked(resources={"spot": 1}))
    ended = []

    def drive_on_spot() -> None:
        ended.append(drive(sweep, Listed([broken, unbroken]), spot, sweep.settings))

    driver = threading.Thread(target=drive_on_spot)
    driver.start()
    meanwhile.join()
    # Either may have begun first, where there is room for one.
    waiting = [job for job in (broken, unbroken) if job.state != "completed"]
    until(lambda: len(caplog.messages) == len(waiting), 600)
    spot.check(trainer_of(unbroken), unbroken.label)  # as of a search's next point
    with pytest.raises(ConfigError, match="0 have that"):
        RayExecutor(spot.settings).check(trainer_of(unbroken), unbroken.label)
    new = add()
    driver.join()
    try:
        assert ended == [0]
    finally:
        ray_cluster.remove_node(new)
    lacking = (
        "needs 1 node with 1 CPU and 1 spot, but of the 2 nodes of the Ray cluster 0 have that"
    )
    said = capsys.readouterr()
    assert "has been marked dead" in said.err
    assert "has been marked dead" not in said.out  # where a script may read JSON
    waits = f"waits for nodes that join: it {lacking}"
    assert sorted(caplog.messages) == sorted(f"{job.label}: {waits}" for job in waiting)
    first, second = starts(workplace)[broken.id]
    assert 0 == first["step"] < second["step"]
    assert curve(broken) == curve(unbroken)
    assert results([broken])[broken.id] == results([unbroken])[unbroken.id]


DRIVER = """
import sys
from pathlib import Path
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.ray.executor import RayExecutor
from truesweep.sweeps.ray.settings import RaySettings
from truesweep.sweeps.protocols import Listed

sweep = SweepDirectory(Path(sys.argv[1]))
settings = RaySettings(cpus_per_node=2, python=sys.argv[2] or None)
drive(sweep, Listed(sweep.jobs()), RayExecutor(settings), sweep.settings)
"""


def start_driver(folder: Path, python: str = "") -> processes.Process:
    return processes.Process(["-c", DRIVER, str(folder), python])


def test_a_driver_that_was_killed_comes_back_to_its_jobs(workplace: Path) -> None:
    slow = {"callbacks.mishap.slow": 1.0}
    sweep, jobs = make_sweep(workplace, [{**slow, "seed": seed} for seed in range(3)])
    killed = start_driver(sweep.path, processes.python())
    back = RayExecutor(forked(cpus_per_node=2))
    back.check(trainer_of(jobs[0]), jobs[0].label)
    until(lambda: sum(map(trained, jobs)) == 2 and len(actors()) == 3, 600)
    killed.kill()
    killed.wait()
    begun = starts(workplace)
    time.sleep(3)  # enough for Ray to end what belongs to a driver
    assert len(actors()) == 3  # the cluster goes on without it
    for job in jobs:
        assert back.takes_up(job)
        back.start(job, resume=True)
    assert back.wait(0) == []
    back.stop(signal.SIGINT)
    assert back.running == []
    assert actors() == []
    assert starts(workplace) == begun
    waiting = [job for job in jobs if job.id not in begun]
    assert [job.state for job in waiting] == ["queued"]
    for job in jobs:
        if job not in waiting:
            assert job.status["state"] == "preempted"
            assert job.status["exit_code"] == 130
            assert job.status["saved_step"] > 0
            assert processes_of(job) == []
    until(lambda: free_cores() == 4, 30)


def test_a_driver_that_is_told_to_stop_has_its_jobs_save(workplace: Path) -> None:
    slow = {"callbacks.mishap.slow": 1.0}
    sweep, (job,) = make_sweep(workplace, [slow])
    driver = start_driver(sweep.path)
    until(lambda: trained(job), 600)
    driver.send_signal(signal.SIGTERM)
    driver.wait(60)
    assert (job.status["state"], job.status["exit_code"]) == ("preempted", 143)
    assert job.status["saved_step"] > 0
    assert actors() == []


def test_jobs_that_come_to_grief_leave_the_others_alone(workplace: Path) -> None:
    bad = [{"callbacks.mishap.how": how} for how in ("fail", "memory", "kill")]
    again = {
        "callbacks.mishap.how": "kill",
        "callbacks.mishap.at": 9,
        "callbacks.mishap.once": True,
    }
    sweep, jobs = make_sweep(workplace, [*bad, again, {"seed": 1}], retries=1)
    assert drive(sweep, Listed(jobs), RayExecutor(forked()), sweep.settings) == 1
    errors = [str(job.status.get("error")) for job in jobs[:3]]
    named = ["nothing good", "out of memory: CUDA", "SIGKILL"]
    assert all(name in error for name, error in zip(named, errors, strict=True))
    assert [job.state for job in jobs[3:]] == ["completed"] * 2
    assert [len(starts(workplace)[job.id]) for job in jobs] == [2, 2, 2, 2, 1]
    assert actors() == []


@pytest.fixture
def small(ray_cluster: Any) -> Iterator[RaySettings]:
    """What asks for a node whose Ray ends jobs when 1 GB more is in use."""
    memory = psutil.virtual_memory()
    limit = 1 - (memory.available - 2**30) / memory.total
    node = ray_cluster.add_node(
        num_cpus=1,
        object_store_memory=OBJECTS,
        resources={"small": 1},
        env_vars={"RAY_memory_usage_threshold": str(limit)},
    )
    yield forked(resources={"small": 0.1})
    ray_cluster.remove_node(node)


HOG = {"callbacks.mishap.how": "hog", "callbacks.mishap.once": True}


def test_a_job_that_ray_ends_for_memory_says_so_and_can_go_on(
    workplace: Path, small: RaySettings
) -> None:
    sweep, (job,) = make_sweep(workplace, [HOG])
    assert drive(sweep, Listed([job]), RayExecutor(small), sweep.settings) == 1
    error = str(job.status["error"])
    assert error.startswith("out of memory: ended by Ray: ")
    assert all(words in error for words in ("low on memory", "hydra.launcher.mem_gb"))
    assert job.state == "failed"
    assert actors() == []
    until(lambda: processes_of(job) == [], 60)
    before = len(starts(workplace)[job.id]) if Path("starts.jsonl").exists() else 0
    assert before <= 1  # it would only end so again; at 0 other programs have taken the memory
    elsewhere = RayExecutor(forked(cpus_per_node=2))
    assert drive(sweep, Listed([job]), elsewhere, sweep.settings) == 0
    begun = [row["step"] for row in starts(workplace)[job.id]]
    assert len(begun) == before + 1
    assert begun[-1] >= 3 * before  # what Ray had ended saved first


def test_what_looks_after_a_job_may_be_ended_for_memory_too(
    workplace: Path, small: RaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "HEAD", "small")  # where the actor is that waits for the job
    sweep, (job,) = make_sweep(workplace, [HOG])
    assert drive(sweep, Listed([job]), RayExecutor(small), sweep.settings) == 1
    assert str(job.status["error"]).startswith("out of memory: ended by Ray: ")
    assert job.state == "failed"
    assert actors() == []


def test_a_process_does_not_outlive_what_looks_after_it(workplace: Path) -> None:
    _, (job,) = make_sweep(workplace, [{"callbacks.mishap.slow": 1.0}])
    executor = RayExecutor(forked())
    executor.check(trainer_of(job), job.label)
    executor.start(job, resume=False)
    until(lambda: trained(job), 600)
    process = min(processes_of(job), key=lambda each: each.create_time())
    parent = process.parent()
    assert parent is not None
    parent.kill()
    assert executor.wait(60) == [(job, LOST)]  # to go on with
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 60)
    assert job.status["state"] == "preempted"
    assert job.status["saved_step"] > 0


def test_what_no_node_can_start_has_failed_in_words(workplace: Path) -> None:
    sweep, (job,) = make_sweep(workplace, [{}])
    settings = RaySettings(python="/nowhere/python")
    assert drive(sweep, Listed([job]), RayExecutor(settings), sweep.settings) == 1
    assert job.state == "failed"
    assert "could not be started on a node" in job.status["error"]
    assert "/nowhere/python" in job.status["error"]
    assert actors() == []


def on_ray(*settings: str) -> list[str]:
    settings = *settings, f"python='{processes.python()}'"
    return ["hydra/launcher=ray", *(f"hydra.launcher.{setting}" for setting in settings)]


def test_a_run_by_itself_is_found_again_by_a_driver_that_comes_back(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_sweep(workplace, [])
    asked = [*write_data(workplace)["classification"], *SMALL, *FIXED, "optimizer=sgd", "name=lone"]
    asked += ["callbacks.mishap.slow=0.5", *on_ray()]
    driver = start(asked, workplace)
    until(lambda: any(workplace.glob("outputs/lone/*/config.yaml")), 600)
    (run,) = (Run(path.parent) for path in workplace.glob("outputs/lone/*/config.yaml"))
    until(lambda: trained(run), 600)
    driver.kill()
    driver.wait()
    capfd.readouterr()
    assert resume(run.path) == 0
    said = capfd.readouterr().out
    assert "runs on    Ray" in said
    assert "val/loss" in said
    assert len(starts(workplace)[run.id]) == 1
    assert (run.state, actors()) == ("completed", [])


def test_a_search_pauses_jobs_of_two_nodes_and_its_driver_is_killed(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert_paused_jobs_are_taken_up(workplace, on_ray())
    assert "2 jobs: 1 completed, 1 paused" in capfd.readouterr().out
    assert actors() == []


def test_jobs_share_steps_and_their_driver_is_killed(workplace: Path) -> None:
    assert_steps_are_shared(workplace, on_ray())
    assert actors() == []


@pytest.mark.parametrize(
    ("settings", "point", "lacking"),
    [
        (RaySettings(cpus_per_node=3), {}, ["1 node with 3 CPU", "of the 2 nodes", "0 have that"]),
        (RaySettings(), {**TWO, "trainer.num_nodes": 3}, ["3 nodes with 1 CPU", "2 have that"]),
        (RaySettings(mem_gb=1e6), {}, ["1e+06 GB of memory"]),
    ],
)
def test_what_no_node_has_is_said_before_anything_is_started(
    workplace: Path, settings: RaySettings, point: Mapping[str, Any], lacking: Sequence[str]
) -> None:
    _, (job,) = make_sweep(workplace, [point])
    with pytest.raises(ConfigError) as error:
        RayExecutor(settings).check(trainer_of(job), job.label)
    assert all(words in str(error.value) for words in lacking)
    assert "hydra.launcher.autoscaling=true" in str(error.value)
    settings.autoscaling = True
    RayExecutor(settings).check(trainer_of(job), job.label)
    assert actors() == []


def test_a_cluster_of_other_versions_says_of_which(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()
    _, (job,) = make_sweep(workplace, [{}])
    theirs = ray.__version__
    monkeypatch.setattr(ray, "__version__", "2.0.0")
    with pytest.raises(ConfigError, match=r"cannot be joined\. Version mismatch: ") as error:
        RayExecutor(RaySettings()).check(trainer_of(job), job.label)
    assert all(f"Ray: {version} Python: " in str(error.value) for version in (theirs, "2.0.0"))
    assert "Install the same Ray and the same Python" in str(error.value)


def test_without_a_cluster_nothing_is_started(workplace: Path) -> None:
    ray.shutdown()
    _, (job,) = make_sweep(workplace, [{}])
    with pytest.raises(ConfigError, match=r"No Ray cluster answers at 127\.0\.0\.1:1: .*ray start"):
        RayExecutor(RaySettings(address="127.0.0.1:1")).check(trainer_of(job), job.label)


def test_a_cluster_that_asks_for_a_token_may_be_sent_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sends none to an address, and says no more than that it could not connect."""

    def refuse(**_: Any) -> None:
        raise ConnectionError("Failed to connect.")

    ray.shutdown()
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray, "init", refuse)
    _, (job,) = make_sweep(workplace, [{}])
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = RaySettings(address=f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConfigError, match=r"Failed to connect.*set RAY_AUTH_MODE=token here"):
            RayExecutor(settings).check(trainer_of(job), job.label)
