"""Conversations for causal language models, of which only what is to be learned is a target.

A batch holds, besides the keys of every batch:

- `labels` [B, T]: the token after each of `input_ids`, -100 where it is no target;
- `attention_mask` only if the batch has padding;
- `prompts` and `answers`: what comes before the last answer of each conversation, and that, uncut;
- `source`: the text of what comes before it.

A batch of conversations side by side has what one of `causal.Documents` has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.causal import shared_windows, shifted, side_by_side
from truesweep.data.chat_template import (
    LAST,
    OTHER,
    TEMPLATE,
    TrainOn,
    encode_chats,
    plain_texts,
    unwritten_roles,
)
from truesweep.data.datasets import EncodedDataset
from truesweep.data.docstrings import SummaryKind, chats
from truesweep.data.frames import is_ours
from truesweep.data.kinds import EncodedSplit
from truesweep.data.ragged import Ragged, Tokens
from truesweep.data.samples import Chat, Sample
from truesweep.errors import DataError
from truesweep.metrics.likelihood import IGNORED

Truncation = Literal["left", "right"]
"""Which end of a conversation is cut off that is too long."""


class ChatDataset(EncodedDataset):
    """Conversations, each on its own, cut after or before `max_length` tokens.

    Args:
        chats: The conversations.
        tokens: Their tokens.
        marks: What each token is, see `chat_template`.
        max_length: Tokens in a row at most.
        truncation: Which end is cut off.
        pad_id: The pad token.
    """

    def __init__(
        self,
        chats: Sequence[Chat],
        tokens: Ragged,
        marks: Ragged,
        max_length: int,
        truncation: Truncation,
        pad_id: int,
    ) -> None:
        self.pairs = chats
        self.tokens = tokens
        self.marks = marks
        self.pad_id = pad_id
        # A row is read but for its last token, and its first is no target.
        whole = np.maximum(0, tokens.lengths - 1)
        self.lengths = np.minimum(whole, max_length)
        self.starts = tokens.offsets[:-1] + (whole - self.lengths if truncation == "left" else 0)
        self.longest = int(whole.max(initial=0))
        self.cut = int((whole - self.lengths).sum())
        self.is_cut = whole > max_length
        self.truncated = int(self.is_cut.sum())
        before = np.concatenate([[0], np.cumsum(marks.tokens != OTHER)])
        targets = before[self.starts + self.lengths + 1] - before[self.starts + 1]
        self.targets = int(targets.sum())
        self.is_without = targets == 0
        self.without_target = int(self.is_without.sum())
        self.tokens_per_target = int(self.lengths.sum()) / max(1, self.targets)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Conversations below each other, [B, longest of them]."""
        index = np.asarray(indices)
        lengths = self.lengths[index]
        places = self.starts[index][:, None] + np.arange(max(2, int(lengths.max()) + 1))
        rows, marks = (
            ragged.tokens.take(places, mode="clip").astype(np.int64)
            for ragged in (self.tokens, self.marks)
        )
        batch = {"index": list(indices), **shifted(rows, lengths, self.pad_id)}
        batch["labels"][torch.from_numpy(marks[:, 1:] == OTHER)] = IGNORED
        prompts, answers = zip(*(self._last_answer(i) for i in indices), strict=True)
        sources = [self.pairs[i].source for i in indices]
        return {**batch, "prompts": list(prompts), "answers": list(answers), "source": sources}

    def part(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The inputs and labels of a conversation without padding."""
        here = slice(self.starts[i], self.starts[i] + self.lengths[i] + 1)
        row, marks = self.tokens.tokens[here].astype(np.int64), self.marks.tokens[here][1:]
        return row[:-1], np.where(marks == OTHER, IGNORED, row[1:])

    def _last_answer(self, i: int) -> tuple[list[int], list[int]]:
        """The tokens before the last answer of a conversation, and its own."""
        tokens, places = self.tokens[i], np.flatnonzero(self.marks[i] == LAST)
        return tokens[: places[0]].tolist(), tokens[places].tolist()


class PackedChats(EncodedDataset):
    """Conversations put side by side into windows, where each begins anew: none sees another.

    Each stands whole in one window, as it is on its own, in the order of the split; those without
    a target are left out.

    Args:
        chats: The conversations on their own.
        max_length: Tokens in a window at most.
    """

    padded = False

    def __init__(self, chats: ChatDataset, max_length: int) -> None:
        self.chats = chats
        self.pairs = chats.pairs
        self.pad_id = chats.pad_id
        self.longest = chats.longest
        self.truncated, self.cut = chats.truncated, chats.cut
        self.without_target = chats.without_target
        kept = np.flatnonzero(~chats.is_without)
        first, self.lengths = shared_windows(chats.lengths[kept], max_length)
        self.windows = np.split(kept, first[1:-1])
        self.tokens_per_target = int(self.lengths.sum()) / max(1, chats.targets)

    @property
    def scored(self) -> EncodedDataset:
        """Each conversation on its own, since an answer is generated for each."""
        return self.chats

    def places(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The conversations in some windows."""
        return np.concatenate([self.windows[row] for row in rows])

    def collate(self, indices: Sequence[int]) -> Batch:
        """Windows below each other, [B, longest of them]."""
        rows = (map(self.chats.part, self.windows[index].tolist()) for index in indices)
        lengths = self.lengths[np.asarray(indices)]
        return {"index": list(indices), **side_by_side(rows, lengths, self.chats.pad_id)}


@dataclass(frozen=True)
class ChatKind(SummaryKind):
    """Conversations whose answers are to be given; they are compared as summaries are.

    Args:
        train_on: Which tokens are targets.
        truncation: Which end of a conversation is cut off that is too long.
    """

    train_on: TrainOn = "assistant"
    truncation: Truncation = "right"

    name = "chats"
    fields = ("text",)
    marks: ClassVar[tuple[str, ...]] = ("marks",)
    packs: ClassVar[tuple[bool | str, ...]] = ("documents",)
    unit, answer = "conversations", "answer"
    embedded = staticmethod(chats)

    @property
    def settings(self) -> dict[str, Any]:
        """Both."""
        return asdict(self)

    @property
    def encoding(self) -> dict[str, Any]:
        """Marks follow from what is trained on; tokens, maybe, from our own template."""
        return {"train_on": self.train_on, "template": TEMPLATE}

    def complete(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give a tokenizer without a chat template ours; have it read what templates write."""
        if not tokenizer.chat_template:
            tokenizer.chat_template = TEMPLATE
        if is_ours(tokenizer):
            tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = False
        return tokenizer

    def texts(self, samples: Sequence[Sample], template: str | None) -> Iterable[str]:
        """Conversations as a template writes them."""
        return plain_texts(cast(Sequence[Chat], samples), template)

    def marked(
        self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]
    ) -> Mapping[str, Sequence[Tokens]]:
        """Tokens of conversations, and which of them are answers."""
        found = encode_chats(self.complete(tokenizer), cast(Sequence[Chat], samples), self.train_on)
        tokens, marks = zip(*found, strict=True)
        return {"text": tokens, "marks": marks}

    def notes(self, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> Iterable[str]:
        """The roles of which the chat template writes nothing."""
        chats = cast(Sequence[Chat], samples)
        for role in unwritten_roles(tokenizer):
            if count := sum(f'"role": "{role}"' in chat.text for chat in chats):
                yield (
                    f"the chat template writes nothing of messages of the role {role}, which "
                    f"{count:,} of {len(chats):,} conversations have: a model is trained and asked "
                    "without them. Set another tokenizer.chat_template"
                )

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Conversations, each on its own or side by side.

        Raises:
            DataError: Nothing that is to be learned is left of any.
        """
        alone = self.rows(split, "text", "marks")
        packed = split.source.packing in self.packs
        return PackedChats(alone, split.source.max_length) if packed else alone

    def rows(self, split: EncodedSplit, tokens: str, marks: str) -> ChatDataset:
        """The dataset of tokens and marks with these names; raises what `dataset` does."""
        limit = split.source.max_length
        rows = split.tokens[tokens], split.tokens[marks]
        conversations = cast(Sequence[Chat], split.samples)
        found = ChatDataset(conversations, *rows, limit, self.truncation, split.pad_id)
        if not found.targets:
            raise DataError(
                f"the {split.name} split has no answer within data.max_length={limit}: the longest "
                f"conversation has {found.longest} tokens. Set a larger data.max_length"
            )
        return found


CHATS = ChatKind()
