"""Start a job from its directory: in this process, or as ranks watched by torchrun's agent."""

import traceback

from rich.console import Console

from truesweep.callbacks import Pruned, Stopped
from truesweep.errors import UserError
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.parts import make
from truesweep.jobs.rank import run_rank
from truesweep.jobs.ranks import run_ranks
from truesweep.jobs.trainer import TrainerSettings


def launch(run: RunDirectory, resume: bool = False) -> int:
    """Run a job to its end.

    Args:
        run: The job's directory; nothing but its `config.yaml` says what is done.
        resume: Continue from a checkpoint.

    Returns:
        The exit code: 0 done or pruned, 1 failed, 130 interrupted, 143 preempted.

    Raises:
        ConfigError: Another process works on this run.
    """
    with run.claim():
        return _run(run, resume)


def _run(run: RunDirectory, resume: bool) -> int:
    trainer: TrainerSettings = make(run.read_config(), "trainer")
    run.begin()
    try:
        if trainer.world_size == 1:
            run_rank(str(run.path), resume)
        else:
            run_ranks(run, trainer.local_ranks(), resume)
    except Stopped as stopped:
        run.end("preempted", stopped.exit_code)
        return stopped.exit_code
    except Pruned as pruned:
        run.end("pruned", pruned.exit_code)
        return pruned.exit_code
    except Exception as error:
        return _failed(run, error)
    run.end("completed", 0)
    return 0


def _failed(run: RunDirectory, error: Exception) -> int:
    message = _describe(error)
    with run.log(0).open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    run.end("failed", 1, error=message)
    console = Console(stderr=True)
    console.print(f"[bold red]The run failed:[/] {message}", highlight=False)
    console.print(f"Its log: {run.path / 'logs'}", highlight=False)
    return 1


def _describe(error: Exception) -> str:
    if isinstance(error, UserError | RuntimeError):
        return str(error)
    return f"{type(error).__name__}: {error}"
