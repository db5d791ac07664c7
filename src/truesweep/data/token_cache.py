"""A tokenizer and the tokens of all splits, made once for each content and configuration."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tokenizers
from transformers import PreTrainedTokenizerBase

from truesweep.data.cache import cached, default_cache
from truesweep.data.encode import encode, pieces
from truesweep.data.frames import separator
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Kind, Sample, Splits
from truesweep.data.tokenizers import TokenizerConfig, load

VERSION = 1  # of what is written below; a new one leaves all older entries unread

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
    splits: Splits, config: TokenizerConfig, cache_dir: Path | None = None
) -> Encoded:
    """Train or load the tokenizer and encode all splits, or take both from the cache.

    Neither `max_length` nor packing matters to an entry: rows are framed, cut and joined when a
    batch is made.
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

    return cached((cache_dir or default_cache()) / "tokens", name, write, read)


def field_texts(samples: Sequence[Sample], field: str) -> Iterable[str]:
    """One field of all samples; a plain text is its own only field."""
    return (s if isinstance(s, str) else getattr(s, field) for s in samples)


def _write(folder: Path, splits: Splits, config: TokenizerConfig) -> None:
    fields = FIELDS[splits.kind]
    training = chain.from_iterable(field_texts(splits.train, field) for field in fields)
    tokenizer = config.build(piece for text in training for piece in pieces(text))
    tokenizer.save_pretrained(folder / "tokenizer")
    between = separator(tokenizer) if splits.kind == "text" else ()
    for split in SPLITS:
        for field in fields:
            texts = field_texts(getattr(splits, split), field)
            argument = "text_target" if field == "target" else "text"
            rows = encode(tokenizer, texts, argument)
            Ragged.of(rows, between).save(folder, f"{split}.{field}")


def _read(folder: Path, kind: Kind) -> Encoded:
    tokenizer = load(folder / "tokenizer")
    gap = len(separator(tokenizer)) if kind == "text" else 0
    tokens = {
        split: {field: Ragged.load(folder, f"{split}.{field}", gap) for field in FIELDS[kind]}
        for split in SPLITS
    }
    return Encoded(tokenizer, tokens)
