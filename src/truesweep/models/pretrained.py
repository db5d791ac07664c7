"""A transformers model with trained weights, from a folder or the Hugging Face hub."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from truesweep.errors import ConfigError, refusing
from truesweep.models.dimensions import positions
from truesweep.models.dropout import Twice, recompute_layers, restrict_dropout
from truesweep.models.families import Attention, choose_attention
from truesweep.models.folders import Weights
from truesweep.models.freezing import freeze
from truesweep.models.heads import PURPOSES, TASKS, Head, check_head
from truesweep.models.init import output_layers
from truesweep.models.tokens import (
    label_fields,
    pad_token,
    settle_generation,
    vocabulary_size,
)
from truesweep.models.trials import check_causal


class Drawn(str):
    """A sentence that says what was never trained, so that there is nothing to score yet.

    Weights are new, or see other tokens than those that they learned from.
    """


@dataclass(kw_only=True)
class Pretrained:
    """A model with trained weights, in float32.

    Its dropout is the checkpoint's own, except that whole layers are never dropped.

    Args:
        name_or_path: a folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`),
            a folder with an adapter of peft's that names its base, a GGUF file, or a name on the
            hub. Of a model that reads images or sounds, too, its text part is taken.
        revision: branch, tag or commit on the hub.
        attention: implementation; by default the fastest for the length of samples.
        labels: what a classifier's classes are called in the data, in the order of its own ids; by
            default what the checkpoint calls them, or 0, 1, … where it has no names for them.
        activation_checkpointing: keep what layers are given, and compute them once more in the
            backward pass: less memory, more time, the same numbers. `auto`: where the device would
            not hold what they keep; the configuration that a run is started from says which.
        trust_remote_code: names of models whose own code may be run, as `name_or_path` has them;
            no other code is. A run keeps the SHA-256 of that code with the name, and refuses other
            code from then on.
    """

    name_or_path: str
    revision: str | None = None
    attention: Attention | None = None
    labels: list[str] | None = None
    activation_checkpointing: Twice = False
    trust_remote_code: list[str] | dict[str, str] | None = None

    def trusted(self) -> dict[str, str] | None:
        """`trust_remote_code` with the SHA-256 of the code that is there, if it names this model.

        None where nothing is allowed, or the model has no code of its own.

        Raises:
            ConfigError: The code cannot be had.
        """
        allowed = self.trust_remote_code or ()
        if isinstance(allowed, dict) or self.name_or_path not in allowed:
            return allowed if isinstance(allowed, dict) else None
        code = Weights(self.name_or_path, self.revision).code_hash()
        return {self.name_or_path: code} if code else None

    def check(self, head: Head, *, max_length: int) -> None:
        """Raise a `ConfigError` for what the model's configuration alone tells.

        Args:
            head: what the model is for.
            max_length: the longest sample, in tokens.
        """
        config = self._load_config()
        if not self._weights.has(head):
            check_head(config.model_type, head)
        context = self.context()
        if context is not None and max_length > context:
            raise ConfigError(
                f"data.max_length={max_length} is longer than the {context} positions of "
                f"{self.name_or_path}. Set data.max_length={context} or less."
            )

    def context(self) -> int | None:
        """Tokens that the model reads at most; None where its configuration sets no limit."""
        return positions(self._load_config())

    def build(
        self,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        labels: Sequence[str] = (),
        notes: list[str] | None = None,
    ) -> PreTrainedModel:
        """The model, on the CPU and in training mode; a missing classifier is drawn anew.

        Args:
            head: what the model is for.
            tokenizer: must be the model's own; where tokens were added, rows are added for them.
            max_length: the longest sample, in tokens.
            labels: names of the classes, for a classifier. A checkpoint that has the same names
                in another order is reordered; one with others gets a new last layer.
            notes: is given a sentence, a `Drawn` one, if any weights are drawn anew, and others
                of what the checkpoint leaves open.

        Raises:
            ConfigError: see `check`; or weights are missing or damaged.
        """
        self.check(head, max_length=max_length)
        with refusing(self._not_used):
            return self._build(head, tokenizer, max_length, labels, [] if notes is None else notes)

    def _build(
        self,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        labels: Sequence[str],
        notes: list[str],
    ) -> PreTrainedModel:
        config = self._load_config()
        own = self.classes() if head == "classifier" else []
        unsaid = head == "classifier" and config.problem_type is None
        _adapt(config, head, tokenizer, labels)
        # Loaded even where the caller wants shapes only: what is missing shows in no other way.
        with torch.device("cpu"):
            model, missing, misshapen = self._load(head, config, max_length)
            others: list[str] = misshapen
            if head == "classifier" and sorted(own) == sorted(labels):
                _reorder_classes(model, [own.index(label) for label in labels])
            elif head == "classifier":
                others = misshapen + _draw_last_layer(model, {*missing, *misshapen})
            if otherwise := self._trained_otherwise(head):
                notes.append(Drawn(f"{self.name_or_path}: {otherwise}"))
            if missing or others:
                why = _other_classes(own, labels) if others else ""
                notes.append(Drawn(self._drawn_anew([*missing, *others]) + why))
            elif unsaid:
                notes.append(
                    f"{self.name_or_path} does not say whether it chooses one class or several "
                    "(problem_type is null): it is taken to choose one"
                )
            table = model.get_input_embeddings()
            rows = vocabulary_size(tokenizer)
            if isinstance(table, nn.Embedding) and rows > table.num_embeddings:
                notes.append(
                    f"the tokenizer has {rows} tokens and {self.name_or_path} "
                    f"{table.num_embeddings}: the rows of the others are drawn anew"
                )
                model.resize_token_embeddings(rows)
            if head == "causal":
                check_causal(model)
            freeze(model, head, max_length, model)
        restrict_dropout(model)
        if self.activation_checkpointing is True:  # what `auto` is, the plan settles
            recompute_layers(model)
        if model.can_generate():
            _complete_generation(model, pad_token(tokenizer))
            if idle := settle_generation(model):
                notes.append(
                    f"{', '.join(idle)} of {self.name_or_path}'s generation_config.json "
                    "cannot be used as they stand there, and are left out"
                )
        # Lightning trains a model in the mode it finds; from_pretrained leaves dropout off.
        model.train()
        return model

    def classes(self) -> list[str]:
        """What the classes of a classifier are called, by id.

        Raises:
            ConfigError: It does not choose one class of several, or has not as many as `labels`.
        """
        config = self._load_config()
        names = {int(i): str(name) for i, name in (config.id2label or {}).items()}
        own = [names[i] for i in sorted(names)]
        kind = config.problem_type
        if kind not in (None, "single_label_classification") or len(own) == 1:
            what = str(kind or "regression").replace("_", " ")
            raise ConfigError(
                f"model.name_or_path: {self.name_or_path} was trained for {what}; "
                "task=classification chooses one class of several"
            )
        if self.labels is not None and len(self.labels) != len(own):
            raise ConfigError(
                f"model.labels: {self.name_or_path} has {len(own)} classes ({', '.join(own)}), and "
                f"{len(self.labels)} names are given"
            )
        nameless = own == [f"LABEL_{i}" for i in range(len(own))]
        return self.labels or ([str(i) for i in range(len(own))] if nameless else own)

    def _drawn_anew(self, weights: Sequence[str]) -> str:
        are = "are" if len(weights) > 1 else "is"
        some = ", ".join(sorted(weights)[:4])
        return f"of {self.name_or_path}, {some} {are} drawn anew and to be trained"

    def _load_config(self) -> PreTrainedConfig:
        path = Path(self.name_or_path)
        looks_local = path.is_absolute() or self.name_or_path.startswith(".") or len(path.parts) > 2
        if looks_local and not path.exists():
            raise ConfigError(
                f"model.name_or_path: there is no folder {self.name_or_path}. Name a folder with "
                "config.json and model.safetensors, or a model on the hub such as gpt2."
            )
        return self._weights.config()

    @property
    def _weights(self) -> Weights:
        code = (self.trusted() or {}).get(self.name_or_path)
        return Weights(self.name_or_path, self.revision, code)

    def _load(
        self, head: Head, config: PreTrainedConfig, max_length: int
    ) -> tuple[PreTrainedModel, list[str], list[str]]:
        """The model, and the names of weights that are missing, and of those of another shape."""
        own = self._weights.has(head)  # may have no other implementation than its own
        attention = self.attention if own else choose_attention(self.attention, max_length)
        loaded, info = self._weights.load(head, config, attention)
        self._check_complete(loaded, head, info)
        misshapen = sorted(key for key, *_ in info["mismatched_keys"])
        return loaded, sorted(info["missing_keys"]), misshapen

    def _check_complete(self, model: PreTrainedModel, head: Head, info: dict[str, Any]) -> None:
        """Raise a `ConfigError` if anything but a classifier would start from random weights.

        A pooler, which stands between a model and its classifier, counts as the latter: models that
        were trained to fill in words have none.
        """
        absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        needed = absent
        if head == "classifier":
            inside, pooler = (f"{model.base_model_prefix}.{end}" for end in ("", "pooler."))
            needed = {n for n in absent if n.startswith(inside) and not n.startswith(pooler)}
        if needed:
            other = self._trained_otherwise(head) or "Name a model that was trained for this task"
            raise ConfigError(
                f"model.name_or_path: {self.name_or_path} lacks weights of {type(model).__name__}, "
                f"or has others in their place: {', '.join(sorted(needed)[:3])} ({len(needed)} in "
                f"all). {other}."
            )

    def _trained_otherwise(self, head: Head) -> str:
        """A sentence if the weights are there, but have learned something else with them.

        A classifier is drawn anew then, and that is said.
        """
        trained_for, classes = self._weights.saved_as()
        if head == "classifier" or trained_for in (None, head):
            return ""
        return (
            f"{classes[0]}, as it was saved, is for {PURPOSES[trained_for]}, not for "
            f"{PURPOSES[head]}: set task={TASKS[trained_for]}, or name another model"
        )

    def _not_used(self, reason: str) -> str:
        return f"model.name_or_path: {self.name_or_path} cannot be used for this task: {reason}"


def _adapt(
    config: PreTrainedConfig, head: Head, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> None:
    """Set what the task decides and the checkpoint cannot know."""
    # Classifiers look for the last token that does not pad, as the tokenizer that padded has it.
    if config.pad_token_id is None or head == "classifier":
        config.pad_token_id = pad_token(tokenizer)
    if head == "causal" and hasattr(config, "is_decoder"):
        config.is_decoder = True  # BERT and its kin would look ahead
    if head == "classifier":
        for name, value in label_fields(labels).items():
            setattr(config, name, value)


def _reorder_classes(model: PreTrainedModel, order: list[int]) -> None:
    """Put the rows of a classifier's last layer where the data have their classes."""
    with torch.no_grad():
        for layer in output_layers(model):
            layer.weight.copy_(layer.weight[order])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[order])


def _other_classes(own: Sequence[str], labels: Sequence[str]) -> str:
    """Why a classifier that was there is of no use."""
    few = [", ".join(names[:5]) + ", …" * (len(names) > 5) for names in (own, labels)]
    return (
        f": its classes are {few[0]}, those of the data {few[1]}. If they are the same under other "
        "names, give these, in the order of the model's: model.labels=[…]"
    )


def _draw_last_layer(model: PreTrainedModel, drawn: Collection[str]) -> list[str]:
    """Draw what was learned of other classes anew, if that is still to do.

    Args:
        model: A classifier.
        drawn: The weights that are new already.

    Returns:
        The names of the weights.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for layer in output_layers(model):
        if names[id(layer.weight)] not in drawn:
            nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
            found.append(names[id(layer.weight)])
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
                found.append(names[id(layer.bias)])
    return found


def _complete_generation(model: PreTrainedModel, pad: int) -> None:
    generation = model.generation_config
    assert generation is not None  # can_generate says so
    if generation.pad_token_id is None:
        generation.pad_token_id = pad
