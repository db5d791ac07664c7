"""`truesweep evaluate`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Trainer
from rich.text import Text
from transformers import PreTrainedModel

from truesweep import dotted
from truesweep.analysis.uncertainty import standard_errors
from truesweep.commands.output import show_figures
from truesweep.config.compose import compose
from truesweep.config.overrides import as_text, is_override, named
from truesweep.config.precedence import update
from truesweep.config.targets import TARGET, resolve
from truesweep.config.types import signature
from truesweep.data import Files, Source, Splits
from truesweep.data.left_out import left_out
from truesweep.data.prepare import Prepared, prepare
from truesweep.data.splitting import complete
from truesweep.errors import ConfigError
from truesweep.figures import Declared
from truesweep.jobs.load import Which, load_run
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import (
    build_model,
    build_task,
    choose_precision,
    data_module,
    make,
    make_model,
    prepare_data,
    pretrained_tokenizer,
    sample_kind,
    task_class,
    with_defaults,
)
from truesweep.jobs.plan import check_composed, checked
from truesweep.jobs.reference import attach_reference
from truesweep.jobs.threads import sharing_cores
from truesweep.jobs.trainer import TrainerSettings
from truesweep.models import Pretrained
from truesweep.models.batching import keep_documents_apart
from truesweep.models.folders import is_model
from truesweep.models.pretrained import Drawn
from truesweep.record.files import dump_json
from truesweep.runs.evaluations import Evaluated
from truesweep.runs.run import Run
from truesweep.secrets import redact_overrides
from truesweep.tasks import Task
from truesweep.terminal import console, warn

SPLITS = ("train", "val", "test")
LONGEST_WINDOW = 2048
"""Tokens of a window of packed text that a loaded model is scored in, if it reads as many."""


def evaluate(
    arguments: Sequence[str],
    split: str,
    checkpoint: str,
    config_dirs: Sequence[Path],
    as_json: bool = False,
) -> int:
    """Score a run or a pretrained model, print the figures, and keep them."""
    _one_of("--split", split, SPLITS)
    _one_of("--checkpoint", checkpoint, ("best", "last"))
    what, overrides = scored(arguments)
    if isinstance(what, Run):
        figures, declared = _score_run(what, *checkpoint_of(overrides, checkpoint), split)
    else:
        asked = [*(overrides_of(what) if what else ()), *overrides]
        figures, declared = _score_pretrained(asked, split, config_dirs)
    if as_json:
        print(dump_json(figures, indent=2))
        return 0
    show_figures(figures, split, declared)
    if isinstance(what, Run):
        _show_count(what)
    return 0


def scored(arguments: Sequence[str]) -> tuple[Run | Path | None, list[str]]:
    """What arguments ask to be scored, and the overrides behind it.

    Returns:
        A run, or the folder or the file of a model that is no run's, or None: what the overrides
        describe.

    Raises:
        ConfigError: It is a directory of neither.
    """
    if not arguments or is_override(arguments[0]):
        return None, [*arguments]
    named, overrides = Path(arguments[0]), [*arguments[1:]]
    if not (named / "config.yaml").is_file() and is_model(named):
        return named, overrides
    return Run.open(named), overrides


def overrides_of(model: Path) -> list[str]:
    """A model with its own tokenizer, as overrides name them."""
    named = as_text(str(model))
    groups = ("model", "tokenizer")
    return [o for group in groups for o in (f"{group}=pretrained", f"{group}.name_or_path={named}")]


def _show_count(run: Run) -> None:
    """How often a run's own test split was looked at, if it just was."""
    looked = run.test_scorings
    if len(looked) > 1 and run.evaluations[-1] in looked:
        note = (
            f"The test split of this run has been scored {len(looked)} times. A test set that "
            "choices are made by is a validation set."
        )
        console().print(Text(note, "dim"))


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option} {value}: expected one of {', '.join(known)}")


