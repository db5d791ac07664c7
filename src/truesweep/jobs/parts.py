"""From a frozen configuration to the objects of a run: data, model, task."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import getattr_static
from pathlib import Path
from typing import Any, get_args

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep import dotted, text
from truesweep.callbacks import EarlyStopping, Harness
from truesweep.config.checks import check_across, check_primary
from truesweep.config.origin import Origins
from truesweep.config.schema import check
from truesweep.config.targets import TARGET, instantiate, resolve
from truesweep.config.types import signature
from truesweep.data import Source
from truesweep.data.kinds import SampleKind
from truesweep.data.module import DataModule
from truesweep.data.prepare import Prepared, prepare
from truesweep.data.seq2seq import learned_start
from truesweep.data.tokenizers import load
from truesweep.errors import ConfigError, in_short
from truesweep.figures import Figure, by_name, mode, of_metric
from truesweep.jobs.compiling import check_graphs, choose, compile_model
from truesweep.jobs.reference import attach_reference
from truesweep.jobs.trainer import Compile, TrainerSettings
from truesweep.metrics.harness import check_speaks
from truesweep.models import Head, Pretrained, add_adapter, count_parameters, recomputes_layers
from truesweep.models.adapters import check_adapter
from truesweep.models.batching import check_noise, keep_documents_apart, mixes_samples
from truesweep.models.fp8 import train_in_fp8
from truesweep.models.freezing import unreached
from truesweep.models.pretrained import Drawn
from truesweep.models.tokens import pad_token
from truesweep.optim import parameter_groups, rescale
from truesweep.record.loggers import FACTS
from truesweep.tasks import Recipe, Task

log = logging.getLogger(__name__)

SUPPLIED = {
    "optimizer": {"params", "precision"},
    "task": {"model", "tokenizer", "recipe", "labels", "bytes_per_target", "target_language"},
    "callbacks.checkpoint": {"directory", "tell"},
    "callbacks.progress": {"total_steps"},
    "logger": {"info"},
}
"""By group, the parameters of a target that the program gives itself; no keys of the user."""
OFFERED = {"logger": FACTS}
"""By group, the parameters that it gives where the user does not."""

USED = {
    "data": ("load", "batch_size"),
    "tokenizer": ("build", "identity"),
    "model": ("build",),
    "scheduler": ("factor", "check"),
    "trainer": ("total_steps", "world_size"),
}
"""By group, what is used of the object that it describes."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    source: Source
    prepared: Prepared
    task: Task
    data: DataModule
    trainer: TrainerSettings
    recipe: Recipe
    compiled: Compile


def make(config: dict[str, Any], group: str, /, **supplied: Any) -> Any:
    """The object that a group describes; None where it is empty.

    Raises:
        ConfigError: It cannot be built, or is none of its group's.
    """
    made = instantiate(dotted.get(config, group), group, config["allowed_packages"], **supplied)
    lacking = [name for name in USED.get(group, ()) if not hasattr(made, name)]
    if made is not None and lacking:
        raise ConfigError(
            f"{group}: {dotted.get(config, group)[TARGET]} has no {' and no '.join(lacking)}, "
            f"which a {group} needs"
        )
    return made


def task_class(config: dict[str, Any]) -> type[Task]:
    """The class that the `task` group names.

    Raises:
        ConfigError: It is no task, or does not say of itself what a task must.
    """
    named = dotted.get(config, "task._target_")
    if named is None:  # the last group: a file that was cut short lacks it
        raise ConfigError("task: the configuration has none, and is not whole; restore its file")
    target = resolve(named, config.get("allowed_packages") or ())
    if not isinstance(target, type) or not issubclass(target, Task):
        raise ConfigError(f"task: {named} is no task; derive it from truesweep.tasks")
    members = ((name, getattr_static(target, name)) for name in dir(target))
    if lacking := ", ".join(n for n, m in members if getattr(m, "__isabstractmethod__", False)):
        raise ConfigError(f"task: {named} has no {lacking}; see the docstrings of truesweep.tasks")
    if (head := getattr(target, "head", None)) not in (heads := get_args(Head)):
        raise ConfigError(f"task: {named} has head={head!r}; set it to one of {', '.join(heads)}")
    if not isinstance(kind := getattr(target, "kind", None), SampleKind):
        raise ConfigError(
            f"task: {named} has kind={kind!r}; set it to one of truesweep.data.kinds, such as TEXT"
        )
    return target


