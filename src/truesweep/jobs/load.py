"""A trained model, from a run's directory or a Hugging Face folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data import tokenizers
from truesweep.errors import ConfigError, DataError, refusing
from truesweep.jobs.parts import make_model
from truesweep.models.adapters import whole_state
from truesweep.models.families import choose_attention
from truesweep.models.folders import Weights, is_model
from truesweep.models.heads import AUTO_CLASSES, Head
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import SUMS, changed_since_summed, write_sums
from truesweep.runs.run import REMEDY, Run

Which = Literal["best", "last"]
"""The checkpoints of a run."""
PREFIX = "model."
"""What a task's checkpoint puts before the names of the transformer's weights."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be used.

    Args:
        model: In evaluation mode, fp32, on the CPU.
        tokenizer: The model's tokenizer.
        tuner: Can merge the model's adapter into it; None without one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tuner: Any = None

    @property
    def labels(self) -> list[str]:
        """A classifier's classes, by id."""
        return self.classes(self.model.config)

    @staticmethod
    def classes(config: PreTrainedConfig) -> list[str]:
        """The classes of a configuration, by id."""
        names: Any = config.id2label or {}
        return [str(names[i]) for i in sorted(names)]


def named_checkpoint(option: str) -> Which:
    """What `--checkpoint` asks for.

    Raises:
        ConfigError: It is none that a run has.
    """
    if option not in ("best", "last"):
        raise ConfigError(f"--checkpoint {option}: expected best or last")
    return cast(Which, option)


def load_run(run: Run, head: Head, checkpoint: Which = "best") -> Loaded:
    """The model of a run, with the weights of one of its checkpoints.

    Raises:
        ConfigError: The run has no such checkpoint, or it is damaged.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: the run has not reached its first validation")
    if changed := changed_since_summed(run.model):
        raise DataError(
            f"{run.model / changed[0]}: is not what the run has written. {REMEDY}. If it was "
            f"changed on purpose, delete {run.model / SUMS}"
        )
    with refusing(lambda reason: f"{path} does not go with {run.model}: {reason} {REMEDY}."):
        return _load_run(run, head, path)


def _load_run(run: Run, head: Head, path: Path) -> Loaded:
    tokenizer = tokenizers.load(run.model)
    saved = CheckpointFiles().load_checkpoint(path)
    state = {
        k.removeprefix(PREFIX): v for k, v in saved["state_dict"].items() if k.startswith(PREFIX)
    }
    config = run.read_config()
    # Code of the model's own is run where it was allowed: what a run's directory has is a copy.
    if "base" not in saved and not config["model"].get("trust_remote_code"):
        # As it was trained, so that a validation's figures come out the same to the last digit.
        attention = choose_attention(config["model"].get("attention"), config["data"]["max_length"])
        model = AUTO_CLASSES[head].from_config(
            AutoConfig.from_pretrained(run.model, trust_remote_code=False),
            dtype=torch.float32,
            attn_implementation=attention,
        )
        model.load_state_dict(state)
        return Loaded(model.eval(), tokenizer)
    fields, _ = PreTrainedConfig.get_config_dict(run.model)
    labels = Loaded.classes(PreTrainedConfig.from_dict(fields))  # whatever the class, no code
    model, tuner = _as_built(run, tokenizer, labels)
    if "base" in saved:
        state = whole_state(model, state, saved["base"]["sha256"])
    model.load_state_dict(state)
    return Loaded(model.eval(), tokenizer, tuner)


def _as_built(
    run: Run, tokenizer: PreTrainedTokenizerBase, labels: list[str]
) -> tuple[PreTrainedModel, Any]:
    """A run's model as it was built for the training, and what could merge its adapter."""
    config = run.read_config()
    model = config["model"]
    named = model.get("name_or_path")
    if named is not None and (local := run.started_in / named).exists():
        model["name_or_path"] = str(local)
        if code := model.get("trust_remote_code"):
            model["trust_remote_code"] = {str(local): code[named]}
    return make_model(config, tokenizer, labels, config["data"]["max_length"])


def load_folder(folder: Path, trusted: Sequence[str] = ()) -> tuple[Head, Loaded]:
    """A model in any form that `Weights` reads, and what its configuration says it is for.

    Args:
        folder: Where it lies.
        trusted: The names of models whose own code may be run.

    Raises:
        ConfigError: There is none, or its architecture is for nothing we know.
    """
    if not is_model(folder):
        raise ConfigError(
            f"{folder} is neither a run's directory (no config.yaml) nor a model: a Hugging Face "
            "folder (config.json), an adapter's (adapter_config.json) or a GGUF file"
        )
    with refusing(lambda reason: f"{folder} cannot be loaded: {reason} Fetch or export it again."):
        return _load_folder(folder, str(folder) in [str(Path(name)) for name in trusted])


def _load_folder(folder: Path, trusted: bool) -> tuple[Head, Loaded]:
    name = str(folder)
    weights = Weights(name, code=Weights(name).code_hash() if trusted else None)
    head = weights.head()
    model, info = weights.load(head, weights.config(), attention=None)
    if absent := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise ConfigError(f"{folder} lacks weights, or has others in their place: {absent[0]}")
    return head, Loaded(model.eval(), tokenizers.load(folder))


def is_layout_lost(folder: Path) -> bool:
    """Whether files that `save_layout` has written are missing, or not as they were."""
    return not folder.is_dir() or bool(changed_since_summed(folder))


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
    write_sums(folder)
