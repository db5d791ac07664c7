"""Which special tokens stand around a text, for each kind of sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from truesweep.data.ragged import Ragged
from truesweep.data.samples import Kind
from truesweep.data.tokenizers import FRAMING, FRAMING_KEY
from truesweep.errors import ConfigError


@dataclass(frozen=True)
class Frame:
    """The special tokens around a text: `prefix + text + suffix`."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Special tokens that a frame adds."""
        return len(self.prefix) + len(self.suffix)

    def wrap(self, tokens: npt.NDArray[np.int32], limit: int) -> list[int]:
        """Frame a text, whose end is cut so that the whole has at most `limit` tokens."""
        room = max(0, limit - len(self))
        return [*self.prefix, *tokens[:room].tolist(), *self.suffix]

    def table(
        self, rows: Ragged, indices: Sequence[int], limit: int, fill: int, least: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Frame some rows as `wrap` does and put them below each other.

        Args:
            rows: Rows of tokens.
            indices: Which of them.
            limit: Tokens in a row at most, with the special ones.
            fill: The token behind rows that are shorter than the longest.
            least: Columns at least.

        Returns:
            The table, int64 [B, T], and the length of each row, int64 [B].
        """
        index = np.asarray(indices)
        starts = rows.offsets[index]
        whole = rows.offsets[index + 1] - rows.gap - starts
        texts = np.minimum(whole, max(0, limit - len(self)))
        lengths = texts + len(self)
        columns = np.arange(max(int(lengths.max()), least))
        places = starts[:, None] + columns - len(self.prefix)
        tokens = rows.tokens if len(rows.tokens) else np.zeros(1, dtype=np.int32)
        table = tokens.take(places, mode="clip").astype(np.int64)
        table[:, : len(self.prefix)] = self.prefix
        for i, token in enumerate(self.suffix):
            table[np.arange(len(index)), len(self.prefix) + texts + i] = token
        table[columns >= lengths[:, None]] = fill
        return table, lengths


def is_ours(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer was made by this package, wherever it was loaded from."""
    return bool(tokenizer.init_kwargs.get(FRAMING_KEY) == FRAMING)


def input_frame(tokenizer: PreTrainedTokenizerBase, kind: Kind) -> Frame:
    """The frame of a model's input: of a text on its own, a source sentence, a text to classify.

    A pretrained tokenizer frames a text as it does by itself, which is what its model has learned;
    ours put `<bos>` in front (not before a sentence to translate) and `<eos>` behind.
    """
    if is_ours(tokenizer):
        bos = () if kind == "pairs" else (tokenizer.bos_token_id,)
        return Frame(bos, (tokenizer.eos_token_id,))
    frame = _own_frame(tokenizer, "text")
    return _ended(frame, tokenizer) if kind == "pairs" else frame


def target_frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """The frame of a translation: as the tokenizer puts it, and always ended."""
    if is_ours(tokenizer):
        return Frame((), (tokenizer.eos_token_id,))
    return _ended(_own_frame(tokenizer, "text_target"), tokenizer)


def unnamed_language(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A sentence on a tokenizer of many languages that was not told which ones texts are in."""
    source = getattr(tokenizer, "src_lang", None)
    if not hasattr(tokenizer, "tgt_lang") or tokenizer.tgt_lang not in (None, source):
        return None
    marks = tokenizer.convert_ids_to_tokens(
        [*_own_frame(tokenizer, "text").prefix, *_own_frame(tokenizer, "text_target").prefix]
    )
    return (
        "the tokenizer marks languages, and was not told which: it marks both sides by "
        f"{', '.join(dict.fromkeys(map(str, marks))) or 'nothing'}. Name them by "
        "tokenizer.source_language=… and tokenizer.target_language=…"
    )


def separator(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What stands between two documents of a stream, if the tokenizer has anything for it."""
    candidates = tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id
    return tuple(token for token in candidates if token is not None)[:1]


def _own_frame(tokenizer: PreTrainedTokenizerBase, argument: str) -> Frame:
    """What the tokenizer itself puts around a text."""
    text = {argument: "a"}
    bare = tokenizer(**text, add_special_tokens=False)["input_ids"]
    full = tokenizer(**text)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return Frame(tuple(full[:start]), tuple(full[start + len(bare) :]))
    raise ConfigError(
        f"tokenizer {tokenizer.name_or_path}: special tokens change how it splits a text ({bare} "
        f"without, {full} with them), which is not supported; name another tokenizer"
    )


def _ended(frame: Frame, tokenizer: PreTrainedTokenizerBase) -> Frame:
    end = tokenizer.eos_token_id
    if end is None:
        end = tokenizer.sep_token_id
    if end is None:
        raise ConfigError(
            f"tokenizer {tokenizer.name_or_path}: an encoder–decoder needs an end-of-sequence "
            "token, and this tokenizer has none; name another one, or use tokenizer=bpe"
        )
    return frame if end in frame.suffix else Frame(frame.prefix, (*frame.suffix, end))