def sample_kind(config: dict[str, Any]) -> SampleKind:
    """The kind of samples that the `task` group asks for."""
    return task_class(config).kind_of(config["task"])


def with_defaults(config: Mapping[str, Any], origin: Origins | None = None) -> dict[str, Any]:
    """Check a configuration against the signatures of its targets, and fill in their defaults.

    Args:
        config: The configuration, plain and resolved.
        origin: Tells where a key came from, for the messages.

    Raises:
        ConfigError: With one line for each problem.
    """
    return check(config, supplied=SUPPLIED, offered=OFFERED, origin=origin)


def complete(config: dict[str, Any], origin: Origins | None = None) -> dict[str, Any]:
    """Check a composed configuration for training; what is `auto` in it says what it is here.

    Args:
        config: The configuration, plain and resolved.
        origin: Tells where a key came from, for the messages.

    Raises:
        ConfigError: With one line for each problem.
    """
    checked = with_defaults(config, origin)
    checked.setdefault("logger", None)  # logger=null leaves the group out
    if origin is not None:
        check_primary(checked, origin)
    check_across(checked)
    choose_modes(checked)
    choose_precision(checked)
    pin_code(checked)
    return checked


def choose_modes(config: dict[str, Any]) -> None:
    """Have callbacks that monitor a figure know which value is the best, where that is declared."""
    unsure = [
        node
        for node in (config["callbacks"] or {}).values()
        if node and node.get("monitor") and "mode" in node and node["mode"] is None
    ]
    declared = declared_figures(config) if unsure else {}
    for node in unsure:
        node["mode"] = mode(node["monitor"], declared)


def choose_precision(config: dict[str, Any]) -> None:
    """Have `trainer.precision=auto` say what it is on this machine, so that a resume keeps it."""
    if config["trainer"].get("precision") == "auto":
        trainer = make(config, "trainer")
        if isinstance(trainer, TrainerSettings):
            config["trainer"]["precision"] = trainer.native_precision()[0]


def pin_code(config: dict[str, Any]) -> None:
    """Have `model.trust_remote_code` say which code it is that may be run, so that no other is."""
    if config["model"].get("trust_remote_code"):
        model = make(config, "model")
        config["model"]["trust_remote_code"] = model.trusted()


def declared_figures(config: dict[str, Any]) -> dict[str, Figure]:
    """What the task, metrics that are added to it, and the harness declare, without a model.

    Raises:
        ConfigError: They cannot be had.
    """
    added = make(config, "task.metrics") or {}
    return by_name(
        [
            *task_class(config).declares,
            *(figure for one in added.items() for figure in of_metric(*one)),
            *getattr(make(config, "callbacks.harness"), "figures", ()),
        ]
    )


def build_callbacks(config: dict[str, Any], total_steps: int) -> list[pl.Callback]:
    """The callbacks that the configuration names, but for the checkpoint and those that are off.

    Raises:
        ConfigError: One cannot be built, or is none.
    """
    supplied = {"progress": {"total_steps": total_steps}}
    built = []
    for name, node in config["callbacks"].items():
        if node and name != "checkpoint":
            callback = make(config, f"callbacks.{name}", **supplied.get(name, {}))
            if not isinstance(callback, pl.Callback):
                raise ConfigError(f"callbacks.{name}: {node[TARGET]} is no callback of Lightning's")
            # Ours; what another package's callback means by the word is not known here.
            if isinstance(callback, EarlyStopping | Harness) and not callback.enabled:
                continue
            if isinstance(callback, Harness):
                _check_harness(config)
            built.append(callback)
    return built


