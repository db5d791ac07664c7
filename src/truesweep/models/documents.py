"""Documents side by side in a row, which layers that run over whole rows take one by one.

Attention knows by positions which tokens are of one document. Short convolutions, and the states of
state-space layers and linear attention, run from one document into the next: the layers that hold
them are called with one document a row, and what they make of it is put back in its place. All
else, attention and MLPs, reads the row as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from truesweep.models.adapters import is_wrapper
from truesweep.models.dropout import SampleDropout

_LEAST_CHUNK = 16  # tokens; GPU kernels multiply no smaller matrices


class _Group(NamedTuple):
    """Documents of like length.

    Args:
        rows: The row of each [documents].
        starts: Where in its row each begins [documents].
        tokens: Where in the batch's tokens, one row after the other, theirs are [documents, width].
        inside: Which of those are theirs, and no padding [documents, width].
        kept: Where these are among all [tokens].
    """

    rows: Tensor
    starts: Tensor
    tokens: Tensor
    inside: Tensor
    kept: Tensor


class _Documents:
    """Which documents lie in the rows that a model reads now.

    They are known until it reads others, since layers may be computed again in the backward pass.
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None
        self._order: tuple[list[_Group], Tensor] | None = None

    def note(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at what the model is called with; what it generates has positions of one text."""
        self.positions = None if kwargs.get("use_cache", True) else kwargs.get("position_ids")
        self._order = None

    def order(self) -> tuple[list[_Group], Tensor]:
        """The documents by length, and where in these groups each of the batch's tokens is.

        A group has those of up to 1 token, 2, 4 and so on: less than half of it is padding.
        """
        if self._order is None:
            assert self.positions is not None
            groups = list(_groups(self.positions))
            tokens = torch.cat([group.tokens.flatten()[group.kept] for group in groups])
            self._order = groups, tokens.argsort()
        return self._order


def _groups(positions: Tensor) -> Iterator[_Group]:
    rows, length = positions.shape
    first = (positions == 0).index_fill(1, positions.new_zeros(1), True)
    starts = first.flatten().nonzero()[:, 0]
    lengths = torch.diff(starts, append=starts.new_tensor([rows * length]))
    widths = torch.tensor([1 << (n - 1).bit_length() for n in lengths.tolist()])
    for width in widths.unique().tolist():
        chosen = (widths == width).nonzero()[:, 0].to(positions.device)
        begin, offsets = starts[chosen, None], torch.arange(width, device=positions.device)
        inside = offsets < lengths[chosen, None]
        yield _Group(
            rows=begin[:, 0] // length,
            starts=begin[:, 0] % length,
            tokens=torch.where(inside, begin + offsets, begin),
            inside=inside,
            kept=inside.flatten().nonzero()[:, 0],
        )


def take_one_by_one(model: PreTrainedModel) -> bool:
    """Have a model's layers with convolutions take the documents of a row one by one.

    From then on, a call with `position_ids` and `use_cache=False` has a document begin wherever
    the position is 0. The names of weights stay; nothing is saved of it. As its shapes follow from
    the documents, torch's compiler leaves these layers out.

    Returns:
        Whether it has such layers.
    """
    layers = [
        module
        for module in model.modules()
        if not is_wrapper(module) and any(map(_convolves, module.children()))
    ]
    documents = _Documents()
    model.register_forward_pre_hook(documents.note, with_kwargs=True)
    for layer in layers:
        layer.forward = partial(_one_by_one, layer.forward, layer, documents)
    return bool(layers)


def _convolves(module: nn.Module) -> bool:
    """Whether it is a convolution, or what an adapter has put in the place of one."""
    if is_wrapper(module):
        return any(map(_convolves, module.children()))
    return isinstance(module, nn.Conv1d)


@torch.compiler.disable
def _one_by_one(
    forward: Callable[..., Any],
    layer: nn.Module,
    documents: _Documents,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """What a layer makes of tokens [rows, length, features], each document by itself."""
    positions = documents.positions
    if positions is None:
        return forward(*args, **kwargs)
    groups, back = documents.order()
    dropout = SampleDropout.current()
    places = [(group.rows, group.starts) for group in groups]
    made: list[tuple[Any, ...]] = []
    for group, _ in zip(groups, dropout.parts(places) if dropout else places, strict=True):
        # Documents are padded behind their end only, and layers look back only: no mask is needed.
        take = partial(_take, group=group, shape=positions.shape)
        named = {key: None if "mask" in key else take(value) for key, value in kwargs.items()}
        with _in_small_chunks(layer, group.tokens.shape[1]):
            found = forward(*map(take, args), **named)
        several = found if isinstance(found, tuple) else (found,)
        made.append(tuple(v if v is None else v.flatten(0, 1)[group.kept] for v in several))
    whole = tuple(
        None if parts[0] is None else torch.cat(parts)[back].unflatten(0, positions.shape)
        for parts in zip(*made, strict=True)
    )
    return whole if isinstance(found, tuple) else whole[0]


@contextmanager
def _in_small_chunks(layer: nn.Module, width: int) -> Iterator[None]:
    """Have a state-space layer pad rows to no more than their width, if they are short.

    It takes a row in chunks, of 256 tokens by default, and memory by their square.
    """
    chunk = getattr(layer, "chunk_size", None)
    if chunk is None:
        yield
        return
    layer.chunk_size = min(chunk, max(width, _LEAST_CHUNK))
    try:
        yield
    finally:
        layer.chunk_size = chunk


def _take(value: Any, group: _Group, shape: Sequence[int]) -> Any:
    """Of what a layer is given for each token [rows, length, …], that of a group's documents."""
    if not isinstance(value, Tensor) or tuple(value.shape[:2]) not in (tuple(shape), (1, shape[1])):
        return value
    every = value.expand(*shape, *value.shape[2:])  # positions are given once for all rows
    inside = group.inside[(..., *[None] * (value.dim() - 2))]
    return torch.where(inside, every.flatten(0, 1)[group.tokens], 0)
