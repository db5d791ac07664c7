"""The ranks of one node, watched by torchrun's agent: when one dies, the others are stopped."""

import logging
import multiprocessing
import os
import signal
import tempfile
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from truesweep.callbacks import Pruned, Stopped
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.orphan import leave_with_parent
from truesweep.jobs.rank import run_rank

SECONDS_TO_SAVE = 25
"""How long ranks may take to save and leave after a signal; clusters give 30 s in all."""


class RankFailed(RuntimeError):
    """A rank ended with an error, which its log holds."""


def run_ranks(run: RunDirectory, ranks: int, resume: bool) -> None:
    """Start the ranks, each from the run's directory alone, and wait for their end.

    Raises:
        RankFailed: A rank died; the others were stopped.
        Stopped: A signal asked for it.
        Pruned: The search that the run belongs to asked for it.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if method == "forkserver":  # the imports are done once, for all ranks
        multiprocessing.set_forkserver_preload([run_rank.__module__])
    with tempfile.TemporaryDirectory() as scratch:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=run.path.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.2,
            start_method=method,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
            signals_to_handle="SIGTERM,SIGINT,SIGUSR1",
            shutdown_timeout=SECONDS_TO_SAVE,
        )
        try:
            outcomes = elastic_launch(config, _rank)(str(run.path), resume)
        except SignalException as caught:
            raise Stopped(caught.sigval) from None
        except ChildFailedError as failed:
            rank, exit_code = _first_cause(failed)
            raise RankFailed(_last_words(run, rank, exit_code)) from None
    for outcome in outcomes.values():  # alike for all ranks
        if isinstance(outcome, Pruned):
            raise outcome
        if outcome:
            raise Stopped(outcome)


def _rank(directory: str, resume: bool) -> int | Pruned:
    """One rank's entry point; returns the signal it stopped for, or 0, or that it was pruned."""
    leave_with_parent()
    run = RunDirectory(Path(directory))
    try:
        with run.join():
            run_rank(directory, resume)
    except Stopped as stopped:
        return stopped.signum
    except Pruned as pruned:
        return pruned
    except BaseException as error:
        with run.log(int(os.environ["RANK"])).open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
            file.write(f"{_MARK}{type(error).__name__}: {error}\n")
        raise
    return 0


_MARK = "rank failed: "


def _first_cause(failed: ChildFailedError) -> tuple[int, int]:
    """The rank that failed first and its exit code; a killed one before those it left alone."""
    killed = {r: f.exitcode for r, f in failed.failures.items() if f.exitcode < 0}
    for rank, exit_code in killed.items():
        return rank, exit_code
    rank, failure = failed.get_first_failure()
    return rank, failure.exitcode


def _last_words(run: RunDirectory, rank: int, exit_code: int) -> str:
    """What a rank that died said last."""
    path = run.log(rank)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in reversed(lines):
        if line.startswith(_MARK):
            return f"rank {rank}: {line.removeprefix(_MARK)} (see {path})"
    how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return f"rank {rank} was ended by {how} (see {path})"