def _check_harness(config: dict[str, Any]) -> None:
    """Refuse tasks of lm-evaluation-harness that a model cannot be given.

    Raises:
        ConfigError: It says nothing, or no rank has it whole.
    """
    check_speaks(task_class(config).head)
    if config["trainer"].get("strategy") == "fsdp":
        raise ConfigError(
            "callbacks.harness.tasks: with trainer.strategy=fsdp no rank has the whole model. "
            "Set callbacks.harness.tasks=null, and give them with truesweep evaluate --tasks"
        )


def pretrained_tokenizer(folder: Path) -> dict[str, Any]:
    """The `tokenizer` group for a tokenizer that lies in a folder."""
    return {"_target_": "truesweep.data.tokenizers.Pretrained", "name_or_path": str(folder)}


def prepare_data(
    config: dict[str, Any], labels: Sequence[str] | None = None
) -> tuple[Source, Prepared]:
    """Load, tokenize and check the data; a second call finds it in the cache.

    Args:
        config: The configuration.
        labels: Classes of a model that is already trained; by default those of the data.

    Raises:
        DataError: The data are missing, malformed or too few, or have other classes.
    """
    source: Source = make(config, "data")
    tokenizer = make(config, "tokenizer")
    return source, prepare(source, tokenizer, sample_kind(config), labels=labels)


def build_model(
    config: dict[str, Any], prepared: Prepared, source: Source, notes: list[str] | None = None
) -> PreTrainedModel:
    """The transformer, with weights drawn from the run's seed or loaded.

    Args:
        config: The configuration.
        prepared: The data that it is for.
        source: Where they come from.
        notes: Is given what the user should know of weights that were to be loaded.
    """
    labels = prepared.labels or ()
    model = make_model(config, prepared.tokenizer, labels, source.max_length, notes)[0]
    if source.packing == "documents":
        keep_documents_apart(model, source.max_length)
    return model


def left_alone(model: PreTrainedModel) -> str:
    """A sentence on the weights that no gradient reaches; empty: it reaches all."""
    names = list(unreached(model))
    if not names:
        return ""
    count = count_parameters(model)
    such = f"{text.plural(len(names), 'tensor')} of {model.config.model_type}"
    return (
        f"no gradient reaches {such} ({', '.join(names[:2])}{', …' * (len(names) > 2)}): left as "
        f"they are, so that {text.count(count.trainable)} of {text.count(count.total)} parameters "
        "are trained"
    )


