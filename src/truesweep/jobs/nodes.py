"""A node's place among the nodes of a job."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from truesweep.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """One of the nodes that a job runs on; each has its own command and its own ranks.

    Args:
        rank: 0 for the first node, which holds rank 0 and writes what the run leaves behind.
        count: Nodes of the job.
        address: Where the first node can be reached by all of them.
        port: A free port there.
    """

    rank: int = 0
    count: int = 1
    address: str = "localhost"
    port: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the node that claims the run and writes its status."""
        return self.rank == 0


def this_node(count: int, environment: Mapping[str, str] = os.environ) -> Node:
    """This node's place, as torchrun's users give it.

    The same command is typed on every node, in the same folder of a file system that all of them
    see, with `NNODES` and `MASTER_ADDR` (the first node) and `MASTER_PORT` (29500 by default)
    alike, and `NODE_RANK` from 0 on:

        NNODES=2 NODE_RANK=0 MASTER_ADDR=node17 truesweep train trainer.num_nodes=2
        NNODES=2 NODE_RANK=1 MASTER_ADDR=node17 truesweep train trainer.num_nodes=2

    On a cluster of Slurm's or Ray's, `hydra/launcher=slurm` or `ray` does it.

    Args:
        count: Nodes that the job needs; one needs no variables.
        environment: Holds the variables.

    Raises:
        ConfigError: A variable is missing, or contradicts the configuration.
    """
    if count == 1:
        return Node()
    if "NNODES" not in environment:
        raise ConfigError(
            f"trainer.num_nodes={count}, but this command runs on one node. Type it on each of "
            "them, with NNODES, NODE_RANK (0, 1, …) and MASTER_ADDR (the first node) in the "
            "environment; or let a cluster do so with `train hydra/launcher=slurm` or `ray`"
        )
    numbers = {
        name: _number(environment, name, default)
        for name, default in (("NNODES", None), ("NODE_RANK", None), ("MASTER_PORT", "29500"))
    }
    if numbers["NNODES"] != count:
        raise ConfigError(
            f"NNODES={numbers['NNODES']}, but trainer.num_nodes={count}: make them equal"
        )
    if not 0 <= numbers["NODE_RANK"] < count:
        raise ConfigError(f"NODE_RANK={numbers['NODE_RANK']}: {count} nodes count from 0")
    address = environment.get("MASTER_ADDR")
    if not address:
        raise ConfigError("MASTER_ADDR is not set: give the first node's name or address")
    return Node(numbers["NODE_RANK"], count, address, numbers["MASTER_PORT"])


def _number(environment: Mapping[str, str], name: str, default: str | None) -> int:
    value = environment.get(name, default)
    if value is None or not value.isdecimal():
        raise ConfigError(f"{name}={value or ''}: set this environment variable to a whole number")
    return int(value)
