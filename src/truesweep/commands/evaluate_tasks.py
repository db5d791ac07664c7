"""`truesweep evaluate --tasks`: tasks of lm-evaluation-harness."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.commands.evaluate import (
    checkpoint_of,
    home_of,
    overrides_of,
    refuse_drawn,
    require_trained,
    scored,
)
from truesweep.commands.output import show_harness
from truesweep.config.overrides import named
from truesweep.config.precedence import update
from truesweep.figures import by_name
from truesweep.jobs.load import Which, load_folder, load_run
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import make, make_model, task_class, with_defaults
from truesweep.jobs.plan import checked
from truesweep.jobs.trainer import TrainerSettings
from truesweep.metrics.harness import Asked, check_speaks, harness
from truesweep.record.files import dump_json
from truesweep.runs.evaluations import Evaluated
from truesweep.runs.run import Run
from truesweep.secrets import redact_overrides
from truesweep.tasks import Task, task_of
from truesweep.terminal import warn


@dataclass(frozen=True)
class _Model:
    """What is scored, and where that is kept.

    Args:
        model: On the CPU.
        tokenizer: The model's.
        home: The run, or the directory of a model that is no run's.
        accelerator: As `trainer.accelerator` has it.
        batch_size: Samples of a forward pass, if the user says so.
        overrides: What the user typed.
        checkpoint: Which one of a run.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    home: Run | Evaluated
    accelerator: str = "auto"
    batch_size: int | None = None
    overrides: Sequence[str] = ()
    checkpoint: str | None = None


def evaluate_tasks(
    arguments: Sequence[str],
    asked: Asked,
    checkpoint: str,
    config_dirs: Sequence[Path],
    as_json: bool = False,
) -> int:
    """Give tasks to a run's model, or to one that exists; print the figures, and keep them."""
    tasks = harness(asked)  # before a model is loaded, and from here: a run has another folder
    found = _find(arguments, checkpoint, config_dirs)
    model: Any = found.model.to(_device(found.accelerator))  # type: ignore[arg-type]
    figures = tasks.score(model, found.tokenizer, found.batch_size)
    what: dict[str, Any] = {
        "tasks": list(asked.tasks),
        "versions": tasks.versions,
        "limit": asked.limit,
        "num_fewshot": asked.num_fewshot,
        "apply_chat_template": asked.apply_chat_template,
        "checkpoint": found.checkpoint,
        "overrides": redact_overrides(found.overrides),
    }
    keep = found.home.record_evaluation if isinstance(found.home, Run) else found.home.record
    keep({key: value for key, value in what.items() if value is not None}, figures)
    if as_json:
        print(dump_json(figures, indent=2))
    else:
        show_harness(figures, by_name(tasks.figures))
    return 0


def _find(arguments: Sequence[str], checkpoint: str, config_dirs: Sequence[Path]) -> _Model:
    what, overrides = scored(arguments)
    if isinstance(what, Run):
        return _run(what, *checkpoint_of(overrides, checkpoint))
    if what and not overrides:
        return _folder(what)
    return _pretrained([*(overrides_of(what) if what else ()), *overrides], config_dirs)


def _run(run: Run, overrides: Sequence[str], checkpoint: Which) -> _Model:
    config = with_defaults(update(run.read_config(), overrides))
    task = task_class(config)
    check_speaks(task.head)
    os.chdir(run.started_in)  # to which paths in its configuration are relative
    loaded = load_run(run, task.head, checkpoint)
    _end_as(task, loaded.model, loaded.tokenizer)
    settings: TrainerSettings = make(config, "trainer")
    return _Model(
        loaded.model,
        loaded.tokenizer,
        run,
        accelerator=settings.accelerator,
        batch_size=config["data"].get("eval_batch_size"),
        overrides=overrides,
        checkpoint=checkpoint,
    )


def _folder(directory: Path) -> _Model:
    head, loaded = load_folder(directory)
    check_speaks(head)
    _end_as(task_of(head), loaded.model, loaded.tokenizer)
    home = Evaluated.of({"name_or_path": str(directory)})
    return _Model(loaded.model, loaded.tokenizer, home)


def _pretrained(overrides: Sequence[str], config_dirs: Sequence[Path]) -> _Model:
    given = named(overrides)
    own = []
    if not any(key.partition(".")[0] == "tokenizer" for key in given):
        own = ["tokenizer=pretrained", "tokenizer.name_or_path=${model.name_or_path}"]
    config = checked([*overrides, *own, "logger=none"], config_dirs)
    require_trained(config)
    task = task_class(config)
    check_speaks(task.head)
    tokenizer = make(config, "tokenizer").build(())
    notes: list[str] = []
    model, _ = make_model(config, tokenizer, (), config["data"]["max_length"], notes)
    refuse_drawn(notes)
    warn(notes, stderr=True)
    _end_as(task, model, tokenizer)
    settings: TrainerSettings = make(config, "trainer")
    return _Model(
        model.eval(),
        tokenizer,
        home_of(config),
        accelerator=settings.accelerator,
        batch_size=config["data"].get("eval_batch_size"),
        overrides=overrides,
    )


def _end_as(task: type[Task], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a model end its texts where its export does."""
    if ends := task.ends(tokenizer):
        model.generation_config.eos_token_id = ends  # type: ignore[union-attr]


def _device(accelerator: str) -> torch.device:
    with quiet():
        trainer = Trainer(accelerator=accelerator, devices=1, logger=False)
    return trainer.strategy.root_device
