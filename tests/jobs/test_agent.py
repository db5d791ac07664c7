"""Signals to the process that watches a node's ranks."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from truesweep.callbacks import Stopped, stoppable
from truesweep.jobs.processes import Agent, Node, _abandon

ALONE = Node()


def rank(folder: Path, seconds: float) -> int:
    """A rank that takes some seconds to save after a signal.

    Args:
        folder: Where it says that it is ready.
        seconds: How long it takes.
    """
    with stoppable(last=True):
        try:
            (folder / os.environ["RANK"]).touch()
            time.sleep(60)
        except Stopped as stopped:
            time.sleep(seconds)
            return stopped.signum
    return 0


def meanwhile(condition: Callable[[], bool], act: Callable[[], None]) -> None:
    """Do something in this process as soon as a condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_ranks_are_told_once_and_waited_for(tmp_path: Path) -> None:
    agent = Agent(rank, (tmp_path, 1.0), ranks=2, node=ALONE, run_id="once")

    def signal_often() -> None:
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    meanwhile(lambda: len(list(tmp_path.iterdir())) == 2, signal_often)
    assert agent.run().return_values == {0: signal.SIGTERM, 1: signal.SIGTERM}
    assert agent.signum == signal.SIGTERM


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # one of another test's, which nobody has waited for
        return ""


def test_a_signal_to_every_process_of_a_job_is_no_failure(tmp_path: Path) -> None:
    agent = Agent(rank, (tmp_path, 1.0), ranks=2, node=ALONE, run_id="all")

    def signal_all() -> None:
        children = psutil.Process().children(recursive=True)
        servers_and_ranks = [each for each in children if "multiprocessing" in command(each)]
        assert len(servers_and_ranks) >= 3
        for process in [*servers_and_ranks, psutil.Process()]:
            process.send_signal(signal.SIGUSR1)

    meanwhile(lambda: len(list(tmp_path.iterdir())) == 2, signal_all)
    result = agent.run()
    assert not result.is_failed()
    assert result.return_values == {0: signal.SIGUSR1, 1: signal.SIGUSR1}


def test_a_signal_is_obeyed_though_what_its_handler_raised_was_lost(tmp_path: Path) -> None:
    agent = Agent(rank, (tmp_path, 0.0), ranks=2, node=ALONE, run_id="lost")

    def lose() -> None:  # such as in code of torch that catches everything
        agent._told.hear(signal.SIGTERM)

    meanwhile(lambda: len(list(tmp_path.iterdir())) == 2, lose)
    assert agent.run().return_values == {0: signal.SIGTERM, 1: signal.SIGTERM}


def test_a_node_that_waits_for_another_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    node = Node(rank=0, count=2, address="localhost", port=port)
    ended = []

    def abandon() -> None:
        for signum in (signal.SIGTERM, signal.SIGUSR1):  # by the cluster and by a parent process
            signal.raise_signal(signum)
        _abandon()
        ended.append(True)

    monkeypatch.setattr("truesweep.jobs.processes._abandon", abandon)
    agent = Agent(rank, (tmp_path, 0.0), ranks=1, node=node, run_id="other")
    began = time.monotonic()
    meanwhile(lambda: time.monotonic() > began + 1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        agent.run()
    assert ended
    assert time.monotonic() - began < 20
