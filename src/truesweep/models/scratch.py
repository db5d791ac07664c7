"""A transformers model with new weights, described by a few numbers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from truesweep.compat import attention
from truesweep.errors import ConfigError, refusing
from truesweep.models.dimensions import (
    NAMES,
    VOCABULARY,
    Dimensions,
    check_dimensions,
    check_fields,
    check_heads,
    check_is_one_model,
    known_fields,
    positions,
    takes_none,
    unused_positions,
)
from truesweep.models.dropout import (
    Twice,
    add_residual_dropout,
    check_layerdrop,
    dropout_fields,
    recompute_layers,
    restrict_dropout,
)
from truesweep.models.families import (
    PARTS,
    STARTS,
    Attention,
    attention_fields,
    check_family,
    choose_attention,
)
from truesweep.models.freezing import freeze
from truesweep.models.heads import AUTO_CLASSES, Head, check_head, config_class, text_part
from truesweep.models.init import scale_weights
from truesweep.models.parametrization import (
    Parametrization,
    check_parametrization,
    parametrize,
)
from truesweep.models.seeding import Initializer, Seeding
from truesweep.models.tokens import label_fields, set_generation, token_fields
from truesweep.models.trials import check_causal, with_weights

Count = Annotated[int, Gt(0)]


@dataclass(kw_only=True)
class Scratch:
    """A model of any transformers architecture, with new weights in float32.

    Args:
        architecture: a `model_type` of transformers, such as `llama`.
        depth: layers; of the encoder and of the decoder each where there are both.
        width: features of a layer (hidden size).
        heads: attention heads; they divide the width.
        feed_forward: features inside an MLP; by default the architecture's own ratio to the
            width, 8/3 for SwiGLU.
        context: positions, in tokens; by default as many as the data's longest sample has.
        dropout: rate for embeddings, attention, what is added to the residual stream, and head.
            Where attention drops, its fused kernels are not used.
        tie_embeddings: one table for input and output; by default the architecture's habit.
        init: `default` is the architecture's own, `scaled` starts blocks and head from zero.
        init_seeding: `sequential` draws all weights one after the other; `by_name` each by its
            name, so that models of one seed begin alike wherever names and shapes agree, whatever
            their depth or vocabulary. See `models.seeding`.
        parametrization: with `mup`, a learning rate that suits `base_width` suits all widths; with
            `completep` all depths as well. See `models.parametrization`.
        base_width: the width at which both are the standard parametrization.
        base_depth: the depth at which `completep` is.
        base_heads: attention heads at the base width; by default as many as the model has, so
            that heads grow with the width.
        attention: implementation; by default the fastest for the length of samples.
        activation_checkpointing: keep what layers are given, and compute them once more in the
            backward pass: less memory, more time, the same numbers. `auto`: where the device would
            not hold what they keep; the configuration that a run is started from says which.
        config: further fields of the architecture's transformers configuration.
    """

    architecture: str
    depth: Count = 4
    width: Count = 128
    heads: Count = 4
    feed_forward: Count | None = None
    context: Count | None = None
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    tie_embeddings: bool | None = None
    init: Literal["default", "scaled"] = "default"
    init_seeding: Seeding = "sequential"
    parametrization: Parametrization = "standard"
    base_width: Count | None = None
    base_depth: Count | None = None
    base_heads: Count | None = None
    attention: Attention | None = None
    activation_checkpointing: Twice = False
    config: dict[str, Any] = field(default_factory=dict)

    def check(self, head: Head, *, max_length: int) -> None:
        """Raise a `ConfigError` for what can be known without data and weights.

        Args:
            head: what the model is for.
            max_length: the longest sample, in tokens.
        """
        check_family(self.architecture, {"width": self.width, "heads": self.heads})
        found = config_class(self._text_part)
        check_head(self._text_part, head, self.architecture)
        check_fields(found, self.config)
        check_is_one_model(found)
        check_layerdrop(self.config)
        self._dimensions(max_length).fields(found, self.config)
        self._check_parametrization()
        if self.context is not None and self.context < max_length:
            raise ConfigError(
                f"model.context={self.context} is shorter than data.max_length={max_length}. "
                f"Set model.context={max_length} or more, or a smaller data.max_length."
            )

    def _check_parametrization(self) -> None:
        if self.parametrization == "standard":
            return
        asked = f"model.parametrization={self.parametrization}"
        needed = {"base_width": self.base_width}
        if self.parametrization == "completep":
            needed["base_depth"] = self.base_depth
        for key, value in needed.items():
            if value is None:
                what = key.removeprefix("base_")
                raise ConfigError(
                    f"{asked} needs model.{key}, the {what} at which optimizer.lr is tuned. Set "
                    f"model.{key} to that of your small model, the same for all sizes."
                )
        base = self._base()
        if base.width % base.heads:
            raise ConfigError(
                f"model.base_width={base.width} is not divided by the {base.heads} heads of the "
                f"base model. Set model.base_width or model.base_heads so that it is."
            )
        check_heads(base.width, base.heads)
        features = self.width // self.heads, base.width // base.heads
        check_parametrization(self.architecture, self.parametrization, head_features=features)

    def _base(self) -> "Scratch":
        """The model of the base width, as deep as this one."""
        width = self.base_width or self.width
        forward = self.feed_forward
        return replace(
            self,
            width=width,
            heads=self.base_heads or self.heads,
            feed_forward=forward and max(1, round(forward * width / self.width)),
        )

    def build(
        self,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        labels: Sequence[str] = (),
    ) -> PreTrainedModel:
        """The model, on the CPU, its weights drawn from torch's global generator.

        Args:
            head: what the model is for.
            tokenizer: gives the size of the vocabulary and the special tokens.
            max_length: the longest sample, in tokens.
            labels: names of the classes, for a classifier.

        Raises:
            ConfigError: see `check`; or transformers refuses the combination.
        """
        self.check(head, max_length=max_length)
        fields = token_fields(tokenizer) | {"is_decoder": head == "causal"}
        if head == "classifier":
            fields |= label_fields(labels)
        with refusing(self._not_built):
            model = self._build(head, fields, max_length)
        set_generation(model, tokenizer)
        return model

    def _not_built(self, reason: str) -> str:
        return f"model: transformers cannot build {self.architecture} of these dimensions: {reason}"

    def _build(self, head: Head, fields: dict[str, Any], max_length: int) -> PreTrainedModel:
        make = partial(
            AUTO_CLASSES[head].from_config,
            self.configure(fields, max_length),
            dtype=torch.float32,
            attn_implementation=choose_attention(self.attention, max_length),
        )
        initializer = Initializer(self.init_seeding)
        model = initializer.build(make)
        with with_weights(model) as tried:
            if head == "causal" and tried is not None:
                check_causal(tried)
            freeze(model, head, max_length, tried)
        if self.init == "scaled":
            with initializer.drawing(model):
                scale_weights(model)
        if self.parametrization != "standard":
            self._parametrize(model, fields, max_length)
        add_residual_dropout(model, self.dropout)
        restrict_dropout(model)
        if self.activation_checkpointing is True:  # what `auto` is, the plan settles
            recompute_layers(model)
        return model

    def _parametrize(self, model: PreTrainedModel, fields: dict[str, Any], max_length: int) -> None:
        with torch.device("meta"), no_init_weights():
            base = type(model)(self._base().configure(fields, max_length))
        base_depth = self.base_depth if self.parametrization == "completep" else None
        depth_ratio = self.depth / (base_depth or self.depth)
        parametrize(model, base, depth_ratio, scaled=self.init == "scaled")

    def configure(self, fields: dict[str, Any], max_length: int) -> PreTrainedConfig:
        """The architecture's configuration, from the data's fields and this description."""
        found = config_class(self._text_part)
        if self.tie_embeddings is not None:
            fields = fields | {"tie_word_embeddings": self.tie_embeddings}
        dimensions = self._dimensions(max_length, pad=fields["pad_token_id"])
        tokens = {name: fields[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        values = tokens | self._values(found, fields, dimensions, self.config)
        config = found(**values)
        if fields["is_decoder"]:
            attention_too = attention_fields(config, self.config)
            config = found(**values | attention_too) if attention_too else config
        if config.is_encoder_decoder:  # T5 reads it, and does not declare it
            start = fields.get(STARTS.get(config.model_type, ""))
            pad = fields["decoder_start_token_id"]
            config.decoder_start_token_id = pad if start is None else start
        check_dimensions(config, dimensions)
        self._check_positions(config, max_length)
        tied = getattr(config, "tie_word_embeddings", None)
        if self.tie_embeddings not in (None, tied):
            raise ConfigError(
                f"model.tie_embeddings={self.tie_embeddings}: {self.architecture} always has "
                f"{tied}. Leave it out."
            )
        return config

    def _check_positions(self, config: PreTrainedConfig, max_length: int) -> None:
        given = next((name for name in NAMES["context"] if name in self.config), None)
        limit = positions(config)
        if given and limit is not None and limit < max_length:
            raise ConfigError(
                f"model.config.{given}={self.config[given]} is too few positions for "
                f"data.max_length={max_length}. Leave it out, or set data.max_length={limit} or "
                "less."
            )

    def _values(
        self,
        config: type[PreTrainedConfig],
        fields: dict[str, Any],
        dimensions: Dimensions,
        given: dict[str, Any],
    ) -> dict[str, Any]:
        """What a configuration class is called with; and those of its parts, in their fields."""
        known = known_fields(config)
        data = {
            name: fields["pad_token_id"]
            if value is None and not takes_none(config, name)
            else value
            for name, value in fields.items()
            if name in known
        }
        values = (
            data
            | dropout_fields(config, self.dropout)
            | dimensions.fields(config, given)
            | copy.deepcopy(given)
        )
        for name in PARTS.get(config.model_type, ()):
            part = config.sub_configs[name]
            values[name] = self._values(part, fields, dimensions, given.get(name) or {})
        return values

    @property
    def _text_part(self) -> str:
        return text_part(self.architecture)

    def _dimensions(self, max_length: int, pad: int = 0) -> Dimensions:
        return Dimensions(
            depth=self.depth,
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            context=(self.context or max_length) + unused_positions(self._text_part, pad),
        )


def miniature(config: PreTrainedConfig, head: Head) -> PreTrainedModel:
    """A small model of the architecture of another, to be tried; its choices are the other's.

    Args:
        config: The other's configuration.
        head: What it is for.
    """
    known = known_fields(type(config))
    # Whatever is no number of layers, features or tokens.
    choices = {name: getattr(config, name, None) for name in known}
    choices = {k: v for k, v in choices.items() if isinstance(v, bool | float | str)}
    small = Scratch(
        architecture=config.model_type, depth=4, width=64, heads=4, context=32, config=choices
    )
    fields = {
        **dict.fromkeys(VOCABULARY, 64),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
        "is_decoder": head == "causal",
        **(label_fields(["a", "b"]) if head == "classifier" else {}),
    }
    model: PreTrainedModel = AUTO_CLASSES[head].from_config(
        small.configure(fields, 16),
        dtype=torch.float32,
        attn_implementation=attention(config),
    )
    return model
