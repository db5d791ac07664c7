"""What runs on the nodes of an allocation: one task a node, of the job whose directory is named."""

import os
import sys
from pathlib import Path

from truesweep.callbacks import Stopped, stoppable
from truesweep.errors import ConfigError
from truesweep.jobs.launch import launch
from truesweep.jobs.nodes import Node
from truesweep.runs.run import Run
from truesweep.sweeps.executor import BUSY
from truesweep.sweeps.forks import serve_forks
from truesweep.sweeps.slurm.executor import linked
from truesweep.sweeps.source import ENDED

PORTS = range(10_000, 30_000)
"""Below those that systems give to outgoing connections."""


def work(directory: str) -> None:
    """Run a job, or go on with it; ends this process with the job's exit code.

    143 makes the batch script requeue the allocation, see `SlurmSettings`.

    Args:
        directory: The job's directory.
    """
    run, node = Run(Path(directory)), this_node()
    if node.first:
        _log_into(run.log(0))
    serve_forks()
    try:
        with stoppable(last=True):
            sys.exit(0 if run.status.get("state") in ENDED else _launch(run, node))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


def _launch(run: Run, node: Node) -> int:
    started_in = Path(run.read_provenance().get("directory", "."))
    if started_in.is_dir():
        os.chdir(started_in)  # what relative paths in the configuration are relative to
    try:
        return launch(run, resume=True, node=node)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BUSY


def main() -> None:
    """Work on the job that the command line names."""
    work(str(linked(Path(sys.argv[1]))))


def _log_into(file: Path) -> None:
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())


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
