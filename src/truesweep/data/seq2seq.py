"""Sentence pairs for encoder-decoder models.

A batch holds, besides the keys of every batch (`input_ids` is the source):

- `labels` [B, T]: the target, ended by end-of-sequence and filled up with -100;
- `decoder_input_ids` [B, T]: the labels moved right behind the decoder's start token;
- `target_lengths`: tokens of each row of `labels`;
- `source` and `reference`: the sentences as text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.batch import Batch, mask
from truesweep.data.datasets import EncodedDataset
from truesweep.data.frames import Frame, target_frame
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Pair
from truesweep.metrics.likelihood import IGNORED


@torch.no_grad()
def learned_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that a model's decoder has learned to start from.

    It is what the model itself puts before labels: for most the token that its configuration names,
    for MBart and its kin the last of the labels, which is the language.

    Args:
        model: An encoder–decoder with weights.
        tokenizer: Puts around the labels what stands around a target.

    Returns:
        The token; None where the model makes nothing of labels.
    """
    frame = target_frame(tokenizer)
    inside = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    row = torch.tensor([[*frame.prefix, inside, inside, *frame.suffix]], device=model.device)
    seen: list[torch.Tensor] = []

    def look(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(named["input_ids"] if "input_ids" in named else given[0])

    hook = model.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    try:
        model(input_ids=row, labels=row)
    except (RuntimeError, TypeError, ValueError):
        return None  # it has no start token to put there
    finally:
        hook.remove()
    return int(seen[0][0, 0]) if seen and torch.is_tensor(seen[0]) else None


class Seq2SeqDataset(EncodedDataset):
    """Source and target sentences, framed and cut after `max_length` tokens each.

    Args:
        pairs: The sentences as text, which translations are compared with.
        rows: The tokens of the sources, and of the targets, without special tokens.
        frames: Special tokens around a source, and around a target.
        max_length: Tokens in a row at most, with the special ones.
        pad_id: The pad token.

    Attributes:
        decoder_start_id: The token that a decoder starts from: the pad token unless the model
            says otherwise, in which case whoever knows the model sets it.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        rows: tuple[Ragged, Ragged],
        frames: tuple[Frame, Frame],
        max_length: int,
        pad_id: int,
    ) -> None:
        self.pairs = pairs
        self.sources, self.targets = rows
        self.frames = frames
        self.max_length = max_length
        self.pad_id = self.decoder_start_id = pad_id
        whole = np.stack([r.lengths + len(f) for r, f in zip(rows, frames, strict=True)])
        # The longer side: sorted by it, Multi30k pads 10 % in batches of 64; by the sum, 18 %.
        seen = np.minimum(whole, max_length)
        self.lengths = seen.max(axis=0)
        self.tokens_per_target = int(seen.sum()) / max(1, int(seen[1].sum()))
        self.longest = int(whole.max(initial=0))
        self.truncated = int(np.count_nonzero((whole > max_length).any(axis=0)))
        self.cut = int((whole - seen).sum())

    def collate(self, indices: Sequence[int]) -> Batch:
        """Pairs below each other: sources [B, S], targets [B, T]."""
        (source_frame, target_frame), limit = self.frames, self.max_length
        sources, lengths = source_frame.table(self.sources, indices, limit, self.pad_id)
        targets, target_lengths = target_frame.table(self.targets, indices, limit, self.pad_id)
        labels = torch.from_numpy(targets)
        ignored = torch.arange(labels.shape[1]) >= torch.from_numpy(target_lengths)[:, None]
        return {
            "index": list(indices),
            "input_ids": torch.from_numpy(sources),
            "attention_mask": mask(lengths, sources.shape[1]),
            "labels": labels.masked_fill(ignored, IGNORED),
            "decoder_input_ids": self._decoder_inputs(labels),
            "lengths": lengths.tolist(),
            "target_lengths": target_lengths.tolist(),
            "source": [self.pairs[i].source for i in indices],
            "reference": [self.pairs[i].target for i in indices],
        }

    def _decoder_inputs(self, targets: torch.Tensor) -> torch.Tensor:
        inputs = targets.roll(1, dims=1)
        inputs[:, 0] = self.decoder_start_id
        return inputs
