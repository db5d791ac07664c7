"""What every cluster is asked by its tests; each names its own launcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.commands.conftest import start, write_data
from tests.commands.test_sweep import small
from tests.sweeps.test_pool import starts
from tests.sweeps.test_trunks import LENGTHS, WSD, assert_same
from tests.sweeps.tiny import FIXED, make_sweep, until
from truesweep.commands.resume import resume
from truesweep.commands.sweep import sweep
from truesweep.record.rows import read
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory

SHARED = (10, 13, None)
"""The steps at which jobs of three lengths go on from the longest one's state."""


def curve(job: Run) -> list[dict[str, Any]]:
    """Its record, without what a clock says."""
    clock = ("time", "tokens_per_second", "flops_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in read(job.metrics)]


def trained(job: Run) -> bool:
    """Whether it has told of a step, and trains on."""
    return job.state == "running" and job.metrics.exists() and len(curve(job)) > 1


def assert_steps_are_shared(folder: Path, launcher: Sequence[str]) -> None:
    """Three lengths share their steps, and the driver is killed when the first state is kept.

    Args:
        folder: The current folder.
        launcher: Overrides that name the cluster.
    """
    make_sweep(folder, [], name="other")  # for its callback, which notes every start
    slow = "callbacks.mishap.slow=0.1"
    asked = small([*write_data(folder)["lm"], *FIXED], *WSD, LENGTHS, slow)
    driver = start(["-m", *asked, "name=shared", *launcher], folder)
    directory = SweepDirectory(folder / "outputs/sweeps/shared")
    until(lambda: directory.path.exists() and len(directory.jobs()) == len(SHARED), 600)
    jobs = directory.jobs()
    longest = jobs[-1]
    until(lambda: branches.is_kept(longest, 10), 600)
    driver.kill()
    driver.wait()
    assert resume(directory.path) == 0

    begun = starts(folder)
    assert [[row["step"] for row in begun[job.id]] for job in jobs] == [[10], [13], [0]]
    assert not (longest.path / "branches").exists()
    assert sweep([*asked, "name=apart", "sweeps.share=false"], [], False) == 0
    apart = SweepDirectory(folder / "outputs/sweeps/apart").jobs()
    for job, alone, step in zip(jobs, apart, SHARED, strict=True):
        assert_same(job, alone)
        branched = step and {"run": longest.id, "step": step}
        assert job.read_provenance().get("branched") == branched
        assert "branched" not in alone.read_provenance()
