"""Contradictions between keys that can be found without building anything."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from truesweep import dotted
from truesweep.config.origin import Origins
from truesweep.config.roots import shipped, shown
from truesweep.errors import ConfigError

Config = Mapping[str, Any]
RESERVED = {"sweeps": "all sweeps", "evaluations": "what was found of models that are no runs"}
"""Folders of the program's own inside `outputs/`, and what they hold."""
LONGEST_NAME = 200
"""Bytes; file systems take 255, and a sweep's reports lie beside it under longer names."""
REQUIRED_GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "task")


def contradictions(config: Config) -> list[str]:
    """All contradictions in a checked configuration, each with its remedy."""
    return [problem for rule in RULES for problem in rule(config)]


def check_primary(config: Mapping[str, Any], origin: Origins) -> None:
    """Refuse a `train.yaml` of the user's that takes the place of ours without its groups.

    Args:
        config: Checked by `schema.check`.
        origin: Where it came from.

    Raises:
        ConfigError: There is one.
    """
    primary = next((source.path for source in origin.sources if not source.group), None)
    lacking = [group for group in REQUIRED_GROUPS if config.get(group) is None]
    if lacking and primary and not primary.is_relative_to(shipped("conf")):
        raise ConfigError(
            f"{shown(primary)}: takes the place of the program's own {primary.name}, and chooses "
            f"no {', '.join(lacking)}. For a few values, make it an option: experiment/NAME.yaml "
            "with `# @package _global_` as its first line"
        )


def check_across(config: Config) -> None:
    """Refuse a checked configuration that contradicts itself.

    Raises:
        ConfigError: With one line for each contradiction.
    """
    problems = contradictions(config)
    if problems:
        raise ConfigError("\n".join(problems))


def groups_are_chosen(config: Config) -> list[str]:
    """Training needs all groups but the logger, the callbacks and the tokenizer."""
    return [
        f"{group}: is required. Choose one with {group}=NAME."
        for group in REQUIRED_GROUPS
        if not config.get(group)
    ]


def heads_divide_width(config: Config) -> list[str]:
    """Every attention head gets an equal share of the width."""
    width, heads = _integers(config, "model.width", "model.heads")
    if not width or not heads or width % heads == 0:
        return []
    near = min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - heads))
    return [
        f"model.heads={heads} does not divide model.width={width}. "
        f"Set model.heads={near} or model.width={-(-width // heads) * heads}."
    ]


def training_has_a_length(config: Config) -> list[str]:
    """At least one limit ends a training."""
    trainer = config.get("trainer") or {}
    if {"max_epochs", "max_steps"} <= trainer.keys() and not any(
        trainer[key] for key in ("max_epochs", "max_steps")
    ):
        return [
            "trainer: neither max_epochs nor max_steps is given. "
            "Set trainer.max_epochs=3, say, or trainer.max_steps=1000."
        ]
    return []


def warmup_fits(config: Config) -> list[str]:
    """A warm-up in steps, unlike one as a share, may outlast the training."""
    warmup, steps = _integers(config, "scheduler.warmup", "trainer.max_steps")
    if warmup is None or steps is None or warmup < steps:
        return []
    return [
        f"scheduler.warmup={warmup} steps leave nothing of trainer.max_steps={steps}. "
        f"Set trainer.max_steps={10 * warmup} or scheduler.warmup={steps // 10}."
    ]


def micro_batch_fits(config: Config) -> list[str]:
    """A forward pass cannot take more samples than a step has."""
    micro, batch = _integers(config, "data.micro_batch_size", "data.batch_size")
    if micro is None or batch is None or micro <= batch:
        return []
    return [
        f"data.micro_batch_size={micro} exceeds data.batch_size={batch}, the samples of a whole "
        f"step. Set data.batch_size={micro} or data.micro_batch_size={batch}."
    ]


def length_fits(config: Config) -> list[str]:
    """A sample cannot be longer than what the model has positions for."""
    length, context = _integers(config, "data.max_length", "model.context")
    if length is None or context is None or length <= context:
        return []
    return [
        f"data.max_length={length} exceeds model.context={context}. "
        f"Set model.context={length} or data.max_length={context}."
    ]


def adapters_are_not_sharded(config: Config) -> list[str]:
    """A checkpoint of an adapter is made of whole weights."""
    strategy = str((config.get("trainer") or {}).get("strategy", ""))
    if not config.get("adapter") or not strategy.startswith(("fsdp", "deepspeed", "model_par")):
        return []
    return [
        f"trainer.strategy={strategy} shards weights, which is not supported with an adapter. "
        "Set trainer.strategy=ddp or adapter=none."
    ]


def four_bits_are_read_in_fp32(config: Config) -> list[str]:
    """Weights of bitsandbytes stand for none in fp64."""
    quantised = dotted.get(config, "adapter.quantize")
    if not quantised or dotted.get(config, "trainer.precision") != "64-true":
        return []
    return [
        "trainer.precision=64-true: weights in four bits are read as 32 bits at most. "
        "Set trainer.precision=32-true or adapter.quantize=null."
    ]


def adapters_have_no_eight_bits(config: Config) -> list[str]:
    """What is trained beside a base is small, and its own layers are peft's."""
    fp8 = dotted.get(config, "trainer.fp8")
    if not config.get("adapter") or not fp8:
        return []
    return [
        f"trainer.fp8={str(fp8).lower()}: is for models that are trained whole. Set "
        "trainer.fp8=false or adapter=none."
    ]


def checkpoints_are_kept(config: Config) -> list[str]:
    """A run goes on from its last checkpoint and is scored by its best."""
    if dotted.get(config, "callbacks.checkpoint"):
        return []
    return [
        "callbacks.checkpoint: cannot be left out, as a run is resumed from its last checkpoint "
        "and scored by its best. Remove callbacks.checkpoint=null, or whatever leaves it out."
    ]


def name_is_a_folder(config: Config) -> list[str]:
    """A run's or a sweep's name is a folder inside `outputs/`, and none of the program's own."""
    name = config.get("name")
    if name is None:
        return []
    path = PurePath(name)
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in path.parts):
        return [f"name={name[:40]}…: is too long for a folder. Give it as in name=first."]
    inside = path.parts and not path.is_absolute() and ".." not in path.parts
    if inside and path.parts[0] in RESERVED:
        own = path.parts[0]
        return [
            f"name={name}: outputs/{own} holds {RESERVED[own]}. Give another, as in name=first."
        ]
    if inside and name.isprintable():
        return []
    return [f"name={name}: is no folder inside outputs/. Give it as in name=first."]


RULES: tuple[Callable[[Config], list[str]], ...] = (
    groups_are_chosen,
    heads_divide_width,
    training_has_a_length,
    adapters_are_not_sharded,
    four_bits_are_read_in_fp32,
    adapters_have_no_eight_bits,
    warmup_fits,
    micro_batch_fits,
    length_fits,
    checkpoints_are_kept,
    name_is_a_folder,
)


def _integers(config: Config, *keys: str) -> list[int | None]:
    """The values of dotted keys; None for what is absent or no integer."""
    values = (dotted.get(config, key) for key in keys)
    return [value if type(value) is int else None for value in values]
