"""A tokenizer and the tokens of all splits, made once for each content and configuration."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerBase

from truesweep.data.cache import cached, default_cache
from truesweep.data.encode import BATCH, Encoder
from truesweep.data.frames import is_ours, separator
from truesweep.data.kinds import SampleKind
from truesweep.data.ragged import Ragged, RaggedWriter, Tokens
from truesweep.data.samples import (
    Sample,
    Splits,
    field_texts,
    hash_splits,
    spread_pieces,
    text_bytes,
)
from truesweep.data.texts import PIECE, Text, Texts, pieces
from truesweep.data.tokenizers import TokenizerConfig, load, template_of
from truesweep.models.tokens import vocabulary_size
from truesweep.terminal import console
from truesweep.text import percent

VERSION = 4  # of what is written below; a new one leaves all older entries unread

TOKENIZER = "tokenizer"
PART = 8
"""Batches (`encode.BATCH`) of tokens that a kill may lose."""

SECONDS_UNTOLD = 15.0
"""How long it is not said how far the tokens are."""

DIFFERENT = 1 << 23
"""Characters of different words that are learned from; bytes where words are cut into these. To
merge them takes 80 to 120 bytes of memory for each. A gigabyte of prose has about as many."""
_PIECE = 1 << 13
_PIECES = 1 << 7
_EACH = 4  # of these pieces make the smaller sample

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Encoded:
    """A tokenizer, and what it makes of the texts of all splits.

    Attributes:
        tokenizer: The tokenizer, as loaded from the cache.
        tokens: For each split, the tokens of each field (`text`, or `source` and `target`).
        marks: For each split, what its kind knows of each token.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: dict[str, dict[str, Ragged]]
    marks: dict[str, dict[str, Ragged]]


def encode_splits(
    splits: Splits,
    config: TokenizerConfig,
    kind: SampleKind,
    cache_dir: Path | None = None,
    full: bool = False,
) -> Encoded:
    """Train or load the tokenizer and encode all splits, or take both from the cache.

    Neither `max_length` nor packing matters to an entry: rows are framed, cut and joined when a
    batch is made.

    Args:
        splits: The samples.
        config: The tokenizer's configuration.
        kind: What the samples are.
        cache_dir: Folder of the cache; the user's by default.
        full: Read an entry whole to see whether it is damaged.
    """
    key = {
        "data": splits.fingerprint,
        "kind": splits.kind,
        "tokenizer": config.identity(),
        "tokenizers": tokenizers.__version__,
        "version": VERSION,
        **kind.encoding,
    }
    name = _name(key)

    def write(folder: Path) -> None:
        _write(folder, splits, config, kind)

    def read(folder: Path) -> Encoded:
        return _read(folder, kind)

    return cached((cache_dir or default_cache()) / "tokens", name, write, read, full)


def encode_each(
    parts: Mapping[str, Splits],
    config: TokenizerConfig,
    kind: SampleKind,
    cache_dir: Path | None = None,
    full: bool = False,
) -> dict[str, Encoded]:
    """`encode_splits` of several sources, with one tokenizer over all of them.

    It learns from the training texts of all, in the order of the sources; see `encode_splits` for
    the arguments.
    """
    shared = config
    if len(parts) > 1 and config.learns:
        trains = [splits.train for splits in parts.values()]
        shared = _Shared(config, kind, trains, cache_dir or default_cache(), full)
    return {
        name: encode_splits(splits, shared, kind, cache_dir, full) for name, splits in parts.items()
    }


class _Shared(TokenizerConfig):
    """A tokenizer that learns from several sources, once for all of them.

    Args:
        config: What it is made from.
        kind: What the samples are.
        trains: The training samples of each source.
        cache: Folder of the cache.
        full: As in `encode_splits`.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        kind: SampleKind,
        trains: Sequence[Sequence[Sample]],
        cache: Path,
        full: bool,
    ) -> None:
        super().__init__(chat_template=config.chat_template)
        self._config = config
        self._kind = kind
        self._trains = trains
        self._cache = cache
        self._full = full
        self._identity = {**config.identity(), "learned": hash_splits(trains)}

    def identity(self) -> dict[str, Any]:
        """What decides the tokens, the training texts of all sources included."""
        return self._identity

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """The tokenizer, from the cache if it is there."""
        key = {
            "tokenizer": self._identity,
            "tokenizers": tokenizers.__version__,
            "version": VERSION,
            "kind": self._kind.name,
            **self._kind.encoding,
        }

        def write(folder: Path) -> None:
            _learned(self._config, self._kind, self._trains).save_pretrained(folder)

        return cached(self._cache / "tokenizers", _name(key), write, load, self._full)


def _name(key: Mapping[str, Any]) -> str:
    """The name of an entry that follows from a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _write(folder: Path, splits: Splits, config: TokenizerConfig, kind: SampleKind) -> None:
    tokenizer = _tokenizer(folder / TOKENIZER, splits, config, kind)
    between = separator(tokenizer) if kind.name == "text" else ()
    for split in SPLITS:
        samples = getattr(splits, split)
        if kind.marks:
            for name, rows in kind.marked(tokenizer, samples).items():
                _write_rows(folder, f"{split}.{name}", vocabulary_size(tokenizer), rows)
            continue
        for field in kind.fields:
            encoder = Encoder(tokenizer, "text_target" if field == "target" else "text")
            with RaggedWriter(
                folder, f"{split}.{field}", vocabulary_size(tokenizer), between
            ) as writer:
                if not writer.done:
                    told = _told(split, text_bytes(samples, field))
                    _encode(encoder, field_texts(samples, field), writer, told)
                    writer.finish(len(samples))


