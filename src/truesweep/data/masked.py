"""Texts of which a model is to find tokens that are hidden from it, from what stands on both sides.

A batch holds, besides the keys of every batch, `labels` [B, T]: the tokens themselves, -100 in the
place of special ones. Which of them are hidden, the task decides: at each step others.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from transformers import AddedToken, PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.datasets import EncodedDataset, FramedDataset
from truesweep.data.encode import encode
from truesweep.data.frames import Frame, input_frame
from truesweep.data.kinds import EncodedSplit, TextKind
from truesweep.data.ragged import Ragged
from truesweep.errors import ConfigError
from truesweep.metrics.likelihood import IGNORED

MASK = "[MASK]"
"""The mask token of a tokenizer that has none of its own."""


class MaskedDataset(FramedDataset):
    """Texts whose every token, but for special ones, is a target if it is hidden.

    Args:
        texts: The tokens of the texts, without special tokens.
        frame: Special tokens around a text.
        max_length: Tokens in a row at most, with the special ones.
        tokenizer: Gives the pad token, and says which tokens are special.
        padded: Whether rows differ in length.
    """

    def __init__(
        self,
        texts: Ragged,
        frame: Frame,
        max_length: int,
        tokenizer: PreTrainedTokenizerBase,
        padded: bool,
    ) -> None:
        super().__init__(texts, frame, max_length, int(tokenizer.pad_token_id))
        self.special = np.array(tokenizer.all_special_ids)
        self.padded = padded

    def collate(self, indices: Sequence[int]) -> Batch:
        """Texts below each other, [B, longest of them]."""
        batch = self.rows(indices)
        special = torch.from_numpy(np.isin(batch["input_ids"].numpy(), self.special))
        return {**batch, "labels": batch["input_ids"].masked_fill(special, IGNORED)}


class MaskedTextKind(TextKind):
    """Text whose hidden tokens are to be found."""

    packs: ClassVar[tuple[bool | str, ...]] = (True,)
    lossless = False

    def complete(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Add a mask token where there is none."""
        if tokenizer.mask_token is None:
            (letter,) = encode(tokenizer, [" a"])
            # Where a word's token holds the space before it, so does the mask.
            mask = AddedToken(MASK, lstrip=len(letter) == 1, special=True)
            tokenizer.add_special_tokens({"mask_token": mask})
            # So that others, who call the tokenizer as it is, find the mask in a text.
            tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = False
        return tokenizer

    def dataset(self, split: EncodedSplit) -> EncodedDataset:
        """Windows of all texts joined, or each text on its own; both framed."""
        frame, texts = input_frame(split.tokenizer, "text"), split.tokens["text"]
        longest, packed = split.source.max_length, bool(split.source.packing)
        if packed:
            texts = _windows(texts, longest - len(frame))
        return MaskedDataset(texts, frame, longest, split.tokenizer, not packed)


MASKED_TEXT = MaskedTextKind()


def _windows(texts: Ragged, width: int) -> Ragged:
    """All texts as one stream, cut into rows of the same width; the last may be shorter."""
    if width < 1:
        raise ConfigError("data.max_length leaves no room between special tokens. Set a larger one")
    stream = texts.stream
    return Ragged(stream, np.append(np.arange(0, len(stream), width), len(stream)))
