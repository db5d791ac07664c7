"""A job on a Ray cluster: its placement group, and a process on each of its nodes.

Both classes are actors. A `Job` is detached, so that it outlives the driver; what it made, the
placement group and the actors on the nodes, goes with it, whatever ends it. Ray's workers import
this module, so it needs nothing but Ray.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

Actor = Any
"""A handle of an actor, whose methods Ray makes and mypy does not know."""
Reference = Any
"""Of a result that is still to come."""
LOGS = "ray"
"""The folder in a job's directory of what each node said that is not in the ranks' logs."""
SECONDS_PER_LOOK = 0.5
SECONDS_FOR_OTHERS = 60.0
"""How long a node may go on after another's process has ended; the nodes end together."""
SECONDS_TO_LINGER = 10.0
"""How long the result of a job that has ended, and holds nothing any more, can be asked for."""


@dataclass(frozen=True)
class Start:
    """How a job's processes are started, on every node.

    Args:
        python: The command that starts Python; None: the cluster's own.
        folder: The current folder, where there is one of that name.
        environment: Variables that are set besides those of Ray's workers, among them the GPUs.
    """

    python: str | None
    folder: str
    environment: Mapping[str, str]


class NodeProcess:
    """The process of a job on one node; an actor in one bundle of the job's placement group."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def address(self) -> tuple[str, int]:
        """Where other nodes reach this one, and a port that is free."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return str(get_node_ip_address()), int(probe.getsockname()[1])

    def start(self, how: Start, arguments: Sequence[str], log: str) -> None:
        """Start the process, which saves and leaves when this actor dies.

        Args:
            how: How it is started.
            arguments: For Python.
            log: The file that what it says is added to.
        """
        command = shlex.split(how.python) if how.python else [sys.executable]
        with Path(log).open("ab") as out:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,  # closed by the system when this actor is gone
                stdout=out,
                stderr=out,
                cwd=how.folder if Path(how.folder).is_dir() else None,
                env={**os.environ, **how.environment},
                start_new_session=True,
            )

    def wait(self) -> int:
        """The exit code of the process, when it has ended; nothing of it is left."""
        assert self._process is not None, "a process is waited for after its start"
        code = self._process.wait()
        self._kill_group()
        return code

    def send(self, signum: int) -> None:
        """Send a signal to the process, which hands it on to its ranks; SIGKILL is for all."""
        if self._process is None:
            return
        if signum == signal.SIGKILL:
            self._kill_group()
        else:
            self._process.send_signal(signum)

    def _kill_group(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Job:
    """Runs a job once; drivers come and go, and ask for its result.

    Args:
        directory: The job's directory, which all nodes see.
        bundle: What it asks for on each node.
        nodes: How many nodes.
    """

    def __init__(self, directory: str, bundle: Mapping[str, float], nodes: int) -> None:
        self.directory = directory
        self.bundle = dict(bundle)
        self.nodes = nodes
        self._lock = threading.Lock()
        self._begun = False
        self._done = threading.Event()
        self._signum = 0
        self._processes: list[Actor] = []
        self._result: int | str | None = None

    def run(self, how: Start) -> int | str | None:
        """Run the job, or wait for its end if it runs.

        Args:
            how: How its processes are started.

        Returns:
            The exit code of the first node's process, or why it cannot go on, in words; None: a
            node was lost, or the job was stopped before it began.
        """
        with self._lock:
            first, self._begun = not self._begun, True
        if first:
            try:
                self._result = self._run(how)
            except Exception as error:  # a folder or a Python that a node does not have
                self._result = why(error)
            finally:
                self._done.set()
                threading.Timer(SECONDS_TO_LINGER, _leave).start()
        self._done.wait()
        return self._result

    def stop(self, signum: int) -> None:
        """Send all nodes a signal; a job that waits for room does not begin."""
        self._signum = signum
        for process in self._processes:
            process.send.remote(signum)

    def _run(self, how: Start) -> int | str | None:
        group = placement_group(
            [self.bundle] * self.nodes, strategy="STRICT_SPREAD" if self.nodes > 1 else "PACK"
        )
        try:
            self._processes = [self._place(group, index) for index in range(self.nodes)]
            meeting = self._processes[0].address.remote()  # answered when all bundles have room
            while not ray.wait([meeting], timeout=SECONDS_PER_LOOK)[0]:
                if self._signum:
                    return None
            self._start(how, *ray.get(meeting))
            if self._signum:  # it came before there was a process
                self.stop(self._signum)
            return self._watch()
        finally:
            remove_placement_group(group)  # with the actors in it: the room is free at once

    def _place(self, group: PlacementGroup, index: int) -> Actor:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        further = {k: v for k, v in self.bundle.items() if k not in ("CPU", "GPU", "memory")}
        actor: Any = ray.remote(NodeProcess)
        return actor.options(
            num_cpus=self.bundle.get("CPU", 0),
            num_gpus=self.bundle.get("GPU", 0),
            memory=self.bundle.get("memory", 0),
            resources=further,
            scheduling_strategy=where,
            max_concurrency=8,  # it is sent signals while it is waited for
        ).remote()

    def _start(self, how: Start, address: str, port: int) -> None:
        """Start the processes, which meet at the first node's address."""
        started = []
        for rank, process in enumerate(self._processes):
            place = [self.directory, str(rank), str(self.nodes), address, str(port)]
            arguments = ["-u", "-m", "truesweep.sweeps.work", *place]
            log = f"{self.directory}/{LOGS}/node_{rank}.log"
            started.append(process.start.remote(how, arguments, log))
        ray.get(started)

    def _watch(self) -> int | str | None:
        """Wait for the processes of all nodes, which end together."""
        left: dict[Reference, Actor] = {each.wait.remote(): each for each in self._processes}
        first = next(iter(left))
        codes: dict[Reference, int] = {}
        lost: RayError | None = None
        deadline: float | None = None
        while left:
            ended, _ = ray.wait(list(left), timeout=SECONDS_PER_LOOK)
            for reference in ended:
                del left[reference]
                try:
                    codes[reference] = ray.get(reference)
                except RayError as error:  # its node is gone, or its actor
                    lost = lost or error
                    deadline = time.monotonic()
                else:
                    deadline = deadline or time.monotonic() + SECONDS_FOR_OTHERS
            if deadline is not None and time.monotonic() >= deadline:
                for process in left.values():
                    process.send.remote(int(signal.SIGKILL))
        return why(lost) if lost else codes[first]


def why(error: Exception) -> str | None:
    """Why a job cannot go on, in words; None if it can, as only its place is lost.

    Args:
        error: What was raised in the place of its result.
    """
    if isinstance(error, RayActorError):
        return None
    if isinstance(error, OutOfMemoryError):
        said = str(error).strip().split("\n")[0]
        return f"out of memory: ended by Ray: {said}\n{REMEDY}"
    cause = getattr(error, "cause", error)
    return (
        f"could not be started on a node of the Ray cluster: {type(cause).__name__}: {cause}. All "
        "nodes need the same files as this machine, and hydra.launcher.python, if it is set"
    )


REMEDY = (
    "Ray ends the newest jobs of such a node, whichever has taken the memory. Lower "
    "data.micro_batch_size (it changes no result), or have fewer jobs beside each other: ask for "
    "more with hydra.launcher.mem_gb or hydra.launcher.cpus_per_node"
)


def _leave() -> None:
    """End this actor."""
    ray.kill(ray.get_runtime_context().current_actor)
