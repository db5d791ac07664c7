"""The ranks of one node: when one dies, the others are stopped."""

import os
import signal
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from truesweep.callbacks import Pruned, Stopped, stoppable
from truesweep.errors import shorten
from truesweep.jobs.agent import Agent
from truesweep.jobs.nodes import Node
from truesweep.jobs.orphan import leave_with_parent
from truesweep.jobs.rank import run_rank
from truesweep.runs.run import Run


class RankFailed(RuntimeError):
    """A rank ended with an error, which its log holds."""


def run_ranks(run: Run, ranks: int, resume: bool, node: Node | None = None) -> None:
    """Start the ranks, each from the run's directory alone, and wait for their end.

    Args:
        run: The run's directory.
        ranks: Ranks of this node.
        resume: Continue from a checkpoint.
        node: This node among several; they wait for each other.

    Raises:
        RankFailed: A rank died; the others were stopped.
        Stopped: A signal asked for it.
        Pruned: The search that the run belongs to asked for it.
    """
    agent = Agent(
        _rank,
        (str(run.path), resume),
        ranks=ranks,
        node=node or Node(),
        run_id=f"{run.path.name}-{run.largest_micro_batch}",  # another one after a restart
    )
    result = agent.run()
    if result.is_failed() and agent.signum:
        raise Stopped(agent.signum)
    if result.is_failed():
        rank, exit_code = _first_cause(result.failures)
        raise RankFailed(_last_words(run, rank, exit_code))
    for outcome in result.return_values.values():  # alike for all ranks
        if isinstance(outcome, Pruned):
            raise outcome
        if outcome:
            raise Stopped(outcome)


def _rank(directory: str, resume: bool) -> int | Pruned:
    """One rank's entry point; returns the signal it stopped for, or 0, or that it was pruned."""
    leave_with_parent()
    run = Run(Path(directory))
    try:
        with stoppable(last=True), run.join():
            run_rank(directory, resume)
    except Stopped as stopped:
        return stopped.signum
    except Pruned as pruned:
        return pruned
    except BaseException as error:
        with run.log(int(os.environ["RANK"])).open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
            file.write(f"{_MARK}{shorten(f'{type(error).__name__}: {error}')}\n")
        raise
    return 0


_MARK = "rank failed: "


def _first_cause(failures: dict[int, ProcessFailure]) -> tuple[int, int]:
    """The rank that failed first and its exit code; a killed one before those it left alone."""
    killed = {r: f.exitcode for r, f in failures.items() if f.exitcode < 0}
    for rank, exit_code in killed.items():
        return rank, exit_code
    rank = min(failures, key=lambda r: failures[r].timestamp)
    return rank, failures[rank].exitcode


def _last_words(run: Run, rank: int, exit_code: int) -> str:
    """What a rank that died said last."""
    path = run.log(rank)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in reversed(lines):
        if line.startswith(_MARK):
            return f"rank {rank}: {line.removeprefix(_MARK)} (see {path})"
    how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return f"rank {rank} was ended by {how} (see {path})"
