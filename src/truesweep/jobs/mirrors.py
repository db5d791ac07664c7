"""What a run shows of itself on W&B: under which name and id, in which group, with which tags."""

import os
from secrets import token_hex
from typing import Any

from truesweep.analysis.verdict import Verdict
from truesweep.callbacks import Pruned, Stopped
from truesweep.errors import in_short
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.parts import make, task_class
from truesweep.record.wandb import WandbLogger
from truesweep.tasks import DivergedError, OutOfMemory

TASKS = {"causal": "lm", "seq2seq": "translation", "classifier": "classification"}


def make_mirror(run: RunDirectory, config: dict[str, Any]) -> Any:
    """The logger that mirrors a run; None where the configuration wants none."""
    if not config["logger"]:
        return None
    return make(
        config,
        "logger",
        directory=run.path,
        run_id=wandb_id(run),
        run_name=config["name"],
        config=config,
        job=run.job,
        job_tags=tags(run, config),
        best={name: figure.mode for name, figure in run.figures.items() if figure.mode},
    )


def wandb_id(run: RunDirectory) -> str:
    """One id for one directory, kept with the run, however often it is killed and resumed.

    What was asked is in it, but not alone: the same configuration trained anew, or by a colleague,
    is another run. W&B's own agent has made a run on the server already, and names it in the
    environment.
    """
    known = run.status.get("wandb_id")
    if known or run.metrics.exists():  # recorded before ids were kept
        return str(known or run.identity[:16])
    given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    new = given or f"{run.identity[:16]}-{token_hex(4)}"
    if os.environ.get("RANK", "0") == "0":
        run.update_status(wandb_id=new)
    return new


def tags(run: RunDirectory, config: dict[str, Any]) -> list[str]:
    """Task, architecture, commit."""
    model = config["model"]
    architecture = model.get("architecture") or str(model.get("name_or_path", "")).rstrip("/")
    git = run.read_provenance().get("git") or {}
    found = [
        TASKS[task_class(config).head],
        str(architecture).rpartition("/")[2],
        str(git.get("commit") or "")[:8],
    ]
    return [tag for tag in found if tag]


def conclude(mirror: Any, error: BaseException) -> None:
    """End the record of a run that did not come to its end."""
    if isinstance(error, Stopped | OutOfMemory):  # ranks out of memory begin again at once
        summary = {"state": "preempted"}
    elif isinstance(error, Pruned):
        summary = error.summary
    else:
        diverged = isinstance(error, DivergedError)
        summary = {"state": "diverged" if diverged else "failed", "error": in_short(error)}
        if isinstance(mirror, WandbLogger):
            mirror.alert("Diverged" if diverged else "Failed", in_short(error), "ERROR")
    mirror.finish(summary, exit_code=getattr(error, "exit_code", 1))


def warn(mirror: Any, verdict: Verdict) -> None:
    """Tell the user of a run that has come to its end and should not be left as it is."""
    if isinstance(mirror, WandbLogger) and verdict.kind in ("overfitting", "diverged"):
        mirror.alert(verdict.kind.capitalize(), verdict.text, "WARN")
