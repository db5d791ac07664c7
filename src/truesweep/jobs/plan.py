"""What a run will do, found out and checked before anything is spent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from truesweep import text
from truesweep.callbacks import Harness
from truesweep.callbacks.checkpoint import declared_mode
from truesweep.compat import attention
from truesweep.config.checks import name_is_a_folder
from truesweep.config.compose import Composed, compose, recompose
from truesweep.config.targets import TARGET, resolve
from truesweep.config.types import signature
from truesweep.data import Source
from truesweep.data.left_out import describe_left_out, left_out
from truesweep.data.module import DataModule
from truesweep.data.prepare import Prepared
from truesweep.dotted import flatten
from truesweep.errors import ConfigError, nearest
from truesweep.figures import HARNESS, Figure, by_name, keep
from truesweep.jobs.compiling import check_graphs, choose
from truesweep.jobs.loggers import check_loggers
from truesweep.jobs.names import default_name
from truesweep.jobs.parts import (
    build_callbacks,
    build_model,
    build_recipe,
    build_task,
    check_attention,
    check_optimizer,
    complete,
    left_alone,
    make,
    prepare_data,
    sample_kind,
    task_class,
)
from truesweep.jobs.reference import MIXED, WHOLE
from truesweep.jobs.trainer import TrainerSettings
from truesweep.models import (
    Flops,
    Head,
    ParameterCount,
    activations,
    count_parameters,
    flops_per_token,
    recomputes_layers,
)
from truesweep.models.batching import check_noise, mixes_samples
from truesweep.models.fp8 import fitting_layers
from truesweep.optim import OVER_BASE, ROLES
from truesweep.record.frozen import fingerprint
from truesweep.runs.run import Run
from truesweep.tasks.devices import RESERVE, STATES


@dataclass(frozen=True)
class Plan:
    """A run that is known to start.

    Args:
        config: The whole configuration, checked, with every default; secrets as references.
        overrides: What the command line changed, secrets redacted.
        parameters: The model's parameters.
        flops: Training operations for one token, forward and backward.
        total_steps: Optimizer steps.
        steps_per_epoch: Optimizer steps in one pass over the data.
        trainer: How it is carried out.
        prepared: The data, tokenized.
        metrics: The names of what a validation reports, such as `val/loss`.
        tasks: The names of the figures of lm-evaluation-harness, such as `harness/arc_easy/acc`.
        figures: What is declared of all of them.
        groups: What the optimizer has of each group of parameters, in plain values: `role`,
            `parameters`, `lr` at its peak, `weight_decay`, and what else is its own.
        warnings: What the user should know before anything is spent; a sentence each.
        twice: Whether layers are computed twice, and why, where `auto` had to say that.
        for_sweeps: What files say of a launcher or a sweeper, which a single run does not use.
        origins: Where its values come from, by dotted key; the others are defaults.
    """

    config: dict[str, Any]
    overrides: list[str]
    parameters: ParameterCount
    flops: Flops
    total_steps: int
    steps_per_epoch: int
    trainer: TrainerSettings
    prepared: Prepared
    metrics: tuple[str, ...]
    tasks: tuple[str, ...]
    figures: dict[str, Figure]
    groups: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    twice: str = ""
    for_sweeps: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """Of a mixture, what each source's share is, and how often the training goes through it."""
        mix = self.prepared.mix
        return list(mix.told(self.total_steps)) if mix else []

    @property
    def name(self) -> str:
        """The folder of runs that belong together."""
        return str(self.config["name"])

    @property
    def origin(self) -> dict[str, Any]:
        """Where its numbers come from and what they are, for its provenance."""
        origin: dict[str, Any] = {
            "data": self.prepared.origin,
            "figures": keep(self.figures),
            "precision": self.config["trainer"]["precision"],
            "origins": dict(self.origins),
        }
        if code := self.config["model"].get("trust_remote_code"):
            origin["trust_remote_code"] = code
        if self.twice:
            origin["activation_checkpointing"] = self.twice
        return origin | ({"adapter": self._sizes} if self.config.get("adapter") else {})

    @property
    def _sizes(self) -> dict[str, int]:
        return {"parameters": self.parameters.total, "trainable": self.parameters.trainable}

    @property
    def id(self) -> str:
        """Follows from what was asked: the same configuration has the same id."""
        return fingerprint(self.config)[:8]