def checkpoint_of(arguments: Sequence[str], otherwise: str) -> tuple[list[str], Which]:
    """The overrides, and the checkpoint where one of them names it, as `checkpoint=last`."""
    key = "checkpoint="
    _one_of("--checkpoint", otherwise, ("best", "last"))
    found = [argument.removeprefix(key) for argument in arguments if argument.startswith(key)]
    for name in found:
        _one_of("checkpoint", name, ("best", "last"))
    which = cast(Which, (found or [otherwise])[-1])
    return [a for a in arguments if not a.startswith(key)], which


def _score_run(
    run: Run, overrides: Sequence[str], checkpoint: Which, split: str
) -> tuple[dict[str, Any], Declared]:
    own, config = _data_of(run.read_config(), overrides)
    choose_precision(config)
    task_type = task_class(config)
    if not run.started_in.samefile(Path()):
        config["data"] |= {split: _typed_here(named) for split, named in _files(overrides).items()}
    os.chdir(run.started_in)  # to which paths in its configuration are relative
    loaded = load_run(run, task_type.head, checkpoint)
    # The run's own tokenizer and classes, whatever data it is scored on.
    config["tokenizer"] = pretrained_tokenizer(run.model)
    source: Source = make(config, "data")
    kind, tokenizer = sample_kind(config), make(config, "tokenizer")
    splits = None
    if own is not None:
        splits = _beside(kind.load(make(own, "data")), kind.load(source), _files(overrides))
    prepared = prepare(source, tokenizer, kind, labels=loaded.labels, splits=splits)
    if source.packing == "documents":  # which the run need not have been trained on
        keep_documents_apart(loaded.model, source.max_length)
    task = build_task(config, loaded.model, prepared)
    if task_type.needs_reference(config["task"], loaded.model):
        length = run.read_config()["data"]["max_length"]
        initial, _ = make_model(config, prepared.tokenizer, loaded.labels, length)
        _attach(config, prepared, source, initial)
    figures = score(config, task, prepared, source, split)
    run.record_evaluation(
        {
            "split": split,
            "fingerprint": prepared.fingerprint_of(split),
            "checkpoint": checkpoint,
            "overrides": redact_overrides(overrides),
        },
        figures,
    )
    return figures, task.declared


def _files(overrides: Sequence[str]) -> dict[str, Any]:
    """The files that overrides name, by their splits."""
    given = named(overrides)
    return {split: given[f"data.{split}"] for split in SPLITS if f"data.{split}" in given}


def _typed_here(files: Any) -> Any:
    """Paths as they are called from anywhere, since those of a run begin where it was started."""
    if isinstance(files, list):
        return [_typed_here(file) for file in files]
    return str(Path.cwd() / Path(files).expanduser()) if isinstance(files, str) else files


