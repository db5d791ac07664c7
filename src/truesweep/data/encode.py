"""From text to tokens, a piece at a time.

A tokenizer needs a hundred bytes and more for each character that it is given at once, and gives a
text to one core. So a long text is cut, where its tokenizer cuts it anyway.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice, pairwise
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from truesweep.data.frames import input_frame, is_ours, separator
from truesweep.data.samples import Kind
from truesweep.data.texts import (
    BEFORE_WHITE,
    PIECE,
    WHITE,
    Seam,
    Text,
    batches,
    beginning,
    pieces,
)

log = logging.getLogger(__name__)

BATCH = 1 << 20
"""Characters that are tokenized at once, on all cores. What was done before a kill is counted in
these: other numbers need another `token_cache.VERSION`."""
WHOLE = 1 << 26
"""Bytes of a text that may be tokenized whole without a word."""

Tokens = npt.NDArray[np.int32]
Owned = tuple[int, Tokens]
"""The tokens of a piece, and the number of the text that it belongs to."""
# Some pre-tokenizers take line ends to the punctuation before them; some put a space in front of
# what begins with none.
_SEAMS = BEFORE_WHITE, re.compile(rf"(?<=[^\W_])(?={WHITE})"), re.compile(r"(?<=\S)(?= \S)")
_ANYWHERE = re.compile(r"(?<=.)(?=.)", re.DOTALL)

# What pre-tokenizers tell apart, on both sides of all white space.
_SIDES = *"a\u00c97._<{/\u4e2d\u3002\U0001f642\u200b\x1c", "'s", "e\u0301"
_GAPS = (
    *(" ", "  ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", " \t"),
    *(" \n", "\n ", " \r\n\t", "\u00a0 ", " \u3000"),
)
_PROBE = "".join(left + gap + right for left in _SIDES for gap in _GAPS for right in _SIDES)


class Encoder:
    """What makes tokens of texts, without special tokens.

    Args:
        tokenizer: Any tokenizer of transformers.
        argument: `text`, or `text_target` for the target side of a translation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, argument: str = "text") -> None:
        self.tokenizer = tokenizer
        self.argument = argument
        self._backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        self._seam: list[Seam | None] = []  # once it is known
        self._fast = [True] if is_ours(tokenizer) else []  # likewise

    def batches(self, texts: Iterable[Text], first: int = 0) -> Iterator[list[Owned]]:
        """The tokens of texts of any length: of each its pieces, at least one, in order.

        Args:
            texts: The texts.
            first: Batches to leave out; the same texts are always batched the same.
        """
        owned = ((i, piece) for i, text in enumerate(texts) for piece in self._pieces(text))
        for batch in islice(batches(owned, BATCH), first, None):
            owners, parts = zip(*batch, strict=True)
            rows = self._rows(list(parts))
            yield [(i, np.array(row, dtype=np.int32)) for i, row in zip(owners, rows, strict=True)]

    def seam(self, text: str) -> Seam | None:
        """Where long texts may be cut so that no token changes; None: nowhere.

        Tried once, at all such places of a text and of what pre-tokenizers tell apart.

        Args:
            text: The beginning of the first long text.
        """
        if not self._seam:
            self._seam.append(self._find_seam(text))
        return self._seam[0]

    def _pieces(self, text: Text) -> Iterator[str]:
        if isinstance(text, str) and len(text) <= PIECE:
            return iter((text,))
        if (seam := self.seam(beginning(text, PIECE))) is not None:
            return pieces(text, seam)
        if len(text) > WHOLE:
            log.warning(
                "this tokenizer joins text across white space, so that a text of %s MB is "
                "tokenized at once, which takes some %s GB of memory. Give the text as documents, "
                "such as the rows of a .jsonl or .parquet file, or choose another tokenizer",
                *(round(len(text) / 1e6), round(150 * len(text) / 1e9)),
            )
        return iter((str(text),))

    def _find_seam(self, text: str) -> Seam | None:
        if self._backend is None or self.argument != "text":
            return None
        if any(map(_takes_white, self._backend.get_added_tokens_decoder().values())):
            return None
        if _knows_characters_only(self._backend):
            return _ANYWHERE
        return next((seam for seam in _SEAMS if self._holds(seam, _PROBE + text)), None)

    def _holds(self, seam: Seam, text: str) -> bool:
        """Whether a text and its parts are split alike, even where the tokens would not show it."""
        cuts = [0, *(found.start() for found in seam.finditer(text)), len(text)]
        texts = [text, *(text[i:j] for i, j in pairwise(cuts))]
        return all(
            whole == list(chain.from_iterable(parts))
            for whole, *parts in (map(self._split, texts), self._rows(texts))
        )

    def _split(self, text: str) -> list[str]:
        """The words that a text is split into before any of them becomes tokens."""
        assert self._backend is not None
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        text = text if normalizer is None else normalizer.normalize_str(text)
        return [text] if splitter is None else [w for w, _ in splitter.pre_tokenize_str(text)]

    def _rows(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text; many at once by the backend, where it makes the same of them."""
        if not self._fast and sum(map(len, texts)) < PIECE:
            return self._call(texts)
        if not self._fast:
            self._fast.append(self._is_fast_the_same(texts))
        return self._call_fast(texts) if self._fast[0] else self._call(texts)

    def _is_fast_the_same(self, texts: list[str]) -> bool:
        if self._backend is None or self.argument != "text":
            return False
        tried = [_PROBE, *(text[:PIECE] for text in texts[:8])]
        return self._call(tried) == self._call_fast(tried)

    def _call(self, texts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(
            **{self.argument: texts},
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no word about a model's context: rows are cut later
        )["input_ids"]
        return rows

    def _call_fast(self, texts: list[str]) -> list[list[int]]:
        """Four times faster than the call, which also finds where each token begins."""
        assert self._backend is not None
        # As the call does; in texts, ours never take "<eos>" for the end of one.
        split = is_ours(self.tokenizer) or self.tokenizer.split_special_tokens
        self._backend.encode_special_tokens = split
        encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [row.ids for row in encoded]


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[Text], argument: str = "text"
) -> Iterator[Tokens]:
    """Give the tokens of each text, without special tokens.

    Args:
        tokenizer: Any tokenizer of transformers.
        texts: Texts of any length.
        argument: `text`, or `text_target` for the target side of a translation.
    """
    encoded = chain.from_iterable(Encoder(tokenizer, argument).batches(texts))
    for _, rows in groupby(encoded, key=itemgetter(0)):
        yield np.concatenate([row for _, row in rows])


def encode_inputs(
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    texts: Iterable[str],
    max_length: int,
    packing: bool = False,
) -> list[list[int]]:
    """Encode new texts as a model got them in training, special tokens included.

    A prompt of a language model stays open at its end and keeps its last `max_length` tokens; other
    texts keep their first.

    Args:
        tokenizer: The model's tokenizer.
        kind: The kind of samples that the model was trained on.
        texts: Prompts, source sentences, or texts to classify.
        max_length: Tokens in a row at most, with the special ones.
        packing: Whether a language model was trained on packed windows: then no `<bos>` of ours
            stands in front.
    """
    frame = input_frame(tokenizer, kind)
    if kind != "text":
        return [frame.wrap(row, max_length) for row in encode(tokenizer, texts)]
    prefix = () if packing and is_ours(tokenizer) else frame.prefix
    rows = ([*prefix, *row.tolist()] for row in encode(tokenizer, texts))
    # Something has to be there to go on from.
    return [row[-max_length:] or list(separator(tokenizer)) for row in rows]


def _takes_white(token: AddedToken) -> bool:
    """Whether a token that is looked for in the whole text takes white space behind something."""
    return token.rstrip or BEFORE_WHITE.search(token.content) is not None


def _knows_characters_only(backend: Tokenizer) -> bool:
    """Whether a tokenizer makes the same of a character whatever stands beside it."""
    made = json.loads(backend.to_str())
    model, splits = made["model"], made["pre_tokenizer"] or {"type": "ByteLevel"}
    return (
        made["normalizer"] is None
        and (splits["type"], splits.get("use_regex"), splits.get("add_prefix_space"))
        in (("ByteLevel", None, None), ("ByteLevel", False, False))
        and model["type"] == "BPE"
        and not (model["merges"] or model["fuse_unk"] or model["end_of_word_suffix"])
        and not model["continuing_subword_prefix"]
    )