def _write_rows(folder: Path, name: str, vocabulary: int, rows: Sequence[Tokens]) -> None:
    with RaggedWriter(folder, name, vocabulary) as writer:
        for place, row in enumerate(rows if not writer.done else ()):
            writer.add(place, row)
        writer.finish(len(rows))


def _tokenizer(
    folder: Path, splits: Splits, config: TokenizerConfig, kind: SampleKind
) -> PreTrainedTokenizerBase:
    """The tokenizer, which is kept, but for one that is loaded and not learned."""
    if folder.is_dir() and is_ours(kept := load(folder)):
        return kept
    tokenizer = _learned(config, kind, [splits.train])
    shutil.rmtree(folder, ignore_errors=True)
    fresh = folder.with_suffix(".new")  # perhaps one of before a kill: then the files are the same
    tokenizer.save_pretrained(fresh)
    fresh.rename(folder)
    return tokenizer


def _learned(
    config: TokenizerConfig, kind: SampleKind, trains: Sequence[Sequence[Sample]]
) -> PreTrainedTokenizerBase:
    """The tokenizer that training samples make, of one source or of several."""
    template = template_of(config)
    training = chain.from_iterable(kind.texts(train, template) for train in trains)
    stored = [train for train in trains if isinstance(train, Texts)]
    every = _every(config, stored) if config.sample and stored else 1
    # To merge within a word takes the square of its length.
    cut = (piece for text in training for piece in pieces(text, longest=PIECE))
    tokenizer = config.build(islice(cut, 0, None, every))
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _every(config: TokenizerConfig, texts: Sequence[Texts]) -> int:
    """Of how many pieces of texts a tokenizer learns from one."""
    backend = getattr(config.build(()), "backend_tokenizer", None)
    splitter = getattr(backend, "pre_tokenizer", None)
    size = sum(part.size for part in texts)
    most = learnable = min(size, config.sample or size)
    if splitter is not None:
        found = _learnable(texts, lambda text: (w for w, _ in splitter.pre_tokenize_str(text)))
        learnable = min(most, found)
    every = max(1, -(-size // learnable))
    if every > 1:
        why = (
            f"no more than {most:,} bytes of it are learned from"
            if learnable == most
            else "hardly a word of it is repeated, and more of them would take too much memory"
        )
        console(stderr=True).print(
            f"the tokenizer learns from one piece in {every} of the {size:,} bytes of text, evenly "
            f"spread: {why}"
        )
    return every


def _learnable(texts: Sequence[Texts], words: Callable[[str], Iterable[str]]) -> int:
    """Bytes of text whose different words together are as long as `DIFFERENT`, or all there are.

    By Heaps' law, the different words of n bytes of text are c·n^b long: where words are seldom
    repeated, as in a genome or in Chinese, b is about 1, in prose 0.6. Both numbers are taken from
    pieces of a mebibyte in all, evenly spread over the texts, and a fourth of these.

    Args:
        texts: The texts of each source.
        words: Cuts a text into what the tokenizer takes for words.
    """
    size = sum(part.size for part in texts)
    if size <= DIFFERENT:
        return size
    shares = ((part, math.ceil(_PIECES * part.size / size)) for part in texts)
    pieces = [piece for part, number in shares for piece in spread_pieces(part, number, _PIECE)]
    (few, some), (many, more) = (_seen(pieces[::step], words) for step in (_EACH, 1))
    if not (some and few < many):  # blank texts
        return size
    grows = math.log(more / some) / math.log(many / few)
    if grows <= 0 or more * (size / many) ** grows <= DIFFERENT:
        return size
    return int(many * (DIFFERENT / more) ** (1 / grows))


def _seen(pieces: Iterable[str], words: Callable[[str], Iterable[str]]) -> tuple[int, int]:
    """Bytes of pieces of text, and the characters of their different words."""
    size, found = 0, set[str]()
    for piece in pieces:
        size += len(piece.encode())
        found.update(words(piece))
    return size, sum(map(len, found))


def _told(split: str, size: int) -> Callable[[int], None]:
    """What is to be told how many batches of a split are done, and says so now and then.

    Args:
        split: Its name.
        size: Its UTF-8 bytes.
    """
    said = time.monotonic()

    def tell(batches: int) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_UNTOLD:
            said = time.monotonic()
            share = min(1.0, batches * BATCH / max(1, size))
            console(stderr=True).print(f"tokenizing {split}: {percent(share)}")

    return tell


def _encode(
    encoder: Encoder, texts: Iterable[Text], writer: RaggedWriter, told: Callable[[int], None]
) -> None:
    """Go on where a writer stands: batches of the same texts are always the same."""
    done = writer.parts * PART
    for number, batch in enumerate(encoder.batches(texts, done), done + 1):
        for row, tokens in batch:
            writer.add(row, tokens)
        if number % PART == 0:
            writer.commit()
        told(number)


def _read(folder: Path, kind: SampleKind) -> Encoded:
    def read(names: tuple[str, ...]) -> dict[str, dict[str, Ragged]]:
        return {s: {name: Ragged.load(folder, f"{s}.{name}") for name in names} for s in SPLITS}

    return Encoded(load(folder / TOKENIZER), read(kind.fields), read(kind.marks))
