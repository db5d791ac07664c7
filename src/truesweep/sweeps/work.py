"""A job on one of its nodes: what an executor starts there, in a process of its own."""

import os
import sys
from pathlib import Path

import truesweep.libraries  # noqa: F401  # quicker than by what needs them
from truesweep.callbacks import Stopped, stoppable
from truesweep.errors import ConfigError
from truesweep.jobs.forks import serve_forks
from truesweep.jobs.launch import launch
from truesweep.jobs.logs import log_into
from truesweep.jobs.processes import Node, leave_when_closed
from truesweep.runs.run import Run
from truesweep.sweeps.protocols import BUSY, ENDED


def work(directory: str, node: Node, parent: int | None = None) -> None:
    """Run a job, or go on with it; ends this process with the job's exit code.

    Args:
        directory: The job's directory.
        node: This node's place among the job's.
        parent: A pipe whose other end is held by the process that this one must not outlive.
    """
    run = Run(Path(directory))
    if node.first:
        log_into(run.log(0))
    serve_forks()
    if parent is not None:
        leave_when_closed(parent)
    try:
        with stoppable(last=True):
            sys.exit(0 if run.status.get("state") in ENDED else _launch(run, node))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


def _launch(run: Run, node: Node) -> int:
    os.chdir(run.started_in)
    try:
        return launch(run, resume=True, node=node)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BUSY


def main() -> None:
    """Work on the job and in the place that the command line names, while standard input is open.

    The arguments are the job's directory, and a `Node`: its rank, count, address and port.
    """
    directory, rank, count, address, port = sys.argv[1:]
    work(directory, Node(int(rank), int(count), address, int(port)), sys.stdin.fileno())


if __name__ == "__main__":
    main()
