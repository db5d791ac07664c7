"""The processes of a job: its nodes, and the ranks that torchrun's agent starts and watches."""

import logging
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from truesweep.callbacks import SIGNALS, Stopped, told
from truesweep.compat import fork_server_pid
from truesweep.errors import ConfigError
from truesweep.interrupts import interrupt
from truesweep.jobs.forks import start_server


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


SECONDS_TO_SAVE = 25
"""How long ranks may take to save and leave after a signal, or once their parent is gone.

Clusters give 30 s in all.
"""


def leave_with_parent() -> None:
    """When the process that asked for this one dies, even by SIGKILL: save, leave, or be killed.

    A forked server starts this process, so its parent in the system's eyes is another; the
    sentinel is a pipe that only the asking process holds open.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    leave_when_closed(parent.sentinel)


def leave_when_closed(pipe: int) -> None:
    """When the other end of a pipe is closed, as by its holder's death: save, leave, or be killed.

    Args:
        pipe: The file descriptor of this end, to which nothing is written.
    """
    threading.Thread(target=_leave, args=[pipe], daemon=True).start()


def _leave(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # training then saves, and everything else ends
    time.sleep(SECONDS_TO_SAVE)
    os.kill(os.getpid(), signal.SIGKILL)


def stop_all_ranks() -> None:
    """Have this rank's agent stop all ranks of the node, where this one was told alone.

    Not by SIGINT, whose second press would have those that are saving leave at once.
    """
    agent = multiprocessing.parent_process()
    if agent is not None and agent.pid is not None and agent.is_alive():
        os.kill(agent.pid, signal.SIGTERM)


SECONDS_TO_VANISH = 5
"""How long it may take after that until killed ranks are gone."""
SECONDS_TO_MEET = 600
"""How long nodes wait for each other at the start."""
SECONDS_TO_PART = 3600
"""How long nodes whose ranks are done wait for the others; rank 0 still scores and uploads."""


class Agent:
    """Starts a function as this node's ranks, and waits for all of them.

    Args:
        entry: The function; importable, and so are its arguments.
        arguments: What each rank is called with.
        ranks: How many.
        node: This node among the job's.
        run_id: The same on all nodes, and no other job's.
    """

    def __init__(
        self,
        entry: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        ranks: int,
        node: Node,
        run_id: str,
    ) -> None:
        self._told = told()
        self._obeyed = False
        self._deadline = math.inf
        self._agent: LocalElasticAgent | None = None
        self._meeting = _meeting(node, run_id)
        self._spec = WorkerSpec(
            role="rank",
            local_world_size=ranks,
            entrypoint=entry,
            args=arguments,
            rdzv_handler=self._meeting,
            max_restarts=0,
            monitor_interval=0.2,
        )

    @property
    def signum(self) -> int:
        """The first signal that came, or 0."""
        return self._told.signum

    def run(self) -> RunResult:
        """Run to the end; what the ranks return, or how they failed.

        After a signal, `signum` is the first one, and the ranks have had 25 s to leave.

        Raises:
            Stopped: A signal came before the ranks were started, or while other nodes are waited
                for in vain.
        """
        _hush()
        with tempfile.TemporaryDirectory() as scratch, self._passing_signals_on():
            self._agent = LocalElasticAgent(
                self._spec,
                DefaultLogsSpecs(log_dir=scratch),
                start_method=_start_method(),
                exit_barrier_timeout=SECONDS_TO_PART,
                shutdown_timeout=SECONDS_TO_SAVE,
            )
            try:
                return self._watch(self._agent)
            except Stopped:
                _abandon()
                raise
            finally:
                self._meeting.shutdown()

    def _watch(self, agent: LocalElasticAgent) -> RunResult:
        """Run torchrun's agent in a thread, as it waits for other nodes without a look at signals.

        Nor does it then act on them itself: it would leave without the ranks' results.
        """
        done: Future[RunResult] = Future()
        thread = threading.Thread(target=_settle, args=[done, agent.run], daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(min(1.0, max(0.1, self._seconds_left())))
            if self.signum and not self._obeyed:  # what the handler raised was lost on its way
                self._obey(self.signum)
            if self._seconds_left() < 0:
                self._send(signal.SIGKILL)
            if self._seconds_left() < -SECONDS_TO_VANISH:
                raise Stopped(self.signum)
        return done.result()

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Keep going on signals: ranks that leave by themselves are waited for, on all nodes."""
        before = {signum: signal.signal(signum, self._pass_on) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        if self._told.hear(signum):
            self._obey(signum)

    def _obey(self, signum: int) -> None:
        """Hand a signal on to the ranks; without any, leave."""
        self._deadline = min(self._deadline, time.monotonic() + SECONDS_TO_SAVE)
        if not self._pids():
            interrupt(Stopped(signum))
        self._obeyed = True
        self._send(signum)

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _send(self, signum: int) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def _pids(self) -> list[int]:
        """The ranks' processes; empty until all of them are started."""
        workers = self._agent.get_worker_group().workers if self._agent else []
        return [worker.id for worker in workers if isinstance(worker.id, int)]


def _meeting(node: Node, run_id: str) -> RendezvousHandler:
    """Where the nodes of a job find each other; rank 0 is always on the first one."""
    alone = node.count == 1
    where: dict[str, Any] = {"local_addr": "localhost"} if alone else {"rank": node.rank}
    parameters = RendezvousParameters(
        backend="c10d" if alone else "static",
        endpoint="localhost:0" if alone else f"{node.address}:{node.port}",
        run_id=run_id,
        min_nodes=node.count,
        max_nodes=node.count,
        timeout=SECONDS_TO_MEET,
        **where,
    )
    return get_rendezvous_handler(parameters)


def _start_method() -> str:
    """How ranks are started: forked from a server, which does the imports once, for all of them.

    A signal for the whole job, which some clusters send to every process, must not end it, as its
    death would look like that of the ranks. It keeps signals blocked, and ranks take them when
    they are ready, see `stoppable`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    start_server(["truesweep.libraries", "truesweep.jobs.rank"], SIGNALS)
    return "forkserver"


def _abandon() -> None:
    """End what is being started: it would write into a terminal that waits for its end."""
    for process in multiprocessing.active_children():
        process.kill()
    server = fork_server_pid()
    if server is not None:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


def _settle(done: "Future[RunResult]", call: Callable[[], RunResult]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:
        done.set_exception(error)


def _hush() -> None:
    """Only say what went wrong by errors of our own."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