def _data_of(
    frozen: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A run's configuration with what is to be changed of it.

    Returns:
        Where a file is named for a run whose data are no files: its configuration with its own
        data; otherwise None. And the one that is evaluated, whose data that file is.
    """
    files = _files(overrides)
    of_data = [o for o in overrides if o.startswith("data.")]
    known = signature(resolve(frozen["data"][TARGET], frozen["allowed_packages"])).parameters
    # Training data are not freed of a file that is given now.
    kept = ["data.decontaminate=off"] if files and "decontaminate" in known else []
    if not files or files.keys() <= known.keys():
        return None, with_defaults(update(frozen, [*overrides, *kept]))
    rest = update(frozen, [o for o in overrides if o not in of_data])
    shared = {k: v for k, v in frozen["data"].items() if k in signature(Files).parameters}
    only = dict.fromkeys(SPLITS, next(iter(files.values())))
    node = {TARGET: f"{Files.__module__}.{Files.__name__}", **only, **shared}
    config = update({**rest, "data": node}, [*of_data, *kept])
    return rest, with_defaults(config)


def _beside(own: Splits, other: Splits, given: Mapping[str, Any]) -> Splits:
    """The splits that are given, beside those of the run that are not."""
    parts = {split: getattr(other if split in given else own, split) for split in SPLITS}
    origin = {k: v for k, v in own.origin.items() if k not in ("fingerprints", "notes")}
    files = {split: other.origin["files"][split] for split in given}
    notes = [*own.origin.get("notes", ()), *other.origin.get("notes", ())]
    return complete(own.kind, parts, {**origin, "files": files}, notes)


def _score_pretrained(
    overrides: Sequence[str], split: str, config_dirs: Sequence[Path]
) -> tuple[dict[str, Any], Declared]:
    typed, given = overrides, {o.partition("=")[0]: o.partition("=")[2] for o in overrides}
    if f"data.{split}" in given and "data.train" not in given:
        # Nothing is trained: the one split that is scored stands for the others.
        others = (name for name in SPLITS if f"data.{name}" not in given)
        overrides = [*overrides, *(f"data.{name}={given[f'data.{split}']}" for name in others)]
    overrides = [*overrides, "data.batch_size=1", "data.decontaminate=off", "logger=none"]
    config = checked([*overrides, *_own_length(overrides, config_dirs)], config_dirs)
    require_trained(config)
    source, prepared = prepare_data(config, _own_classes(config))
    notes: list[str] = []
    model = build_model(config, prepared, source, notes)
    refuse_drawn(notes)
    task = build_task(config, model, prepared)
    if task.needs_reference(config["task"], model):
        _attach(config, prepared, source, model)
    warn(notes, stderr=True)
    figures = score(config, task, prepared, source, split)
    of_split = {"split": split, "fingerprint": prepared.fingerprint_of(split)}
    home_of(config).record({**of_split, "overrides": redact_overrides(typed)}, figures)
    return figures, task.declared


def home_of(config: dict[str, Any]) -> Evaluated:
    """Where the evaluations of a model that is no run's are kept."""
    return Evaluated.of({**config["model"], "adapter": config["adapter"]})


def _attach(
    config: dict[str, Any], prepared: Prepared, source: Source, initial: PreTrainedModel
) -> None:
    data = data_module(config, prepared, source, initial, training=False)
    attach_reference(data, initial, make(config, "trainer"))


def require_trained(config: dict[str, Any]) -> None:
    """Refuse a configuration whose model is a new one.

    Raises:
        ConfigError: It is.
    """
    if not isinstance(make(config, "model"), Pretrained):
        raise ConfigError(
            "what is not trained cannot be scored: name a run, a folder with a model, or "
            "model=pretrained model.name_or_path=…"
        )


def refuse_drawn(notes: Sequence[str]) -> None:
    """Refuse to score weights that were drawn, as the notes of loading them tell.

    Raises:
        ConfigError: Some were.
    """
    if drawn := [note for note in notes if isinstance(note, Drawn)]:
        raise ConfigError(f"what is not trained cannot be scored: {drawn[0]}")


def _own_classes(config: dict[str, Any]) -> list[str] | None:
    """The classes that a loaded classifier was trained for."""
    model = make(config, "model")
    is_classifier = task_class(config).head == "classifier"
    return model.classes() if is_classifier and isinstance(model, Pretrained) else None


def _own_length(overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """`data.max_length` as long as the model reads, unless something says otherwise.

    A window of packed text is no longer than `LONGEST_WINDOW`: attention takes memory and time for
    the square of it.
    """
    composed = compose(overrides, config_dirs)
    if dotted.get(composed.config, "data.max_length") is not None:
        return []
    config = check_composed(composed)
    model = make(config, "model")
    longest = model.context() if isinstance(model, Pretrained) else None
    if longest is None:
        return []
    packed = config["data"]["packing"] in sample_kind(config).packs
    return [f"data.max_length={min(longest, LONGEST_WINDOW) if packed else longest}"]


def score(
    config: dict[str, Any], task: Task, prepared: Prepared, source: Source, split: str
) -> dict[str, Any]:
    """The figures of one split, and their baselines; on one device."""
    settings: TrainerSettings = make(config, "trainer")
    task.test_split = split
    warn((*prepared.notes, *task.warnings(prepared.answers(split))), stderr=True)
    data = data_module(config, prepared, source, task.model, training=False)
    with quiet():
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=cast(Any, settings.precision),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with sharing_cores():
            trainer.test(task, dataloaders=data.evaluation_loader(split), verbose=False)
    return {
        **task.evaluations[split],
        **standard_errors(task.sample_scores[split], split, task.declared.values()),
        **task.baselines(prepared, split),
        **task.signatures(split),
        **left_out(prepared, split),
    }