def make_model(
    config: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    max_length: int,
    notes: list[str] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """The transformer, with its adapter, if there is one; and what could merge that into it.

    Args:
        config: The configuration.
        tokenizer: The model's.
        labels: Names of the classes, of a classifier.
        max_length: The longest sample, in tokens.
        notes: As `build_model` has them.
    """
    torch.manual_seed(config["seed"])
    made, head = make(config, "model"), task_class(config).head
    adapter = make(config, "adapter")
    if adapter is not None:
        check_adapter(adapter, trained=isinstance(made, Pretrained))
    model: PreTrainedModel = made.build(
        head,
        tokenizer,
        labels=labels,
        max_length=max_length,
        **({"notes": notes} if isinstance(made, Pretrained) else {}),
    )
    if head == "seq2seq" and isinstance(made, Pretrained) and model.device.type != "meta":
        _start_as_learned(model, tokenizer)
    if isinstance(made, Pretrained) and notes is not None:
        notes += _other_tokens(made, tokenizer)
    if adapter is None:
        return model, None
    if getattr(made, "parametrization", "standard") != "standard":
        raise ConfigError(
            f"model.parametrization={made.parametrization} is for models that are trained whole, "
            "from scratch. Set adapter=none, or model.parametrization=standard."
        )
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is model.get_input_embeddings().weight
    tuner = add_adapter(model, adapter, head, config["seed"])
    output = model.get_output_embeddings()
    if getattr(made, "init", None) == "scaled" and type(output) is nn.Linear and not tied:
        raise ConfigError(
            "model.init=scaled starts the output layer from zero, and beside an adapter it stays "
            "there, so that nothing is learned. Set model.init=default, or train the layer: "
            "adapter.modules_to_save=[lm_head]"
        )
    return model, tuner


def _other_tokens(made: Pretrained, tokenizer: PreTrainedTokenizerBase) -> list[Drawn]:
    """A sentence if ids are others than a model was trained with, as far as its folder tells."""
    if made.revision:  # whose tokenizer may be another one
        return []
    try:
        learned = load(made.name_or_path).get_vocab()
    except ConfigError:  # it holds no tokenizer
        return []
    given = tokenizer.get_vocab()
    others = sorted(
        (token for token, number in learned.items() if given.get(token) != number),
        key=learned.__getitem__,
    )
    if not others:
        return []
    token = next((token for token in others if token in given), others[0])
    return [
        Drawn(
            f"{made.name_or_path} was trained with other tokens ({token!r} is {learned[token]} "
            f"there, and {given.get(token, 'no token')} here): set tokenizer=pretrained "
            f"tokenizer.name_or_path={made.name_or_path}"
        )
    ]


def _start_as_learned(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a loaded model's decoder start from the token that it has learned to start from."""
    start = learned_start(model, tokenizer)
    if start is None:
        start = model.config.decoder_start_token_id
    start = pad_token(tokenizer) if start is None else start
    model.config.decoder_start_token_id = start
    generation: Any = model.generation_config
    if generation.decoder_start_token_id is None:
        generation.decoder_start_token_id = start


def data_module(
    config: dict[str, Any],
    prepared: Prepared,
    source: Source,
    model: PreTrainedModel,
    training: bool = True,
    **keys: Any,
) -> DataModule:
    """The data as a model needs them.

    Args:
        config: The configuration.
        prepared: The data.
        source: Where they come from.
        model: Before it is compiled.
        training: Whether it is trained on them; otherwise it is evaluated only.
        keys: Further arguments of the module.
    """
    return DataModule(
        prepared,
        source,
        config["seed"],
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        alone=mixes_samples(model, task_class(config).head, training),
        **keys,
    )


def build_recipe(config: dict[str, Any], trainer: TrainerSettings, steps_per_epoch: int) -> Recipe:
    """How the task is trained, checked for its length.

    Raises:
        ConfigError: The training has no length, or is shorter than its warm-up.
    """
    schedule = make(config, "scheduler")
    total_steps = trainer.total_steps(steps_per_epoch)
    schedule.check(total_steps)
    return Recipe(
        make_optimizer=partial(_make_optimizer, config),
        schedule=schedule,
        total_steps=total_steps,
        seed=config["seed"],
        gradient_clip_val=trainer.gradient_clip_val,
        log_every_n_steps=trainer.log_every_n_steps,
    )


def build(config: dict[str, Any], largest_micro_batch: int | None = None) -> Parts:
    """Everything a rank trains with.

    Args:
        config: The frozen configuration.
        largest_micro_batch: Rows of a forward pass that fit the memory, if that is known.
    """
    source, prepared = prepare_data(config)
    trainer: TrainerSettings = make(config, "trainer")
    model = build_model(config, prepared, source)
    check_noise(model, task_class(config).head)
    if sentence := left_alone(model):
        log.info("%s", sentence)
    data = data_module(
        config,
        prepared,
        source,
        model,
        first_only=trainer.overfit_batches,
        largest_micro_batch=largest_micro_batch,
    )
    recipe = build_recipe(config, trainer, data.steps_per_epoch)
    if task_class(config).needs_reference(config["task"], model):
        attach_reference(data, model, trainer)
    if trainer.precision == "64-true":
        model.double()  # Lightning would only after a checkpoint was loaded into fp32 weights
    if trainer.fp8:
        trainer.check_fp8()
        train_in_fp8(model, emulate=trainer.fp8 == "emulated")
    check_graphs(trainer, model, source, prepared)
    choice = choose(trainer, in_rank=True, model=model)
    if choice.note:
        log.warning("%s", choice.note)
    compile_model(model, choice.how)
    task = build_task(config, model, prepared, recipe)
    task.compiled = choice.how
    if recomputes_layers(model) and not choice.how:
        task.repeat_dropout()
    return Parts(source, prepared, task, data, trainer, recipe, choice.how)


def build_task(
    config: dict[str, Any],
    model: PreTrainedModel,
    prepared: Prepared,
    recipe: Recipe | None = None,
) -> Task:
    """The task over a model, for training or, without a recipe, for evaluation."""
    supplied = {
        "model": model,
        "tokenizer": prepared.tokenizer,
        "recipe": recipe,
        "labels": prepared.labels,
        "bytes_per_target": prepared.bytes_per_target,
        "target_language": _target_language(config),
    }
    task: Task = make(config, "task", **_taken(config, "task", supplied))
    task.sources = prepared.mix.names if prepared.mix else ()
    if clashing := set(task.sources) & task.declared.keys():
        raise ConfigError(
            f"data.sources.{clashing.pop()}: is called like a figure of the task, and figures are "
            "called by it. Give it another name"
        )
    return task


def _target_language(config: dict[str, Any]) -> str | None:
    """The language that is translated into, in which BLEU has to find words.

    Raises:
        ConfigError: The sources of a mixture have different ones.
    """
    data = config["data"]
    languages = {node.get("target") for node in (data.get("sources") or {"": data}).values()}
    if len(languages) > 1 and config["task"].get("bleu_tokenize", "") is None:
        raise ConfigError(
            f"data.sources: have several targets, {', '.join(sorted(map(str, languages)))}, and "
            "BLEU finds words as one language has them. Set task.bleu_tokenize"
        )
    language: str | None = languages.pop() if len(languages) == 1 else None
    return language


def _taken(config: dict[str, Any], group: str, supplied: dict[str, Any]) -> dict[str, Any]:
    """What the target of a group takes of what could be supplied to it."""
    target = resolve(config[group]["_target_"], config["allowed_packages"])
    known = signature(target).parameters
    return {name: value for name, value in supplied.items() if name in known}


def _make_optimizer(config: dict[str, Any], model: nn.Module) -> Optimizer:
    node = config["optimizer"]
    plus = node.get("adapter_b_lr_ratio", 1.0) != 1.0
    supplied: dict[str, Any] = {
        "params": parameter_groups(model, node.get("weight_decay") or 0.0, adapter_b=plus),
        "precision": config["trainer"]["precision"],
    }
    optimizer: Optimizer = make(config, "optimizer", **_taken(config, "optimizer", supplied))
    rescale(optimizer)
    return optimizer


def check_optimizer(config: dict[str, Any]) -> None:
    """Have the optimizer make one step of a few weights, as training will.

    Raises:
        ConfigError: It cannot, as those that need sparse gradients or a closure with a loss.
    """
    with torch.random.fork_rng(devices=[]):
        few = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    optimizer = _make_optimizer(config, few)
    for parameter in few.parameters():
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step(lambda: None)  # type: ignore[arg-type, return-value]  # as Lightning does
    except Exception as error:
        if "process group" in str(error):  # which there will be
            return
        target = config["optimizer"][TARGET]
        raise ConfigError(
            f"optimizer: {target} cannot make a step: {in_short(error)}. Set another optimizer, "
            "such as optimizer=adamw"
        ) from error


def check_attention(trainer: TrainerSettings, implementation: str | None) -> None:
    """Refuse attention that cannot be trained where the training runs.

    Args:
        trainer: Knows where it runs.
        implementation: What is asked for, or what a model has; None: not known yet.

    Raises:
        ConfigError: It cannot.
    """
    if trainer.is_cpu() and implementation == "flex_attention":
        raise ConfigError(
            "model.attention=flex_attention: has no backward pass on a CPU. Set "
            "model.attention=sdpa, or trainer.accelerator=gpu"
        )
