"""Our side: runs as `truesweep train` makes them, in this process or as ranks."""

import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from torch import Tensor

from truesweep.commands.train import create_run
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import plan
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.runs.run import Run

ALWAYS = ["trainer.accelerator=cpu", "trainer.threads=1", "logger=none", "callbacks.progress=null"]
ALWAYS += ["allowed_packages=[benchmarks]"]


def create(*overrides: str) -> Run:
    """A planned run's directory."""
    planned = plan([*overrides, *ALWAYS])
    return create_run(planned, Path("outputs", planned.name, planned.id))


def run(*overrides: str) -> Run:
    """A finished run."""
    made = create(*overrides)
    assert launch(made) == 0, made.status
    return made


def quietly(*overrides: str) -> Run:
    """A finished run that prints nothing."""
    with Path("ours.log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
        return run(*overrides)


def results(made: Run) -> dict[str, Any]:
    """The final figures of a run."""
    loaded: dict[str, Any] = json.loads(made.results.read_text(encoding="utf-8"))
    return loaded


def last_weights(made: Run) -> dict[str, Tensor]:
    """The weights of `last.ckpt`, by their names in the transformer."""
    state = CheckpointFiles().load_checkpoint(made.checkpoints / "last.ckpt")["state_dict"]
    return {name.removeprefix("model."): weight for name, weight in state.items()}
