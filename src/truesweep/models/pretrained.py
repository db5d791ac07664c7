"""A transformers model with trained weights, from a folder or the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.errors import ConfigError
from truesweep.models.attention import Attention, choose_attention
from truesweep.models.causality import check_causal
from truesweep.models.dimensions import unused_positions
from truesweep.models.dropout import restrict_dropout
from truesweep.models.freezing import freeze
from truesweep.models.heads import AUTO_CLASSES, Head, check_head
from truesweep.models.init import output_layers
from truesweep.models.tokens import label_fields, pad_token


@dataclass(kw_only=True)
class Pretrained:
    """A model from safetensors files, in float32. No code that comes with it is run.

    Its dropout is the checkpoint's own, except that whole layers are never dropped.

    Args:
        name_or_path: a folder with `config.json` and `model.safetensors`, or a name on the hub.
        revision: branch, tag or commit on the hub.
        attention: implementation; by default the fastest for the length of samples.
    """

    name_or_path: str
    revision: str | None = None
    attention: Attention | None = None

    def check(self, head: Head, *, max_length: int) -> None:
        """Raise a `ConfigError` for what the model's configuration alone tells.

        Args:
            head: what the model is for.
            max_length: the longest sample, in tokens.
        """
        check_head(self._load_config().model_type, head)
        context = self.context()
        if context is not None and max_length > context:
            raise ConfigError(
                f"data.max_length={max_length} is longer than the {context} positions of "
                f"{self.name_or_path}. Set data.max_length={context} or less."
            )

    def context(self) -> int | None:
        """Tokens that the model reads at most; None where its configuration sets no limit."""
        config = self._load_config()
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None:
            return None
        return int(positions - unused_positions(config.model_type, config.pad_token_id or 0))

    def build(
        self,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        labels: Sequence[str] = (),
    ) -> PreTrainedModel:
        """The model, on the CPU and in training mode; a missing classifier is drawn anew.

        Args:
            head: what the model is for.
            tokenizer: must be the model's own; where tokens were added, rows are added for them.
            max_length: the longest sample, in tokens.
            labels: names of the classes, for a classifier. A checkpoint that has the same names
                in another order is reordered.

        Raises:
            ConfigError: see `check`; or weights are missing, or are not safetensors.
        """
        self.check(head, max_length=max_length)
        config = self._load_config()
        order = _order_of_classes(config, labels)
        _adapt(config, head, tokenizer, labels)
        # Loaded even where the caller wants shapes only: what is missing shows in no other way.
        with torch.device("cpu"):
            model = self._load(head, config, max_length)
            if order is not None:
                _reorder_classes(model, order)
            table = model.get_input_embeddings()
            if isinstance(table, nn.Embedding) and len(tokenizer) > table.num_embeddings:
                model.resize_token_embeddings(len(tokenizer))
            if head == "causal":
                check_causal(model)
        freeze(model, head)
        restrict_dropout(model)
        if model.can_generate():
            _complete_generation(model, pad_token(tokenizer))
        # Lightning trains a model in the mode it finds; from_pretrained leaves dropout off.
        model.train()
        return model

    def _load_config(self) -> PreTrainedConfig:
        path = Path(self.name_or_path)
        looks_local = path.is_absolute() or self.name_or_path.startswith(".") or len(path.parts) > 2
        if looks_local and not path.is_dir():
            raise ConfigError(
                f"model.name_or_path: there is no folder {self.name_or_path}. Name a folder with "
                "config.json and model.safetensors, or a model on the hub such as gpt2."
            )
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                self.name_or_path, revision=self.revision, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise self._not_loaded(error) from error
        return config

    def _load(self, head: Head, config: PreTrainedConfig, max_length: int) -> PreTrainedModel:
        try:
            model, info = AUTO_CLASSES[head].from_pretrained(
                self.name_or_path,
                config=config,
                revision=self.revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=choose_attention(self.attention, max_length),
                # Only a classifier of other classes may differ, which is checked below.
                ignore_mismatched_sizes=head == "classifier",
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._not_loaded(error) from error
        loaded: PreTrainedModel = model
        self._check_complete(loaded, head, info)
        return loaded

    def _check_complete(self, model: PreTrainedModel, head: Head, info: dict[str, Any]) -> None:
        """Raise a `ConfigError` if anything but a classifier would start from random weights."""
        absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        if head == "classifier":
            inside = f"{model.base_model_prefix}."
            absent = {name for name in absent if name.startswith(inside)}
        if absent:
            raise ConfigError(
                f"model.name_or_path: {self.name_or_path} lacks weights of {type(model).__name__}: "
                f"{', '.join(sorted(absent)[:3])} ({len(absent)} in all). "
                "Name a model that was trained for this task."
            )

    def _not_loaded(self, error: Exception) -> ConfigError:
        reason = " ".join(str(error).split())[:300]
        return ConfigError(
            f"model.name_or_path: cannot load {self.name_or_path}: {reason} Name a folder with "
            "config.json and model.safetensors (only safetensors are read), or, with a network, a "
            "model on the hub."
        )


def _adapt(
    config: PreTrainedConfig, head: Head, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> None:
    """Set what the task decides and the checkpoint cannot know."""
    if config.pad_token_id is None:
        config.pad_token_id = pad_token(tokenizer)
    if head == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True  # BERT and its kin would look ahead
    if head == "classifier":
        for name, value in label_fields(labels).items():
            setattr(config, name, value)


def _order_of_classes(config: PreTrainedConfig, labels: Sequence[str]) -> list[int] | None:
    """Where a checkpoint keeps each class, if it has the same names in another order."""
    own = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if own == list(labels) or sorted(own) != sorted(labels):
        return None
    return [own.index(label) for label in labels]


def _reorder_classes(model: PreTrainedModel, order: list[int]) -> None:
    with torch.no_grad():
        for layer in output_layers(model):
            layer.weight.copy_(layer.weight[order])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[order])


def _complete_generation(model: PreTrainedModel, pad: int) -> None:
    generation = model.generation_config
    assert generation is not None  # can_generate says so
    if generation.pad_token_id is None:
        generation.pad_token_id = pad
    if model.config.is_encoder_decoder and generation.decoder_start_token_id is None:
        generation.decoder_start_token_id = pad
