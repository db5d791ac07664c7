"""A tokenizer and the tokens of all splits, made once for each content and configuration."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import tokenizers
from transformers import PreTrainedTokenizerBase

from truesweep.data.cache import cached, default_cache
from truesweep.data.encode import Encoder, pieces
from truesweep.data.frames import is_ours, separator
from truesweep.data.ragged import Ragged, RaggedWriter
from truesweep.data.samples import Kind, Sample, Splits
from truesweep.data.tokenizers import TokenizerConfig, load

VERSION = 2  # of what is written below; a new one leaves all older entries unread

TOKENIZER = "tokenizer"
PART = 32
"""Batches (`encode.BATCH`) of tokens that a kill may lose."""

SPLITS = ("train", "val", "test")
FIELDS: dict[Kind, tuple[str, ...]] = {
    "text": ("text",),
    "pairs": ("source", "target"),
    "labelled": ("text",),
}


@dataclass(frozen=True)
class Encoded:
    """A tokenizer, and what it makes of the texts of all splits.

    Attributes:
        tokenizer: The tokenizer, as loaded from the cache.
        tokens: For each split, the tokens of each field (`text`, or `source` and `target`).
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: dict[str, dict[str, Ragged]]


def encode_splits(
    splits: Splits, config: TokenizerConfig, cache_dir: Path | None = None, full: bool = False
) -> Encoded:
    """Train or load the tokenizer and encode all splits, or take both from the cache.

    Neither `max_length` nor packing matters to an entry: rows are framed, cut and joined when a
    batch is made.

    Args:
        splits: The samples.
        config: The tokenizer's configuration.
        cache_dir: Folder of the cache; the user's by default.
        full: Read an entry whole to see whether it is damaged.
    """
    key = {
        "data": splits.fingerprint,
        "kind": splits.kind,
        "tokenizer": config.identity(),
        "tokenizers": tokenizers.__version__,
        "version": VERSION,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]

    def write(folder: Path) -> None:
        _write(folder, splits, config)

    def read(folder: Path) -> Encoded:
        return _read(folder, splits.kind)

    return cached((cache_dir or default_cache()) / "tokens", name, write, read, full)


def field_texts(samples: Sequence[Sample], field: str) -> Iterable[str]:
    """One field of all samples; a plain text is its own only field."""
    return (s if isinstance(s, str) else getattr(s, field) for s in samples)


def _write(folder: Path, splits: Splits, config: TokenizerConfig) -> None:
    tokenizer = _tokenizer(folder / TOKENIZER, splits, config)
    between = separator(tokenizer) if splits.kind == "text" else ()
    for split, field in product(SPLITS, FIELDS[splits.kind]):
        samples = getattr(splits, split)
        encoder = Encoder(tokenizer, "text_target" if field == "target" else "text")
        with RaggedWriter(folder, f"{split}.{field}", len(tokenizer), between) as writer:
            if not writer.done:
                _encode(encoder, field_texts(samples, field), writer)
                writer.finish(len(samples))


def _tokenizer(folder: Path, splits: Splits, config: TokenizerConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, which is kept, but for one that is loaded and not learned."""
    if folder.is_dir() and is_ours(kept := load(folder)):
        return kept
    training = chain.from_iterable(field_texts(splits.train, f) for f in FIELDS[splits.kind])
    tokenizer = config.build(piece for text in training for piece in pieces(text))
    shutil.rmtree(folder, ignore_errors=True)
    fresh = folder.with_suffix(".new")  # perhaps one of before a kill: then the files are the same
    tokenizer.save_pretrained(fresh)
    fresh.rename(folder)
    return tokenizer


def _encode(encoder: Encoder, texts: Iterable[str], writer: RaggedWriter) -> None:
    """Go on where a writer stands: batches of the same texts are always the same."""
    done = writer.parts * PART
    for number, batch in enumerate(encoder.batches(texts, done), done + 1):
        for row, tokens in batch:
            writer.add(row, tokens)
        if number % PART == 0:
            writer.commit()


def _read(folder: Path, kind: Kind) -> Encoded:
    tokens = {
        split: {field: Ragged.load(folder, f"{split}.{field}") for field in FIELDS[kind]}
        for split in SPLITS
    }
    return Encoded(load(folder / TOKENIZER), tokens)
