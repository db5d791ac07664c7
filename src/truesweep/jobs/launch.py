"""Start a job from its directory: in this process, or as ranks watched by torchrun's agent."""

import traceback

from rich.text import Text

from truesweep.callbacks import Pruned, Stopped, stoppable
from truesweep.errors import in_short
from truesweep.jobs.nodes import Node, this_node
from truesweep.jobs.parts import make
from truesweep.jobs.rank import run_rank
from truesweep.jobs.ranks import RankFailed, run_ranks
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
        The exit code: 0 done or pruned, 1 failed, 130 interrupted, 143 preempted.

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
            run.end(state, exit_code, error)
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
        return "pruned", pruned.exit_code, None
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
    with run.log(rank).open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return in_short(error)


def _tell(run: Run, error: str) -> None:
    out = console(stderr=True)
    out.print(Text.assemble(("The run failed: ", "bold red"), error))
    out.print(f"Its log: {run.path / 'logs'}")
