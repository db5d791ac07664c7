"""What runs on the nodes of an allocation: one task a node, of the job whose directory is named."""

import os
import sys
from pathlib import Path

import truesweep.libraries  # noqa: F401  # quicker than by what needs them
from truesweep.jobs.processes import Node
from truesweep.sweeps.slurm.executor import linked
from truesweep.sweeps.work import work

PORTS = range(10_000, 30_000)
"""Below those that systems give to outgoing connections."""


def main() -> None:
    """Work on the job that the command line names.

    143 makes the batch script requeue the allocation, see `SlurmSettings`.
    """
    work(str(linked(Path(sys.argv[1]))), this_node())


def this_node() -> Node:
    """This node's place in the allocation; the nodes meet at the first one, where srun is."""
    job = int(os.environ["SLURM_JOB_ID"])
    return Node(
        rank=int(os.environ["SLURM_NODEID"]),
        count=int(os.environ["SLURM_JOB_NUM_NODES"]),
        address=os.environ["SLURM_LAUNCH_NODE_IPADDR"],
        port=PORTS[job % len(PORTS)],
    )


if __name__ == "__main__":
    main()
