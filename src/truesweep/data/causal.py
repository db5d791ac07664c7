"""Text for causal language models. The shift of the labels is made here and nowhere else.

A batch holds, besides the keys of every batch:

- `labels` [B, T]: the token after each of `input_ids`, -100 where there is none;
- `attention_mask` only if the batch has padding;
- `position_ids` [B, T] instead, of documents side by side: each begins at 0, and so does padding.
  Models make of them which tokens may see each other.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from truesweep.data.batch import Batch, mask
from truesweep.data.datasets import EncodedDataset, Joined
from truesweep.data.frames import Frame
from truesweep.data.ragged import EvenLengths, Ragged, Tokens, count_tokens
from truesweep.metrics.likelihood import IGNORED

_AT_ONCE = 1 << 16  # texts that are put into windows at once
_TOKENS_AT_ONCE = 1 << 20  # tokens that are counted at once


class CausalDataset(EncodedDataset):
    """Text whose every token, given those before it in its window, is a target.

    Attributes:
        bytes_per_target: UTF-8 bytes of the text that is scored over the number of targets, so
            that bits per byte are loss / ln 2 / bytes_per_target.
    """

    bytes_per_target: float

    @property
    def targets(self) -> int:
        """Targets in one pass over the split."""
        return int(self.lengths.sum())


class Windows(CausalDataset):
    """Texts joined into one stream and cut into windows: no padding but in the last one.

    Window i has the inputs `stream[i·L : i·L+L]` and the labels one further on: in one pass each
    token of the stream but the first is a target exactly once.

    Args:
        texts: The tokens of the texts.
        text_bytes: UTF-8 bytes of the texts.
        max_length: Targets in a window, L.
        tokenizer: Gives the pad token, and the bytes of the token that is no target.
    """

    padded = False
    truncated = cut = 0

    def __init__(
        self,
        texts: Ragged,
        text_bytes: int,
        max_length: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.texts = texts
        self.stream = texts.stream
        self.max_length = max_length
        self.pad_id = tokenizer.pad_token_id
        targets = max(0, len(self.stream) - 1)
        self.lengths = EvenLengths(targets, max_length)
        self.longest = self.lengths.max()
        unscored = token_bytes(tokenizer, self.stream[:1])
        self.bytes_per_target = (text_bytes - unscored) / max(1, targets)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Windows side by side, [B, max_length]."""
        lengths = self.lengths[indices]
        width = int(lengths.max())
        places = np.asarray(indices)[:, None] * self.max_length + np.arange(width + 1)
        rows = self.stream[np.minimum(places, len(self.stream) - 1)].astype(np.int64)
        return {"index": list(indices), **shifted(rows, lengths, self.pad_id)}

    def target_counts(self, classes: int) -> npt.NDArray[np.int64]:
        """Those of all tokens, but for the first one and what stands behind the last text."""
        counts = np.pad(self.texts.counts, (0, classes - len(self.texts.counts)))
        for token in (*self.stream[:1], *self.texts.tokens[len(self.stream) :]):
            counts[token] -= 1
        return counts


