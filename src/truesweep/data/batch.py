"""Batches, and how one is split into micro-batches.

A batch is what one rank gets of one optimizer step, as a plain dict. In every batch:

- `size`: samples of the whole optimizer step, over all ranks;
- `index`: the place of each row's sample in the split (no entry for a row that only fills up);
- `lengths`: tokens of each row of `input_ids`, without padding (0 in a row that only fills up);
- `input_ids` [B, T], and `attention_mask` [B, T] (1: a token, 0: padding).

The other keys belong to a kind of data: see `causal`, `masked`, `seq2seq` and `datasets`.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from truesweep.metrics.likelihood import IGNORED

Batch = dict[str, Any]


class Step(NamedTuple):
    """This rank's share of one batch.

    Attributes:
        indices: The samples of this rank; none where the others have taken all.
        size: Samples over all ranks.
    """

    indices: list[int]
    size: int


def mask(lengths: Sequence[int] | npt.NDArray[np.int64], width: int) -> torch.Tensor:
    """Mark the tokens of rows of these lengths: int64 [B, width].

    An empty row keeps its first place: attention over nothing at all is not a number.
    """
    kept = torch.as_tensor(lengths).clamp(min=1)
    return (torch.arange(width) < kept[:, None]).long()


def filler(batch: Batch) -> Batch:
    """A batch of one row and one token that counts for nothing: its labels are all ignored.

    It keeps ranks in step that have no sample left while others do: sharded models need every
    rank in every forward pass.
    """
    return {key: _blank(key, value) for key, value in batch.items()}


def _blank(key: str, value: Any) -> Any:
    if key == "labels":
        return torch.full_like(value[:1, :1] if value.dim() > 1 else value[:1], IGNORED)
    if isinstance(value, torch.Tensor):
        return value[:1, :1] if value.dim() > 1 else value[:1]
    if key in ("lengths", "target_lengths"):
        return [0]
    return [] if isinstance(value, list) else value


def interleave(parts: Sequence[tuple[npt.NDArray[np.int64], Batch]], pad_id: int) -> Batch:
    """One batch of the rows of several, without its `index`; it is as wide as the widest.

    Args:
        parts: Batches with the same keys, of which one or the other may have no `attention_mask`
            as it has no padding; and where in the whole the rows of each stand.
        pad_id: The pad token.
    """
    batches = [batch for _, batch in parts]
    if len(parts) == 1:
        return batches[0]
    widths = {batch["input_ids"].shape[1] for batch in batches}
    if "position_ids" not in batches[0] and (len(widths) > 1 or any(map(_is_masked, batches))):
        batches = [_masked(batch) for batch in batches]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    whole: Batch = {}
    for key in batches[0].keys() - {"index"}:
        values = [batch[key] for batch in batches]
        if isinstance(values[0], torch.Tensor):
            whole[key] = _widened(values, _FILL.get(key, 0 if "mask" in key else pad_id))[order]
        else:
            rows = list(chain.from_iterable(values))
            whole[key] = [rows[place] for place in order]
    return whole


_FILL = {"labels": IGNORED, "position_ids": 0}


def _is_masked(batch: Batch) -> bool:
    return "attention_mask" in batch


def _masked(batch: Batch) -> Batch:
    if _is_masked(batch):
        return batch
    return {**batch, "attention_mask": mask(batch["lengths"], batch["input_ids"].shape[1])}


def _widened(tensors: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """Rows of all tensors, filled up to one width."""
    if tensors[0].dim() == 1:
        return torch.cat(list(tensors))
    width = max(tensor.shape[1] for tensor in tensors)
    rows = [tensor.new_full((len(tensor), width, *tensor.shape[2:]), fill) for tensor in tensors]
    for wide, tensor in zip(rows, tensors, strict=True):
        wide[:, : tensor.shape[1]] = tensor
    return torch.cat(rows)


def micro_batch_count(size: int, world_size: int, micro_batch_size: int) -> int:
    """Micro-batches of a step of `size` samples: the same number on every rank."""
    largest_share = -(-size // world_size)
    return -(-largest_share // micro_batch_size)


def split(batch: Batch, micro_batch_size: int, count: int) -> Iterator[Batch]:
    """Split a batch into exactly `count` micro-batches, in order.

    Each has at most `micro_batch_size` rows and is as wide as its own longest row. Where rows run
    out, fillers follow. A micro-batch without padding shares the memory of the batch.
    """
    rows = len(batch["lengths"])
    assert rows <= micro_batch_size * count, (rows, micro_batch_size, count)
    for start in range(0, micro_batch_size * count, micro_batch_size):
        if start < rows:
            whole = count == 1
            yield _trim(batch if whole else _take(batch, slice(start, start + micro_batch_size)))
        else:
            yield filler(batch)


def _take(batch: Batch, rows: slice) -> Batch:
    return {k: v[rows] if isinstance(v, torch.Tensor | list) else v for k, v in batch.items()}


def _trim(batch: Batch) -> Batch:
    """Cut columns in which no row has a token."""
    width = max(1, *batch["lengths"])
    target_width = max(1, *batch["target_lengths"]) if "target_lengths" in batch else width
    widths = {
        "input_ids": width,
        "attention_mask": width,
        "position_ids": width,
        "labels": target_width,
        "decoder_input_ids": target_width,
    }
    return {
        key: value[:, : widths[key]].contiguous()
        if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] > widths[key]
        else value
        for key, value in batch.items()
    }
