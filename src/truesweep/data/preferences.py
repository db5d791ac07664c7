"""Conversations with two last answers, of which one is better.

A batch holds what every batch does, with the two of a sample behind each other in a last dimension:

- `input_ids`, `attention_mask` and `labels` [B, T, 2]: the better one first, both as wide as the
  longest; `labels` are the last answers' tokens;
- `lengths`: tokens of the longer of the two;
- `reference_chosen` and `reference_rejected` [B]: the log-likelihoods of both last answers under
  the model as it was before the training, where these are kept.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

from truesweep.data.batch import Batch, mask
from truesweep.data.chat_template import encode_chats, named
from truesweep.data.chats import ChatDataset, ChatKind
from truesweep.data.datasets import EncodedDataset
from truesweep.data.docstrings import preferences
from truesweep.data.kinds import EncodedSplit
from truesweep.data.ragged import Tokens
from truesweep.data.samples import Chat, Sample, Splits
from truesweep.data.source import Source
from truesweep.errors import DataError
from truesweep.metrics.likelihood import IGNORED

SIDES = ("chosen", "rejected")


class PreferenceDataset(EncodedDataset):
    """Better and worse conversations side by side.

    Args:
        chosen: The better ones.
        rejected: The worse ones, in the same order.

    Attributes:
        reference: What a batch has of the reference model, [N, 2]; None: nothing.
    """

    reference: npt.NDArray[Any] | None = None

    def __init__(self, chosen: ChatDataset, rejected: ChatDataset) -> None:
        self.sides = chosen, rejected
        self.pad_id = chosen.pad_id
        both = [side.lengths[np.arange(len(side))] for side in self.sides]
        self.lengths = np.maximum(*both)
        self.longest = max(side.longest for side in self.sides)
        self.truncated = int((chosen.is_cut | rejected.is_cut).sum())
        self.cut = chosen.cut + rejected.cut
        self.without_target = int((chosen.is_without | rejected.is_without).sum())
        self.tokens_per_target = int(sum(lengths.sum() for lengths in both)) / max(1, len(chosen))

    @property
    def content(self) -> str:
        """SHA-256 (hexadecimal) of the tokens of all answers and of what comes before them."""
        digest = hashlib.sha256()
        for side in self.sides:
            lengths = side.lengths[np.arange(len(side))]
            for array in (side.starts, lengths, side.tokens.tokens, side.marks.tokens):
                digest.update(f"{array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def collate(self, indices: Sequence[int]) -> Batch:
        """Samples below each other, [B, longest of them, 2]."""
        batches = [side.collate(indices) for side in self.sides]
        lengths = self.lengths[np.asarray(indices)]
        width = max(batch["input_ids"].shape[1] for batch in batches)
        masks = [mask(batch["lengths"], width) for batch in batches]
        kept: dict[str, torch.Tensor] = {}
        if self.reference is not None:
            columns = self.reference[np.asarray(indices)].T
            names = (f"reference_{side}" for side in SIDES)
            kept = {n: torch.from_numpy(c.copy()) for n, c in zip(names, columns, strict=True)}
        return {
            **kept,
            "index": list(indices),
            "lengths": lengths.tolist(),
            "input_ids": _stacked([b["input_ids"] for b in batches], width, self.pad_id),
            "attention_mask": torch.stack(masks, dim=-1),
            "labels": _stacked([b["labels"] for b in batches], width, IGNORED),
        }


def _stacked(rows: Sequence[torch.Tensor], width: int, fill: int) -> torch.Tensor:
    """Rows [B, …] filled up to one width, behind each other: [B, width, 2]."""
    return torch.stack([pad(r, (0, width - r.shape[1]), value=fill) for r in rows], dim=-1)


@dataclass(frozen=True)
class PreferenceKind(ChatKind):
    """Conversations of which a last answer is preferred to another one."""

    marks = ("marks", "rejected", "rejected_marks")
    packs = ()
    embedded = staticmethod(preferences)

    @property
    def encoding(self) -> dict[str, Any]:
        """Both answers are encoded."""
        return {**super().encoding, "sides": SIDES}

    def load(self, source: Source) -> Splits:
        """Load all splits.

        Raises:
            DataError: A conversation has one last answer only.
        """
        splits = super().load(source)
        for name in ("train", "val", "test"):
            for place, chat in enumerate(getattr(splits, name), 1):
                if chat.rejected is None:
                    raise DataError(
                        f"sample {place} of {name}, {named(chat)}, has nothing that is rejected. "
                        "Give columns chosen and rejected: answers to a prompt, or whole "
                        "conversations"
                    )
        return splits

    def notes(self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> Iterable[str]:
        """What those of conversations are; pairs of other questions, and pairs that are none."""
        yield from super().notes(tokenizer, samples)
        pairs = [(chat, chat.rejected) for chat in cast(Sequence[Chat], samples)]
        apart = sum(other is not None and one.source != other.source for one, other in pairs)
        alike = sum(other is not None and one.messages == other.messages for one, other in pairs)
        if apart:
            yield (
                f"{apart:,} of {len(pairs):,} pairs have other texts before the better answer than "
                "before the worse one, so that they say nothing of one question. Mend or remove "
                "them"
            )
        if alike:
            yield f"{alike:,} of {len(pairs):,} pairs have the same answer twice. Remove them"

    def marked(
        self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]
    ) -> Mapping[str, Sequence[Tokens]]:
        """Tokens of both conversations, and which of them are last answers."""
        chosen = cast(Sequence[Chat], samples)
        rejected = [cast(Chat, chat.rejected) for chat in chosen]
        tokens, marks, worse, worse_marks = (
            column
            for side in (chosen, rejected)
            for column in zip(
                *encode_chats(self.complete(tokenizer), side, "completion"), strict=True
            )
        )
        return {"text": tokens, "marks": marks, "rejected": worse, "rejected_marks": worse_marks}

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Both conversations of each sample.

        Raises:
            DataError: Nothing that is to be compared is left of any.
        """
        better = self.rows(split, "text", "marks")
        return PreferenceDataset(better, self.rows(split, "rejected", "rejected_marks"))


PREFERENCES = PreferenceKind("completion")
