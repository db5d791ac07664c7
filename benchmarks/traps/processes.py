"""Processes that start at the price of a fork, with the imports done."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.traps.events import Moment, prepare, send

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["truesweep.jobs.launch", "truesweep.commands.resume", "benchmarks.traps.stock"]
LIMIT_SECONDS, GRACE_SECONDS = 180, 40
T = TypeVar("T")


def preload() -> None:
    """Have the imports done once, for all processes and for the ranks of our jobs."""
    CONTEXT.set_forkserver_preload(PRELOADED)


def isolated(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=CONTEXT) as pool:
        return pool.submit(function, *arguments).result()


def exit_code(
    function: Callable[..., int | None],
    *arguments: Any,
    folder: Path | None = None,
    moment: Moment | None = None,
) -> int | None:
    """Call a function in a process that leads a group of its own; None: it had to be ended.

    Args:
        function: Returns the exit code.
        arguments: Of the function.
        folder: Where the run's notes are; with a `moment` of `any time`, the first of them starts
            the clock.
        moment: When the run is struck.
    """
    process = CONTEXT.Process(target=_lead, args=(function, *arguments))
    process.start()
    assert process.pid is not None
    if folder and moment and moment.when == "any time":
        while process.is_alive() and not list(folder.glob("rank*.jsonl")):
            time.sleep(0.005)
        time.sleep(moment.seconds)
        send(process.pid, moment)
    process.join(LIMIT_SECONDS)
    code = process.exitcode
    _wait_for_end(process.pid)
    process.join()
    return code


def _wait_for_end(group: int) -> None:
    """Ranks may outlive the process that started them for as long as saving takes."""
    until = time.monotonic() + GRACE_SECONDS
    while _alive(group) and time.monotonic() < until:
        time.sleep(0.02)
    if _alive(group):
        print(f"process group {group} had to be ended", flush=True)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _alive(group: int) -> bool:
    """Whether a process of the group is left that is more than an entry in the system's table."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def struck(
    function: Callable[..., int | None], *arguments: Any, folder: Path, moment: Moment | None
) -> int | None:
    """The same, with the strike that `Events` is responsible for."""
    if moment:
        prepare(folder, moment)
    code = exit_code(function, *arguments, folder=folder, moment=moment)
    (folder / "moment.json").unlink(missing_ok=True)
    return code


def _lead(function: Callable[..., int | None], *arguments: Any) -> None:
    os.setsid()
    # As in a process of its own; one that was forked from a server would start workers so, too.
    multiprocessing.set_start_method("fork", force=True)
    log = os.open("processes.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    sys.exit(function(*arguments) or 0)
