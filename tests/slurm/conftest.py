"""A Slurm for all tests here; they skip where none can be started."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, NotStartable, cluster
from tests.sweeps.test_pool import _clean_path as _clean_path  # a fixture


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Two nodes on this machine, to which the commands of Slurm now talk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            context = cluster(Path(folder))
            running = context.__enter__()
        except NotStartable as reason:
            pytest.skip(f"needs Slurm ({reason})")
        os.environ["SLURM_CONF"] = str(running.conf)
        yield running
        context.__exit__(None, None, None)
        del os.environ["SLURM_CONF"]
