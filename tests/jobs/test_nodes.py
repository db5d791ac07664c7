"""A node's place among several, and jobs on them without any cluster."""

import pytest

from truesweep.errors import ConfigError
from truesweep.jobs.processes import Node, this_node

GIVEN = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node17"}


def test_one_node_needs_no_variables() -> None:
    assert this_node(1, {"NNODES": "2", "NODE_RANK": "1"}) == Node()
    assert Node().first


def test_a_node_is_told_its_place_as_by_torchrun() -> None:
    assert this_node(2, GIVEN) == Node(1, 2, "node17", 29500)
    assert not this_node(2, GIVEN).first
    assert this_node(2, {**GIVEN, "MASTER_PORT": "1234"}).port == 1234


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"NNODES": None}, "trainer.num_nodes=2, but this command runs on one node"),
        ({"NNODES": "3"}, "NNODES=3, but trainer.num_nodes=2"),
        ({"NODE_RANK": None}, "NODE_RANK=: set this"),
        ({"NODE_RANK": "2"}, "NODE_RANK=2: 2 nodes count from 0"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "ssh"}, "MASTER_PORT=ssh"),
    ],
)
def test_a_place_that_cannot_be_is_an_error(changed: dict[str, str | None], said: str) -> None:
    environment = {key: value for key, value in {**GIVEN, **changed}.items() if value is not None}
    with pytest.raises(ConfigError, match=said):
        this_node(2, environment)
