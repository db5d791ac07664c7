"""A trained model, from a run's directory or a Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data import tokenizers
from truesweep.errors import ConfigError
from truesweep.jobs.directory import RunDirectory
from truesweep.models.heads import AUTO_CLASSES, ENDINGS, Head, head_of
from truesweep.record.checkpoints import CheckpointFiles

PREFIX = "model."
"""What a task's checkpoint puts before the names of the transformer's weights."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be used.

    Args:
        model: In evaluation mode, fp32, on the CPU.
        tokenizer: The model's tokenizer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def labels(self) -> list[str]:
        """A classifier's classes, by id."""
        names: Any = self.model.config.id2label or {}
        return [str(names[i]) for i in sorted(names)]


def load_run(run: RunDirectory, head: Head, checkpoint: Literal["best", "last"] = "best") -> Loaded:
    """The model of a run, with the weights of one of its checkpoints.

    Raises:
        ConfigError: The run has no such checkpoint, or it is damaged.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: the run has not reached its first validation")
    model = AUTO_CLASSES[head].from_config(
        AutoConfig.from_pretrained(run.model), dtype=torch.float32
    )
    state = CheckpointFiles().load_checkpoint(path)["state_dict"]
    model.load_state_dict(
        {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    )
    return Loaded(model.eval(), tokenizers.load(run.model))


def load_folder(folder: Path) -> tuple[Head, Loaded]:
    """A model in Hugging Face layout, and what its `architectures` entry says it is for.

    Raises:
        ConfigError: The folder is none, or its architecture is for nothing we know.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is neither a run's directory (no config.yaml) nor a Hugging Face folder "
            "(no config.json)"
        )
    config = AutoConfig.from_pretrained(folder)
    found = list(config.architectures or [])
    head = head_of(found)
    if head is None:
        raise ConfigError(
            f"{folder / 'config.json'}: architectures is {found or 'missing'}; expected one that "
            f"ends in {', '.join(ENDINGS)}"
        )
    model = AUTO_CLASSES[head].from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return head, Loaded(model.eval(), tokenizers.load(folder))


def save_layout(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep with a run what its checkpoints do not hold: the architecture and the tokenizer.

    Raises:
        ConfigError: The tokenizer could not be had back as it is.
    """
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.can_generate():
        cast(Any, model.generation_config).save_pretrained(folder)
    tokenizers.save(tokenizer, folder)
