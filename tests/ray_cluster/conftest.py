"""A Ray cluster for all tests here; they skip where Ray is not installed."""

import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sweeps.test_pool import _clean_path as _clean_path  # a fixture

OBJECTS = 80 * 2**20
"""Bytes of each node's object store, the least that Ray takes; jobs put nothing there."""
NICENESS = "RAY_worker_niceness"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Two nodes on this machine with two cores each, to which `hydra/launcher=ray` now talks."""
    pytest.importorskip("ray", reason="needs Ray (pip install 'truesweep[ray]')")
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[NICENESS] = "0"  # or jobs would wait for all other tests
    node = {"num_cpus": 2, "object_store_memory": OBJECTS, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    os.environ["RAY_ADDRESS"] = cluster.address
    cluster.add_node(num_cpus=2, object_store_memory=OBJECTS)
    cluster.wait_for_nodes()
    yield cluster
    del os.environ["RAY_ADDRESS"], os.environ[NICENESS]
    ray.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it kills its processes and never waits
        cluster.shutdown()
        del cluster
        gc.collect()
