"""What every cluster is asked by its tests; each names its own launcher."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import start, truesweep, write_data
from tests.commands.test_pausing import SLICE
from tests.commands.test_sweep import small
from tests.sweeps.test_pool import starts
from tests.sweeps.test_trunks import WSD, assert_same
from tests.sweeps.tiny import FIXED, make_sweep, until
from truesweep.commands.resume import resume
from truesweep.commands.sweep import sweep
from truesweep.record.rows import read
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planning import plan_sweep
from truesweep.sweeps.request import ask
from truesweep.sweeps.start import add_jobs, record

WAYS = "vars.way=[8,4],[14,4],[14,6]"
"""Lengths and intervals of validations."""
KEYS = "max_steps", "val_check_interval"
SHARED = [6], [0], [6, 12, 13]
"""At which steps such jobs start: all that the second one trains, the others do not."""


def curve(job: Run) -> list[dict[str, Any]]:
    """Its record, without what a clock says."""
    clock = ("time", "tokens_per_second", "flops_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in read(job.metrics)]


def trained(job: Run) -> bool:
    """Whether it has told of a step, and trains on."""
    return job.state == "running" and job.metrics.exists() and len(curve(job)) > 1


def assert_steps_are_shared(folder: Path, launcher: Sequence[str]) -> None:
    """Jobs go on from another's states and validate them; the driver is killed at the first one.

    Args:
        folder: The current folder.
        launcher: Overrides that name the cluster.
    """
    make_sweep(folder, [], name="other")  # for its callback, which notes every start
    (folder / "wait").touch()
    ways = [f"trainer.{key}=${{vars.way[{place}]}}" for place, key in enumerate(KEYS)]
    given = small([*write_data(folder)["lm"], *FIXED], *WSD[:2], *ways, WAYS)
    waits = ["callbacks.mishap.how=wait", "callbacks.mishap.at=7"]
    asked = ask([*given, *waits, "name=shared", *launcher])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("truesweep.sweeps.trunks.OWN", "")  # this callback misses nothing
        plan = plan_sweep(asked)
    directory = record(asked, asked.multirun.launcher, plan)
    _, trunk, _ = jobs = add_jobs(directory, plan.jobs, {})
    driver = start([str(directory.path)], folder, "resume")
    assert sweep([*given, "name=apart", "sweeps.share=false"], [], False) == 0
    until(lambda: branches.is_kept(trunk, 6), 600)
    driver.kill()
    driver.wait()
    (folder / "wait").unlink()
    assert resume(directory.path) == 0

    begun = starts(folder)
    assert [[row["step"] for row in begun[job.id]] for job in jobs] == [*SHARED]
    assert not (trunk.path / "branches").exists()
    apart = SweepDirectory(folder / "outputs/sweeps/apart").jobs()
    for job, alone in zip(jobs, apart, strict=True):
        assert_same(job, alone)
        assert "branched" not in alone.read_provenance()
    branched = [job.read_provenance().get("branched") for job in jobs]
    assert branched == [{"run": trunk.id, "step": 6}, None, {"run": trunk.id, "step": 13}]


def assert_paused_jobs_are_taken_up(folder: Path, launcher: Sequence[str]) -> None:
    """A search pauses its jobs, of two nodes each; the driver is killed when one of them goes on.

    Args:
        folder: The current folder.
        launcher: Overrides that name the cluster.
    """
    make_sweep(folder, [], name="other")  # for its callback, which notes every start
    (folder / "wait").touch()
    given = [*write_data(folder)["classification"], *FIXED, "optimizer=sgd"]
    given = small(given, "trainer.max_steps=8", "trainer.val_check_interval=2")
    search = ["name=s", "optimizer.lr=1e-3,1e-1", "trainer.num_nodes=2", "trainer.devices=1"]
    search += ["sweeps.method=search", "sweeps.sampler=grid", "sweeps.jobs=2", "sweeps.parallel=1"]
    search += ["sweeps.pruner=forecast", f"sweeps.pruner_warmup={SLICE}"]
    waits = ["callbacks.mishap.how=wait", f"callbacks.mishap.at={SLICE + 1}"]
    driver = start(["-m", *given, *search, *waits, *launcher], folder)
    # Two ranks that never wait.
    done = truesweep(
        "train", *given, "name=whole", "optimizer.lr=1e-1", "trainer.devices=2", cwd=folder
    )
    assert done.code == 0, done.out + done.err
    until(lambda: f'"step": {SLICE},' in (folder / "starts.jsonl").read_text(), 600)
    driver.kill()
    driver.wait()
    directory = SweepDirectory(folder / "outputs/sweeps/s")
    told = directory.summary.stat().st_mtime_ns

    def let_go_on() -> None:  # when the next driver has taken the job up
        until(lambda: directory.summary.stat().st_mtime_ns > told, 600)
        (folder / "wait").unlink()

    meanwhile = threading.Thread(target=let_go_on)
    meanwhile.start()
    assert resume(directory.path) == 0
    meanwhile.join()

    paused, ended = sorted(directory.jobs(), key=lambda job: job.step)
    assert (paused.state, paused.step, ended.state, ended.step) == ("paused", SLICE, "completed", 8)
    begun = starts(folder)
    for job, steps in (paused, [0]), (ended, [0, SLICE]):  # both nodes left at the same step
        ranks = sorted((row["step"], row["rank"]) for row in begun[job.id])
        assert ranks == [(step, rank) for step in steps for rank in (0, 1)]
    (whole,) = (Run(path.parent) for path in folder.glob("outputs/whole/*/config.yaml"))
    assert curve(ended) == curve(whole)
    assert ended.read_results()["val/loss"] == whole.read_results()["val/loss"]
    assert [row["step"] for row in curve(paused) if "val/loss" in row] == [2, SLICE]
