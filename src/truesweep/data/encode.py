"""From text to tokens."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from truesweep.data.frames import input_frame, is_ours, separator
from truesweep.data.samples import Kind

# Characters that are tokenized at once: a tokenizer needs some hundred bytes for each of them.
PIECE = 1 << 20
# No pre-tokenizer of ours joins anything across such a place.
_SEAM = re.compile(r"(?<=\S\n)(?=\S)")

Tokens = npt.NDArray[np.int32]


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], argument: str = "text"
) -> Iterator[Tokens]:
    """Give the tokens of each text, without special tokens.

    Args:
        tokenizer: Any tokenizer of transformers.
        texts: Texts of any length.
        argument: `text`, or `text_target` for the target side of a translation.
    """
    whole = is_ours(tokenizer)
    owned = (
        (i, piece) for i, text in enumerate(texts) for piece in (pieces(text) if whole else [text])
    )
    encoded = (pair for batch in _batches(owned) for pair in _encode(tokenizer, batch, argument))
    for _, rows in groupby(encoded, key=itemgetter(0)):
        yield np.concatenate([row for _, row in rows])


def pieces(text: str) -> Iterator[str]:
    """Cut a long text into pieces of about `PIECE` characters, at ends of lines."""
    start = 0
    while len(text) - start > PIECE and (seam := _SEAM.search(text, start + PIECE)):
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]


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


def _batches(owned: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for owner, piece in owned:
        batch.append((owner, piece))
        size += len(piece)
        if size >= PIECE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(
    tokenizer: PreTrainedTokenizerBase, batch: list[tuple[int, str]], argument: str
) -> Iterator[tuple[int, Tokens]]:
    owners, texts = zip(*batch, strict=True)
    encoded = _fast if is_ours(tokenizer) else _any
    for owner, row in zip(owners, encoded(tokenizer, list(texts), argument), strict=True):
        yield owner, np.array(row, dtype=np.int32)


def _fast(tokenizer: PreTrainedTokenizerBase, texts: list[str], _: str) -> Iterable[list[int]]:
    """Four times faster than the call of transformers, which also finds where each token begins."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True  # the call's `split_special_tokens`
    return (row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False))


def _any(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], argument: str
) -> Iterable[list[int]]:
    rows: Iterable[list[int]] = tokenizer(
        **{argument: texts},
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no word about a model's context: rows are cut later
    )["input_ids"]
    return rows
