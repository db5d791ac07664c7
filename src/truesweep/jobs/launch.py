"""Start a job from its directory: in this process, or as ranks watched by torchrun's agent."""

import os
import signal
import traceback
from contextlib import suppress
from pathlib import Path

from rich.text import Text
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from truesweep.callbacks import Pruned, Stopped, stoppable
from truesweep.errors import in_short, shorten
from truesweep.jobs.parts import make
from truesweep.jobs.processes import Agent, Node, leave_with_parent, stop_all_ranks, this_node
from truesweep.jobs.rank import run_rank
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run, State
from truesweep.terminal import console


def launch(run: Run, resume: bool = False, node: Node | None = None) -> int:
    """Run a job to its end.

    Of several nodes, the first one claims the run and writes its status.

    Args:
        run: The job's directory; nothing but its `config.yaml` says what is done.
        resume: Continue from a checkpoint.
        node: This node's place among the job's; None: as the environment has it.

    Returns:
        The exit code: 0 done, pruned or paused, 1 failed, 130 interrupted, 143 preempted.

    Raises:
        ConfigError: Another process works on this run.
    """
    try:
        with stoppable():  # to the end: a second signal must not come between a run and its status
            return _launch(run, resume, node)
    except Stopped as stopped:  # there was nothing to save yet, or nothing left to do
        return stopped.exit_code


def _launch(run: Run, resume: bool, node: Node | None) -> int:
    trainer: TrainerSettings = make(run.read_config(), "trainer")
    node = node or this_node(trainer.num_nodes)
    if node.first:
        with run.claim():
            if run.status.get("state") in ("completed", "pruned"):
                return 0  # by another process, while this one waited
            state, exit_code, error = _carry_out(run, resume, trainer, node)
            try:
                run.end(state, exit_code, error)
            except OSError as lost:  # of the disk that the run may have failed for
                error, exit_code = error or in_short(lost), exit_code or 1
    else:
        _, exit_code, error = _carry_out(run, resume, trainer, node)
    if error is not None:
        _tell(run, error)
    return exit_code


def _carry_out(
    run: Run, resume: bool, trainer: TrainerSettings, node: Node
) -> tuple[State, int, str | None]:
    """Run this node's ranks; the state they end in, the exit code, and the error."""
    try:
        if node.first:
            run.begin()
        if trainer.world_size == 1:
            run_rank(str(run.path), resume)
        else:
            _run_ranks(run, trainer.local_ranks(), resume, node)
    except Stopped as stopped:
        return "preempted", stopped.exit_code, None
    except Pruned as pruned:
        return pruned.state, pruned.exit_code, None
    except Exception as error:
        return "failed", 1, _record(run, error, node.rank * trainer.local_ranks())
    return "completed", 0, None


def _run_ranks(run: Run, ranks: int, resume: bool, node: Node) -> None:
    """Run the ranks; when one was out of memory, all of them again in smaller micro-batches."""
    while True:
        known = run.largest_micro_batch
        try:
            return run_ranks(run, ranks, resume, node)
        except RankFailed:
            size = run.largest_micro_batch
            if size == known:
                raise
            console(stderr=True).print(f"Out of memory: going on with data.micro_batch_size={size}")
            resume = True


def _record(run: Run, error: Exception, rank: int) -> str:
    """Put an error into the log of a node's first rank; gives it in short."""
    with suppress(OSError), run.log(rank).open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return in_short(error)


def _tell(run: Run, error: str) -> None:
    out = console(stderr=True)
    out.print(Text.assemble(("The run failed: ", "bold red"), error))
    out.print(f"Its log: {run.path / 'logs'}")


# -- several ranks on this node --------------------------------------------------------------------


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
        if isinstance(outcome, Pruned):  # a new one: it would keep this frame, which keeps it
            raise type(outcome)(outcome.step)
        if outcome:
            raise Stopped(outcome)


def _rank(directory: str, resume: bool) -> int | Pruned:
    """One rank's entry point; returns the signal it stopped for, 0, or that a search ended it."""
    leave_with_parent()
    run = Run(Path(directory))
    try:
        with stoppable(last=True), run.join():
            run_rank(directory, resume)
    except Stopped as stopped:
        if not stopped.together:
            stop_all_ranks()
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
