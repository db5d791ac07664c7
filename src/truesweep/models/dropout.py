"""One dropout rate, whatever an architecture calls its own, with masks that belong to samples.

No split of a batch changes what is dropped.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.library import custom_op
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig, PreTrainedModel

from truesweep.compat import attention, checkpoint_layers
from truesweep.errors import ConfigError
from truesweep.models.init import residual_writers

Twice = bool | Literal["auto"]
"""Whether layers are computed once more in the backward pass."""
_RATE = re.compile(r"(^|_)(dropout|pdrop)(_prob|_rate|_p)?$")
_ON_ATTENTION = re.compile(r"^att(entio)?n_")
_POSITIONS_FIRST = {"xlnet", "fsmt"}  # tensors of theirs are [positions, samples, features]
_ON_RESIDUALS = {
    *("resid_pdrop", "resid_dropout", "residual_dropout", "hidden_dropout_prob", "hidden_dropout"),
    *("dropout", "dropout_rate", "dropout_p", "mlp_dropout"),
}


def dropout_fields(config: type[PreTrainedConfig], rate: float) -> dict[str, Any]:
    """The rate for every dropout of a configuration, of its embeddings, attention, residuals, head.

    Dropout inside an MLP's activation keeps the architecture's own rate, which is 0.
    """
    return {
        field.name: rate
        for field in fields(config)
        if _RATE.search(field.name)
        and field.name != "activation_dropout"
        and not isinstance(field.default, bool)
    }


def check_layerdrop(given: Mapping[str, Any]) -> None:
    """Raise a `ConfigError` if whole layers shall be dropped."""
    for name, value in given.items():
        if "layerdrop" in name and value:
            raise ConfigError(
                f"model.config.{name}={value}: which layers are dropped would depend on how a "
                "batch is split. Remove it."
            )


def add_residual_dropout(model: PreTrainedModel, rate: float) -> None:
    """Drop features of what is added to the residual stream where the architecture drops none.

    Llama and its descendants have dropout on attention weights at most. It is added by hooks, so
    that the names of weights stay those of transformers; it is not part of a saved model.

    Raises:
        ConfigError: it is not known which layers write into the residual stream.
    """
    names = {field.name for field in fields(type(model.config))}
    if rate == 0 or names & _ON_RESIDUALS:
        return
    writers = residual_writers(model)
    if not writers:
        raise ConfigError(
            f"model.dropout={rate}: {model.config.model_type} has no dropout of its own. "
            "Set model.dropout=0."
        )
    model.residual_dropout = rate  # type: ignore[assignment]
    for writer in writers:
        writer.register_forward_hook(partial(_drop, rate=rate))


def restrict_dropout(model: PreTrainedModel) -> None:
    """Leave only dropout that `SampleDropout` can replace; whole layers (BART's) are kept.

    Raises:
        ConfigError: some other dropout is on, so that results would depend on how batches split.
    """
    for module in model.modules():
        if getattr(module, "layerdrop", 0):
            module.layerdrop = 0.0  # type: ignore[assignment]
    config, dropped = model.config, _dropped(model)
    if dropped and config.model_type in _POSITIONS_FIRST:
        raise ConfigError(
            f"model.dropout: what {config.model_type} drops would depend on how a batch is split. "
            "Set model.dropout=0, or another model."
        )
    on_attention = any(_ON_ATTENTION.match(name) for name in dropped)
    if on_attention and attention(config) == "flash_attention_2":
        raise ConfigError(
            "model.attention=flash_attention_2: what it drops of the attention's weights would "
            "depend on how a batch is split. Set model.attention=sdpa."
        )


def drops(model: PreTrainedModel) -> bool:
    """Whether a model drops anything while it is trained."""
    own = any(isinstance(module, nn.Dropout) and module.p for module in model.modules())
    return own or bool(getattr(model, "residual_dropout", 0)) or bool(_dropped(model))


def _dropped(model: PreTrainedModel) -> list[str]:
    """The rates of a model's configuration that are not nought, by name."""
    names = [field.name for field in fields(type(model.config)) if _RATE.search(field.name)]
    return [name for name in names if getattr(model.config, name, None)]


def _drop(module: nn.Module, _inputs: Any, output: Tensor, *, rate: float) -> Tensor:
    return functional.dropout(output, rate, module.training)


_GOLDEN = 0x9E3779B9 - 2**32  # 2^32 over the golden ratio, as int32: spreads consecutive numbers
_FACTORS = 0x7FEB352D, 0x846CA68B - 2**32
_SHARES = 2**16  # a rate is rounded to one of these


class SampleDropout(TorchFunctionMode):
    """Within it, a model's dropout depends on what is dropped, and on no generator.

    Whether an element is dropped is a hash of the seed, the optimizer step, the sample's place in
    its split, the number of the dropout in the forward pass, and the element's position in the
    sample. So it depends neither on the size of micro-batches nor on the number of ranks, nor on
    padding.

    It stands in for `functional.dropout`, and with it for `nn.Dropout`, wherever a model calls
    them, and for dropout of the weights in `scaled_dot_product_attention`. That is then computed
    one operation at a time: fused kernels draw masks of their own.

    The first dimension of what is dropped must count samples, or samples times heads, positions
    or the like. It is left to `restrict_dropout` to refuse what is otherwise. Other
    random numbers of a model, such as the jitter of some routers of experts, are not replaced.
    Layers that are computed once more in the backward pass draw their masks again by `twice`.
    """

    _entered: ClassVar[list["SampleDropout"]] = []

    def __init__(self) -> None:
        super().__init__()
        self._first = self._keys = torch.zeros(1, dtype=torch.int32)
        self._idle = False

    def of(
        self, seed: int, step: int, samples: Sequence[int], device: torch.device
    ) -> AbstractContextManager[Any]:
        """The context of one forward pass; an empty one if the pass before dropped nothing.

        Standing between a small model and torch takes up to a twentieth of its time.

        Args:
            seed: The run's seed.
            step: Optimizer steps so far.
            samples: The place in its split of each sample of the micro-batch; none for a filler.
            device: Where the model is.
        """
        if self._idle:
            return nullcontext()
        self._first = self._keys = _keys_of((seed, step), samples, device)
        return self

    def __enter__(self) -> "SampleDropout":
        """Begin the forward pass."""
        super().__enter__()
        self._entered.append(self)
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: Any) -> None:
        """End the forward pass."""
        self._entered.pop()
        super().__exit__(error, *rest)
        self._idle = error is None and self._keys is self._first

    @classmethod
    def current(cls) -> "SampleDropout | None":
        """The one that stands in for torch's now."""
        return cls._entered[-1] if cls._entered else None

    def parts(self, places: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
        """Have a layer draw for parts of samples, each in a row of its own, some at a time.

        For each of these it drops as often, and what comes after drops as if it had been once.

        Args:
            places: Of the parts at a time, the sample of each, and where in it the part begins.
        """
        before = after = self._keys
        for samples, starts in places:
            own = self._keys = _mix(before[samples] + starts.to(torch.int32) * _GOLDEN)
            yield
            if self._keys is not own:
                after = before + (self._keys[:1] - own[:1])
        self._keys = after

    def twice(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """The contexts of a layer's forward pass, and of the one that repeats it.

        torch's `checkpoint` asks for them as the layer's turn comes.
        """
        return nullcontext(), nullcontext() if self._idle else self._again(self._keys)

    @contextmanager
    def _again(self, keys: Tensor) -> Iterator[None]:
        before = self._first, self._keys, self._idle
        self._keys = keys
        try:
            with self:
                yield
        finally:
            self._first, self._keys, self._idle = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, or what stands in for it."""
        if func is functional.dropout:
            func = self._dropout
        elif func is functional.scaled_dot_product_attention:
            func = self._attention
        return func(*args, **(kwargs or {}))

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        rows = len(self._keys)
        if len(input) % rows:
            raise ConfigError(
                f"model.dropout: this architecture mixes samples before it drops features (a "
                f"tensor of shape {list(input.shape)} for {rows} samples). Set model.dropout=0."
            )
        self._keys = self._keys + _GOLDEN
        dropped = min(round(p * _SHARES), _SHARES - 1)
        keep: Tensor = _keep(self._keys, [len(input) // rows, *input.shape[1:]], dropped)
        return input * keep.flatten(0, 1).to(input.dtype) * (_SHARES / (_SHARES - dropped))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p == 0:
            return functional.scaled_dot_product_attention(
                *(query, key, value, attn_mask, dropout_p, is_causal),
                scale=scale,
                enable_gqa=enable_gqa,
            )
        if enable_gqa:
            shared = query.shape[-3] // key.shape[-3]
            key, value = (t.repeat_interleave(shared, dim=-3) for t in (key, value))
        scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.mT
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # Not minus infinity: a row of padding may attend to nothing at all.
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        wide = torch.promote_types(query.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=wide).to(query.dtype)
        return self._dropout(weights, dropout_p) @ value


def recompute_layers(model: PreTrainedModel, dropout: SampleDropout | None = None) -> None:
    """Have a model in training keep what its layers are given, and compute them once more.

    Args:
        model: It has layers that transformers can repeat in the backward pass.
        dropout: What draws its masks, if it is not compiled: torch's compiler takes no such
            contexts.

    Raises:
        ConfigError: transformers cannot.
    """
    contexts = {} if dropout is None else {"context_fn": dropout.twice}
    try:
        checkpoint_layers(model, {"use_reentrant": False, **contexts})
    except ValueError:
        raise ConfigError(
            f"model.activation_checkpointing=true: transformers cannot compute the layers of "
            f"{model.config.model_type} twice. Set model.activation_checkpointing=false"
        ) from None


def recomputes_layers(model: PreTrainedModel) -> bool:
    """Whether a model in training computes its layers once more in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def draw(
    entropy: Sequence[int], samples: Sequence[int], shape: Sequence[int], device: torch.device
) -> Tensor:
    """Numbers for samples, uniform over all of int32 [samples, *shape].

    They depend on the entropy, the sample and the position in it, and on no generator; nor do
    extents matter to what is within them.

    Args:
        entropy: Such as the run's seed, the step, and what they are drawn for.
        samples: The place in its split of each sample; none for a filler, which gets a row.
        shape: What each sample gets.
        device: Where they are made.
    """
    keys = _keys_of(entropy, samples, device)
    for extent in shape:
        keys = _mix(_numbered(keys, extent))
    return keys


def _keys_of(entropy: Sequence[int], samples: Sequence[int], device: torch.device) -> Tensor:
    """A key for each sample, int32."""
    state = np.random.SeedSequence(tuple(entropy)).generate_state(2, np.uint32)
    first, second = state.view(np.int32).tolist()
    places = torch.tensor(samples or [0], dtype=torch.int32)
    keys = _mix(_mix(places + first) + second)
    # A copy from pinned memory is not waited for.
    return (keys.pin_memory() if device.type == "cuda" else keys).to(device, non_blocking=True)


# One operation to the compiler, which would write out each hash of a hash twice, and so on.
@custom_op("truesweep::keep", mutates_args=())
def _keep(keys: Tensor, shape: Sequence[int], dropped: int) -> Tensor:
    """Which elements of each sample stay: bool [rows, *shape].

    Each dimension but the last is hashed into the keys; along the last, one hash of 32 bits
    decides for two elements. The extents do not matter to what is within them: padding does not.

    Args:
        keys: The samples', int32 [rows].
        shape: Extents of what a sample has, two or more.
        dropped: The share to be dropped, times 2^16.
    """
    keys = _mix(keys)
    *outer, last = shape
    for extent in outer:
        keys = _mix(_numbered(keys, extent))
    words = _numbered(keys, (last + 1) // 2)
    # One round less than `_mix`: the keys are mixed well, and this is what takes the time.
    words.bitwise_xor_(words >> 15).mul_(_FACTORS[1])
    words.bitwise_xor_((words >> 16).bitwise_and_(0xFFFF))
    return words.view(torch.int16)[..., :last] >= dropped - _SHARES // 2


@_keep.register_fake
def _(keys: Tensor, shape: Sequence[int], dropped: int) -> Tensor:
    return keys.new_empty((len(keys), *shape), dtype=torch.bool)


def _numbered(keys: Tensor, extent: int) -> Tensor:
    """A key for each of `extent` places below each key: int32 [*keys, extent]."""
    places = torch.arange(1, extent + 1, dtype=torch.int32, device=keys.device)
    return keys[..., None] + places * _GOLDEN


def _mix(keys: Tensor) -> Tensor:
    """The hash lowbias32 of https://nullprogram.com/blog/2018/07/31/, on int32 that wraps."""
    keys = (keys ^ ((keys >> 16) & 0xFFFF)) * _FACTORS[0]
    keys = (keys ^ ((keys >> 15) & 0x1FFFF)) * _FACTORS[1]
    return keys ^ ((keys >> 16) & 0xFFFF)
