"""Servers that have done the imports, and fork processes that need not do them again."""

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path

from truesweep.callbacks import SIGNALS
from truesweep.compat import fork_server_pid, use_fork_server


def warm_up(modules: Sequence[str]) -> None:
    """Start this process' server, if it does not run.

    Called early, before anything has started threads, this takes no time: the server is a fork of
    this process. Later it is an interpreter of its own, which imports for seconds.

    Signals to the driver's process group are not for the server: the driver decides what happens
    to jobs. It keeps them blocked, and so do its children until they `unblock`.

    Args:
        modules: What the server imports, if this process has not.
    """
    if fork_server_pid() is None and _has_one_thread():
        serve_forks()
    start_server(modules, _FOR_THE_DRIVER)


def start_server(modules: Sequence[str], signals: Collection[signal.Signals]) -> None:
    """Start multiprocessing's server, if none runs; some signals stay blocked in it.

    Args:
        modules: What it imports.
        signals: Those that are not for it. Its children have them blocked, too, until they ask.
    """
    multiprocessing.set_forkserver_preload(list(modules))
    with _blocked(signals):
        resource_tracker.ensure_running()  # which unblocks some
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        forkserver.ensure_running()


def unblock() -> None:
    """Take signals again, in a process that a server has forked."""
    for signum in _FOR_THE_DRIVER:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_DRIVER)


def serve_forks() -> None:
    """Make a fork of this process, which has one thread yet, its server: one without any imports.

    What multiprocessing starts here from now on, such as the ranks of a job, is forked from it. By
    itself, multiprocessing would start another interpreter and import everything again: its servers
    serve the process that started them only. Python 3.14 and later do just that, as their
    servers have a key that cannot be handed over.
    """
    if sys.version_info >= (3, 14):
        return
    alive_read, alive_write = os.pipe()
    address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    with socket.socket(socket.AF_UNIX) as listener, _blocked(_FOR_THE_DRIVER):
        listener.bind(address)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            _serve(listener, alive_read, alive_write)
    os.close(alive_read)
    use_fork_server(pid, address, alive_write)


def _has_one_thread() -> bool:
    """Whether a fork of this process is whole; only Linux tells.

    OpenBLAS, which numpy and scipy bring along, ends its idle threads before a fork by itself, so
    what counts is what is left after one.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return False
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Python 3.12's
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(list(tasks.iterdir())) == 1


def _serve(listener: socket.socket, alive_read: int, alive_write: int) -> None:
    """Serve until the process that this one was forked from has ended."""
    try:
        os.close(alive_write)
        with suppress(SystemExit):
            forkserver.main(listener.detach(), alive_read, preload=())
    finally:
        os._exit(0)


@contextmanager
def _blocked(signals: Collection[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_FOR_THE_DRIVER = (*SIGNALS, signal.SIGHUP)
