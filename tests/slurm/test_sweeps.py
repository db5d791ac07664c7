"""Sweeps on a real Slurm of two nodes."""

from pathlib import Path

import pytest

from tests.sweeps.tiny import make_sweep
from truesweep.sweeps.driver import drive
from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings
from truesweep.sweeps.source import Listed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

SETTINGS = SlurmSettings(cpus_per_task=1, timeout_min=10, poll_seconds=0.3)


def test_jobs_of_one_node_share_the_cluster(workplace: Path) -> None:
    sweep, jobs = make_sweep(workplace, [{"seed": 1}, {"seed": 2}])
    assert drive(sweep, Listed(jobs), SlurmExecutor(SETTINGS), sweep.settings) == 0
    assert [job.state for job in jobs] == ["completed"] * 2