def plan(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Plan:
    """Compose a configuration and check everything that can be checked without training.

    Raises:
        ConfigError: The configuration is wrong.
        DataError: The data are.
    """
    composed = compose(overrides, config_dirs)
    planned = plan_config(check_composed(composed), composed.overrides)
    origins = composed.told(planned.config)
    return replace(planned, for_sweeps=tuple(composed.for_sweeps), origins=origins)


def checked(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> dict[str, Any]:
    """A composed, checked and named configuration."""
    return check_composed(compose(overrides, config_dirs))


def check_composed(composed: Composed) -> dict[str, Any]:
    """The checked and named configuration of what is composed already."""
    config = complete(composed.config, composed.origins)
    _refuse_sweep(composed)
    if config["name"] is None:
        config["name"] = default_name(composed.choices, composed.overrides)
        if problems := name_is_a_folder(config):  # an experiment may be called anything
            raise ConfigError(problems[0])
    return config


def _refuse_sweep(composed: Composed) -> None:
    """Refuse to train once what a file wants swept.

    Raises:
        ConfigError: A file does.
    """
    space = composed.sweeps.get("space") or {}
    if space or composed.sweeps.get("seeds", 1) != 1:
        where = composed.origins("sweeps.space" if space else "sweeps.seeds")
        what = f"varies {', '.join(flatten(space))}" if space else "has several seeds"
        raise ConfigError(
            f"sweeps: {what} ({where}), and this trains once. "
            "Add -m, or sweeps=null to leave it out"
        )


def plan_again(directory: Path, overrides: Sequence[str]) -> Plan:
    """The plan of a run that is repeated from its `config.yaml`, with some values changed.

    Raises:
        ConfigError: There is no such configuration, or a change does not fit it.
    """
    run = Run.open(directory)
    again = recompose(run.config, run.read_config(), overrides)
    planned = plan_config(complete(again.config), again.overrides)
    return replace(planned, origins=again.told(planned.config))


def plan_config(config: dict[str, Any], overrides: list[str]) -> Plan:
    """Check a configuration against its data, its model, and the compiler of this machine."""
    planned = Planner().plan(config, overrides)
    note = choose(planned.trainer).note
    known = not note or note in planned.warnings
    return planned if known else replace(planned, warnings=(*planned.warnings, note))


class Planner:
    """Plans runs one after the other; what a run shares with the last one is not made again."""

    def __init__(self) -> None:
        self._data_key = ""
        self._data: tuple[Source, Prepared]
        self._loggers: set[str] = set()
        self._models: dict[str, tuple[PreTrainedModel, ParameterCount, Flops, list[str]]] = {}

    def plan(self, config: dict[str, Any], overrides: list[str]) -> Plan:
        """Check a configuration against its data and its model.

        Raises:
            ConfigError: The configuration does not fit together.
            DataError: The data are wrong.
        """
        self._check_loggers(config)
        trainer: TrainerSettings = make(config, "trainer")
        trainer.check()
        # Before there is a model, too: trying flex_attention on a CPU compiles for a minute.
        check_attention(trainer, config["model"].get("attention"))
        source, prepared = self._prepare(config)
        steps_per_epoch = DataModule(
            prepared, source, config["seed"], trainer.overfit_batches
        ).steps_per_epoch
        recipe = build_recipe(config, trainer, steps_per_epoch)
        if prepared.mix is not None:
            prepared.mix.check(recipe.total_steps)
        callbacks = build_callbacks(config, recipe.total_steps)
        of_tasks = [f for one in callbacks if isinstance(one, Harness) for f in one.figures]
        config, twice = self._settled(config, source, prepared, trainer)
        model, parameters, flops, notes = self._model(config, source, prepared)
        check_attention(trainer, attention(model.config))
        check_graphs(trainer, model, source, prepared)
        if trainer.fp8:
            fitting_layers(model)
        task = build_task(config, model, prepared, recipe)
        check_optimizer(config)
        optimizer = task.configure_optimizers()
        uncompiled = choose(trainer, model=model).note if recomputes_layers(model) else ""
        groups = tuple(map(_described_group, optimizer.param_groups))
        metrics = tuple(f"val/{name}" for name in task.reported("val"))
        check_monitors(config, metrics)
        return Plan(
            config=config,
            overrides=overrides,
            parameters=parameters,
            flops=flops,
            total_steps=recipe.total_steps,
            steps_per_epoch=steps_per_epoch,
            trainer=trainer,
            prepared=prepared,
            metrics=metrics,
            tasks=tuple(f"{HARNESS}/{figure.name}" for figure in of_tasks),
            figures={**task.declared, **by_name(of_tasks)},
            groups=groups,
            warnings=(
                *prepared.notes,
                *notes,
                *_left_out(prepared, source),
                *task.warnings(prepared.answers("test")),
                *([uncompiled] if uncompiled else []),
                *_idle_ratios(config, groups),
            ),
            twice=twice,
        )

    def _check_loggers(self, config: dict[str, Any]) -> None:
        key = fingerprint({name: config[name] for name in ("logger", "allowed_packages")})
        if key not in self._loggers:
            check_loggers(config)
            self._loggers.add(key)

    def _prepare(self, config: dict[str, Any]) -> tuple[Source, Prepared]:
        key = data_key(config)
        if key != self._data_key:
            self._data = prepare_data(config)
            self._data_key = key
        return self._data

    def _settled(
        self,
        config: dict[str, Any],
        source: Source,
        prepared: Prepared,
        trainer: TrainerSettings,
    ) -> tuple[dict[str, Any], str]:
        """Have `model.activation_checkpointing=auto` say what it is here, and why."""
        if config["model"].get("activation_checkpointing") != "auto":
            return config, ""
        plain = {**config, "model": {**config["model"], "activation_checkpointing": False}}
        taken, why = computes_twice(self._model(plain, source, prepared)[0], source, trainer)
        if not taken:
            return plain, f"not taken: {why}"
        twice = {**config, "model": {**config["model"], "activation_checkpointing": True}}
        try:
            self._model(twice, source, prepared)
        except ConfigError:
            architecture = self._model(plain, source, prepared)[0].config.model_type
            return plain, f"not taken, as transformers cannot compute {architecture} twice: {why}"
        return twice, f"taken: {why}"

    def _model(
        self, config: dict[str, Any], source: Source, prepared: Prepared
    ) -> tuple[PreTrainedModel, ParameterCount, Flops, list[str]]:
        """The model without memory for its weights, its size, and what to know of it."""
        task, tokenizer = config["task"]["_target_"], config["tokenizer"]
        described = config["model"], config.get("adapter")
        data = source.max_length, source.packing, prepared.fingerprint, prepared.classes
        shared = [*described, task, tokenizer, *data]
        key = fingerprint({"shared": shared})
        if key not in self._models:
            notes: list[str] = []
            with torch.device("meta"):
                model = build_model(config, prepared, source, notes)
            notes += _of_batches(model, task_class(config).head)
            notes += [sentence] if (sentence := left_alone(model)) else []
            flops = flops_per_token(model, source.max_length)
            self._models[key] = model, count_parameters(model), flops, notes
        return self._models[key]


ENOUGH_TOKENS = 2**12
"""Tokens in a forward pass that keep a GPU busy: for more, layers are not computed twice."""


def computes_twice(
    model: PreTrainedModel, source: Source, trainer: TrainerSettings
) -> tuple[bool, str]:
    """Whether layers must be computed twice for a device to hold a training, and an explanation.

    It is estimated: weights, gradients, an optimizer's states as AdamW has them, and what the
    layers keep of as many rows as were asked for, or as keep a GPU busy.

    Args:
        model: With or without memory for its weights.
        source: Sizes of batches.
        trainer: The device.

    Raises:
        ConfigError: The memory of the device is not known here.
    """
    there = trainer.memory()
    if there is None:
        raise ConfigError(
            "model.activation_checkpointing=auto: how much memory the device has is not known on "
            "this machine. Set model.activation_checkpointing=true or false"
        )
    precision, length = str(trainer.precision), source.max_length
    share = -(-source.batch_size // trainer.world_size)
    rows = min(share, source.micro_batch_size or max(1, ENOUGH_TOKENS // length))
    size = WHOLE.get(precision, torch.float32).itemsize
    count, kept = count_parameters(model), activations(model, length, MIXED.get(precision))
    holders = trainer.world_size if trainer.strategy == "fsdp" else 1
    weights = size * (count.total + (1 + STATES) * count.trainable) // holders
    layers = (kept.fixed + rows * kept.sample) * size // 4
    needed, usable = weights + layers, (1 - RESERVE) * there
    found = [text.quantity(x, "B") for x in (layers, weights, there)]
    return needed > usable, (
        f"{text.plural(rows, 'row')} keep {found[0]} in the layers, beside {found[1]} of weights, "
        f"gradients and states, on a device of {found[2]} ({kept.method})"
    )


def _described_group(group: dict[str, Any]) -> dict[str, Any]:
    """A group of an optimizer's in plain values."""
    kept = ("role", "lr", OVER_BASE, "weight_decay", "eps")
    parameters = sum(parameter.numel() for parameter in group["params"])
    return {"parameters": parameters, **{key: group[key] for key in kept if key in group}}


def _idle_ratios(config: dict[str, Any], groups: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Rates that were asked for a role of which nothing is trained."""
    node = config["optimizer"]
    usual = signature(resolve(node[TARGET], config["allowed_packages"])).parameters
    found = {group.get("role") for group in groups}
    for role in ROLES:
        key = f"{role}_lr_ratio"
        if role in found or key not in usual:
            continue
        if (ratio := node.get(key, usual[key].default)) != usual[key].default:
            yield f"optimizer.{key}={ratio} changes nothing: no {role} is trained here"


def _of_batches(model: PreTrainedModel, head: Head) -> list[str]:
    """What to know of how the model reads batches.

    Raises:
        ConfigError: What it learned would depend on how they are split.
    """
    check_noise(model, head)
    if not mixes_samples(model, head, training=True):
        return []
    return [
        f"what {model.config.model_type} makes of a sample changes with padding or with the "
        "samples beside it: each has a forward pass of its own (data.micro_batch_size=1), which "
        "is slow. Most other architectures have none of this"
    ]


def _left_out(prepared: Prepared, source: Source) -> Iterator[str]:
    """What the model will not see of each split."""
    figures: dict[str, float] = {}
    for split, dataset in prepared.datasets.items():
        figures |= {f"{split}/samples": len(dataset), **left_out(prepared, split)}
    return describe_left_out(figures, prepared.datasets, source.max_length)


def check_monitors(config: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Refuse a callback that waits for a metric which no validation reports, or not for the best.

    Raises:
        ConfigError: There is such a callback.
    """
    for name, node in (config["callbacks"] or {}).items():
        monitor = node.get("monitor") if node else None
        if isinstance(monitor, str) and monitor not in metrics:
            key = f"callbacks.{name}.monitor"
            remedy = "It has none: give the task metrics (make_metrics)"
            if metrics:
                guess = (*nearest(monitor, metrics), metrics[0])[0]
                remedy = f"Set {key}={guess}; there are {', '.join(metrics)}"
            raise ConfigError(f"{key}={monitor} is no metric of a validation here. {remedy}.")
        if isinstance(monitor, str) and node.get("mode", "min") is None:
            declared_mode(name, monitor)


def data_key(config: dict[str, Any]) -> str:
    """What configurations share that have the same data, tokenizer and kind of task."""
    nodes = {name: config[name] for name in ("data", "tokenizer", "allowed_packages")}
    task = {"task": config["task"]["_target_"], "kind": sample_kind(config).settings}
    return fingerprint({**nodes, **task})