class Documents(CausalDataset):
    """Texts put side by side into windows, where each begins anew: none sees another.

    Texts are framed as `Rows` frames them. What is longer than a window is cut into windows, each
    of which begins anew; what is left of it, or shorter, goes into the window that the last one
    went into, as long as there is room. In one pass each token of a framed text but its first is a
    target exactly once.

    Args:
        texts: The tokens of the texts, without special tokens.
        text_bytes: UTF-8 bytes of the texts.
        max_length: Targets in a window at most.
        frame: Special tokens around a text. Without one in front, its first token is no target.
        tokenizer: Gives the pad token, and the bytes of tokens that are no targets.
    """

    padded = False
    truncated = cut = 0

    def __init__(
        self,
        texts: Ragged,
        text_bytes: int,
        max_length: int,
        frame: Frame,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.texts = texts
        self.frame = frame
        self.max_length = max_length
        self.pad_id = tokenizer.pad_token_id
        self._put_into_windows()
        unscored = told_bytes(tokenizer, first_tokens(texts)) if not frame.prefix else 0
        self.bytes_per_target = (text_bytes - unscored) / max(1, self.targets)

    def _targets(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Targets in each of the texts from one to another."""
        lengths = np.diff(self.texts.offsets[start : stop + 1]) - self.texts.gap
        targets: npt.NDArray[np.int64] = np.maximum(0, lengths + len(self.frame) - 1)
        return targets

    def _put_into_windows(self) -> None:
        """Find out where windows begin; what is held is of windows and not of texts."""
        self.longest = 0
        long, filled = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        firsts, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        texts, rests = firsts[0], lengths[0]  # those of the last window, which has room maybe
        for start in range(0, len(self.texts), _AT_ONCE):
            targets = self._targets(start, min(start + _AT_ONCE, len(self.texts)))
            self.longest = max(self.longest, int(targets.max()))
            whole, rest = np.divmod(targets, self.max_length)
            (found,), (some,) = whole.nonzero(), rest.nonzero()
            long.append(start + found)
            filled.append(whole[found])
            texts = np.concatenate([texts, start + some])
            rests = np.concatenate([rests, rest[some]])
            begin, sums = shared_windows(rests, self.max_length)
            firsts.append(texts[begin[:-2]])
            lengths.append(sums[:-1])
            last = int(begin[-2:][0])
            texts, rests = texts[last:], rests[last:]
        firsts += [texts[:1], np.array([len(self.texts)])]
        lengths.append(rests.sum(keepdims=True)[: len(texts)])
        # Windows that one text fills come first: of which texts, and where those of each end.
        self._long, self._filled = np.concatenate(long), np.cumsum(np.concatenate(filled))
        # Texts that share windows: with which one each begins.
        self._firsts = np.concatenate(firsts)
        of_one = np.full(self._filled[-1:].sum(), self.max_length)
        self.lengths = np.concatenate([of_one, *lengths])

    def collate(self, indices: Sequence[int]) -> Batch:
        """Windows below each other, [B, longest of them]."""
        rows = (((part[:-1], part[1:]) for part in self._parts(index)) for index in indices)
        return {
            "index": list(indices),
            **side_by_side(rows, self.lengths[list(indices)], self.pad_id),
        }

    def _parts(self, window: int) -> Iterator[npt.NDArray[np.int64]]:
        """What stands in a window of each text in it: its inputs, and the last target."""
        filled = len(self.lengths) - len(self._firsts) + 1
        if window < filled:
            place = int(np.searchsorted(self._filled, window, side="right"))
            before = int(self._filled[place - 1]) if place else 0
            yield self._part(int(self._long[place]), window - before)
            return
        start, stop = self._firsts[window - filled : window - filled + 2].tolist()
        for text, targets in enumerate(self._targets(start, stop).tolist(), start):
            if targets % self.max_length:
                yield self._part(text, targets // self.max_length)

    def _part(self, text: int, number: int) -> npt.NDArray[np.int64]:
        """A framed text from a multiple of the window's length on, as far as a window goes."""
        tokens, prefix = self.texts[text], self.frame.prefix
        start = number * self.max_length
        stop = start + self.max_length + 1
        places = (max(0, place - len(prefix)) for place in (start, stop))
        after = (max(0, place - len(prefix) - len(tokens)) for place in (start, stop))
        return np.concatenate(
            [
                np.array(prefix[start:stop], dtype=np.int64),
                tokens[slice(*places)],
                np.array(self.frame.suffix[slice(*after)], dtype=np.int64),
            ]
        )


class Rows(CausalDataset):
    """Each text on its own, framed and cut after `max_length` targets.

    Args:
        texts: The tokens of the texts, without special tokens.
        text_bytes: UTF-8 bytes of the texts.
        max_length: Targets in a row at most.
        frame: Special tokens around a text. Without one in front, its first token is no target.
        tokenizer: Gives the pad token, and the bytes of tokens that are no targets.
    """

    def __init__(
        self,
        texts: Ragged,
        text_bytes: int,
        max_length: int,
        frame: Frame,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.texts = texts
        self.frame = frame
        self.max_length = max_length
        self.pad_id = tokenizer.pad_token_id
        whole = np.maximum(0, texts.lengths + len(frame) - 1)
        self.lengths = np.minimum(whole, max_length)
        self.longest = int(whole.max(initial=0))
        self.truncated = int(np.count_nonzero(whole > max_length))
        self.cut = int((whole - self.lengths).sum())
        # A share: some tokenizers do not tell all bytes, such as the spaces before their words.
        told = told_bytes(tokenizer, texts.counts)
        unscored = told_bytes(tokenizer, count_tokens(self._cut_tokens()))
        if not frame.prefix:
            unscored += told_bytes(tokenizer, first_tokens(texts))
        self.bytes_per_target = text_bytes * (told - unscored) / max(1, told) / max(1, self.targets)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Rows below each other, [B, longest of them]."""
        # A text that is cut does not end with its suffix: room for that is left here, and cut off.
        limit = self.max_length + 1
        rows, whole = self.frame.table(
            self.texts, indices, limit + len(self.frame), self.pad_id, least=2
        )
        lengths = np.clip(whole - 1, 0, self.max_length)
        return {"index": list(indices), **shifted(rows[:, :limit], lengths, self.pad_id)}

    def _cut_tokens(self) -> Iterator[Tokens]:
        """Tokens of texts that are cut off at the end, those of many texts at once."""
        end = self.max_length + 1 - len(self.frame.prefix)
        held: list[Tokens] = []
        size = 0
        for i in np.flatnonzero(self.texts.lengths > end):
            held.append(self.texts[int(i)][end:])
            size += len(held[-1])
            if size >= _TOKENS_AT_ONCE:
                yield np.concatenate(held)
                held, size = [], 0
        yield from held and [np.concatenate(held)]


def shifted(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], pad_id: int) -> Batch:
    """Inputs and labels of rows [B, T+1] in which the first `lengths` + 1 tokens count."""
    inputs, labels = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())
    batch: Batch = {"input_ids": inputs, "labels": labels, "lengths": lengths.tolist()}
    if int(lengths.min()) < inputs.shape[1]:
        ignored = torch.arange(inputs.shape[1]) >= torch.from_numpy(lengths)[:, None]
        inputs[ignored] = pad_id
        labels[ignored] = IGNORED
        batch["attention_mask"] = mask(lengths, inputs.shape[1])
    return batch


def shared_windows(
    lengths: npt.NDArray[np.int64], max_length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Put parts into windows in their order, each into that of the last one if there is room.

    Args:
        lengths: Tokens of each part, none of them over `max_length`, and none 0.
        max_length: Tokens in a window at most.

    Returns:
        The part that each window begins with, and behind the last window how many parts there are;
        and the tokens in each window.
    """
    ends = np.cumsum(lengths)
    # If a window begins with a part, which one the next begins with.
    following = np.searchsorted(ends, ends - lengths + max_length, side="right")
    first, at = array("q"), 0  # lists of as many numbers take five times the memory
    while at < len(following):
        first.append(at)
        at = following.item(at)
    starts = np.array(first, dtype=np.int64)
    filled = np.add.reduceat(lengths, starts) if len(starts) else lengths[:0]
    return np.append(starts, at), filled


def side_by_side(
    rows: Iterable[Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]],
    lengths: npt.NDArray[np.int64],
    pad_id: int,
) -> Batch:
    """Inputs, labels and positions of windows in which each part begins anew.

    Args:
        rows: The parts of each window: their inputs, and as many labels.
        lengths: Tokens in each window.
        pad_id: What fills up windows.
    """
    shape = len(lengths), max(1, int(lengths.max()))
    inputs, positions = np.full(shape, pad_id), np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORED)
    for row, parts in enumerate(rows):
        start = 0
        for tokens, targets in parts:
            here = slice(start, start := start + len(tokens))
            inputs[row, here], labels[row, here] = tokens, targets
            positions[row, here] = np.arange(len(tokens))
        positions[row, start:] = np.arange(shape[1] - start)
    arrays = {"input_ids": inputs, "labels": labels, "position_ids": positions}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {"lengths": lengths.tolist(), **tensors}


def first_tokens(texts: Ragged) -> npt.NDArray[np.int64]:
    """How often each token stands first in a text, int64 [largest + 1]."""
    starts = range(0, len(texts), _AT_ONCE)
    offsets = (texts.offsets[start : start + _AT_ONCE + 1] for start in starts)
    first = (part[:-1][np.diff(part) > texts.gap] for part in offsets)
    return count_tokens(texts.tokens[places] for places in first)


def bytes_per_target(dataset: EncodedDataset) -> float | None:
    """UTF-8 bytes that are scored over targets; None of what is no causal dataset."""
    if isinstance(dataset, CausalDataset):
        return dataset.bytes_per_target
    if isinstance(dataset, Joined):
        causal = [part for part in dataset.parts.values() if isinstance(part, CausalDataset)]
        size = sum(part.bytes_per_target * part.targets for part in causal)
        return size / max(1, sum(part.targets for part in causal)) if causal else None
    return None


def token_bytes(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> int:
    """UTF-8 bytes of the text that tokens stand for, special ones none.

    Taken from the tokens' names, because a byte-level token decoded by itself need not be text.
    Exact for byte-level and character tokenizers; others may normalise text or add a space at its
    beginning.
    """
    return told_bytes(tokenizer, np.bincount(tokens))


def told_bytes(tokenizer: PreTrainedTokenizerBase, counts: npt.NDArray[np.int64]) -> int:
    """The same of tokens by how often each occurs."""
    ids = np.flatnonzero(counts)
    names = tokenizer.convert_ids_to_tokens(ids.tolist())
    special = set(tokenizer.all_special_ids)
    decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", "Metaspace"))
    sizes = [
        0 if token in special else _size(name, decoder)
        for token, name in zip(ids.tolist(), names, strict=True)
    ]
    return int(np.dot(counts[ids], sizes))


def _size(name: str, decoder: str) -> int:
    if "ByteLevel" in decoder:
        return len(name)  # one printable character a byte
    if decoder == "Fuse()":
        return len(name.encode())  # our characters
    if "ByteFallback" in decoder and name.startswith("<0x"):
        return 1
    return len(name.replace("▁", " ").removeprefix("##").encode())
