"""A trained model, from a run's directory or a Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.errors import ConfigError
from truesweep.jobs.directory import RunDirectory
from truesweep.models.heads import AUTO_CLASSES, Head
from truesweep.record.checkpoints import CheckpointFiles

PREFIX = "model."
"""What a task's checkpoint puts before the names of the transformer's weights."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be used.

    Args:
        head: `causal`, `seq2seq` or `classifier`.
        model: In evaluation mode, fp32, on the CPU.
        tokenizer: The model's tokenizer.
    """

    head: Head
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
    return Loaded(head, model.eval(), AutoTokenizer.from_pretrained(run.model))


def load_folder(folder: Path) -> Loaded:
    """A model in Hugging Face layout, for what its `architectures` entry says it is for.

    Raises:
        ConfigError: The folder is none, or its architecture is for nothing we know.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is neither a run's directory (no config.yaml) nor a Hugging Face folder "
            "(no config.json)"
        )
    config = AutoConfig.from_pretrained(folder)
    head = _head(folder, list(config.architectures or []))
    model = AUTO_CLASSES[head].from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return Loaded(head, model.eval(), AutoTokenizer.from_pretrained(folder))


def _head(folder: Path, architectures: list[str]) -> Head:
    endings: dict[str, Head] = {
        "ForCausalLM": "causal",
        "LMHeadModel": "causal",
        "ForSequenceClassification": "classifier",
        "ForConditionalGeneration": "seq2seq",
        "MTModel": "seq2seq",
    }
    for ending, head in endings.items():
        if any(name.endswith(ending) for name in architectures):
            return head
    raise ConfigError(
        f"{folder / 'config.json'}: architectures is {architectures or 'missing'}; expected one "
        f"that ends in {', '.join(endings)}"
    )


def save_layout(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep with a run what its checkpoints do not hold: the architecture and the tokenizer."""
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.can_generate():
        cast(Any, model.generation_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
