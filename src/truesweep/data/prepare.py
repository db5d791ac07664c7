"""From a source of data and a tokenizer to datasets: everything that a training reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerBase

from truesweep.data.causal import CausalDataset
from truesweep.data.datasets import EncodedDataset
from truesweep.data.encode import encode
from truesweep.data.kinds import EncodedSplit, SampleKind
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Sample, Splits, field_texts, text_bytes
from truesweep.data.source import Source
from truesweep.data.texts import Text, beginning
from truesweep.data.token_cache import SPLITS, encode_splits
from truesweep.data.tokenizers import TokenizerConfig
from truesweep.errors import ConfigError, DataError

TRIED_TEXTS, TRIED_CHARACTERS = 20, 2_000
"""Of a split, what a tokenizer is tried on."""


@dataclass(frozen=True)
class Prepared:
    """Encoded data, ready to be put into batches.

    Attributes:
        kind: What the samples are.
        tokenizer: The tokenizer that encoded them.
        train: Training samples (or windows).
        val: Validation samples.
        test: Test samples.
        labels: Names of the classes in the order of their ids; None without classes.
        stats: For each split: `samples` as loaded, `rows` (what batches count: samples or windows),
            `tokens` without special ones, `unknown` among them, `bytes` (UTF-8), `longest` in
            tokens, `truncated` samples, the tokens that were `cut` from these, and the samples that
            are left `without_target`.
        lossless: The splits of text whose tokens hold it whole, so that what predicts them has
            predicted the text.
        fingerprint: Hash of the content of all splits.
        origin: Where the data came from, and their fingerprint, for the run's provenance.
    """

    kind: SampleKind
    tokenizer: PreTrainedTokenizerBase
    train: EncodedDataset
    val: EncodedDataset
    test: EncodedDataset
    labels: list[str] | None
    stats: dict[str, dict[str, int]]
    lossless: frozenset[str]
    fingerprint: str
    origin: dict[str, Any]

    @property
    def datasets(self) -> dict[str, EncodedDataset]:
        """The datasets by the name of their split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the samples while they were read, a sentence each."""
        return tuple(self.origin.get("notes", ()))

    def fingerprint_of(self, split: str) -> str | None:
        """Hash of a split's samples, whatever its name; None of a source that has not told it."""
        hashes: dict[str, str] = self.origin.get("fingerprints", {})
        return hashes.get(split)

    @property
    def bytes_per_target(self) -> dict[str, float]:
        """For each split of text, UTF-8 bytes that are scored over targets; else empty.

        A split whose tokens do not hold its whole text has none: what an unknown token hides would
        cost nothing, and a tokenizer that knows fewer words would win.
        """
        return {
            split: dataset.bytes_per_target
            for split, dataset in self.datasets.items()
            if isinstance(dataset, CausalDataset) and split in self.lossless
        }

    def answers(self, split: str) -> list[str]:
        """The texts that a model's own are compared with; none without pairs."""
        return [pair.target for pair in self.datasets[split].pairs]

    @property
    def classes(self) -> int:
        """What a target is one of: tokens of the vocabulary, or classes."""
        return len(self.tokenizer) if self.labels is None else len(self.labels)

    @cached_property
    def target_counts(self) -> npt.NDArray[np.int64]:
        """How often each token or class is a target in training: what trivial baselines know."""
        return self.train.target_counts(self.classes)


def prepare(
    source: Source,
    tokenizer: TokenizerConfig,
    kind: SampleKind,
    cache_dir: Path | None = None,
    labels: Sequence[str] | None = None,
    splits: Splits | None = None,
) -> Prepared:
    """Load, encode and check the data.

    Args:
        source: Where samples come from, and how they are batched.
        tokenizer: The tokenizer's configuration.
        kind: What the samples of the task are.
        cache_dir: Folder of the cache; the user's by default.
        labels: Classes of a model that is already trained, if the kind has any; by default those
            of the training split.
        splits: The samples, if they are others than those of the source.

    Raises:
        ConfigError: The tokenizer cannot be had or does not fit.
        DataError: A split is too small, or has a class that training does not know.
    """
    if source.packing not in (False, True, *kind.packs):
        raise ConfigError(
            f"data.packing={source.packing}: these samples cannot be put side by side, only texts "
            "of task=lm and conversations of task=sft can. Set data.packing=false"
        )
    splits = splits or kind.load(source)
    encoded = encode_splits(splits, tokenizer, kind, cache_dir, source.verify == "full")
    complete = kind.complete(encoded.tokenizer)
    samples = {split: getattr(splits, split) for split in SPLITS}
    found = kind.classes(samples["train"])
    classes = found if found is None or labels is None else list(labels)
    datasets = {
        split: kind.dataset(
            EncodedSplit(
                name=split,
                samples=samples[split],
                tokens={**encoded.tokens[split], **encoded.marks[split]},
                source=source,
                tokenizer=complete,
                labels=classes or (),
            )
        )
        for split in SPLITS
    }
    _check_sizes(datasets, source, kind)
    stats = {
        s: _stats(datasets[s], samples[s], encoded.tokens[s], complete.unk_token_id) for s in SPLITS
    }
    return Prepared(
        kind=kind,
        tokenizer=complete,
        **datasets,
        labels=classes,
        stats=stats,
        lossless=frozenset(
            s
            for s in SPLITS
            if kind.lossless
            and not stats[s]["unknown"]
            and keeps_text(complete, field_texts(samples[s], "text"))
        ),
        fingerprint=splits.fingerprint,
        origin={**splits.origin, "fingerprint": splits.fingerprint},
    )


def keeps_text(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Text]) -> bool:
    """Whether tokens are turned back into the text that they were made from.

    White space is not compared, since decoders put some where there was none; a tokenizer of whole
    words never sees any, and keeps no text. Tried on the beginnings of some texts.
    """
    if isinstance(getattr(tokenizer, "backend_tokenizer", Tokenizer(BPE())).model, WordLevel):
        return False
    tried = [beginning(text, TRIED_CHARACTERS) for text in islice(texts, TRIED_TEXTS)]
    back = (str(tokenizer.decode(row.tolist())) for row in encode(tokenizer, tried))
    return all(_letters(a) == _letters(b) for a, b in zip(tried, back, strict=True))


def _letters(text: str) -> str:
    return "".join(text.split())


def _check_sizes(datasets: dict[str, EncodedDataset], source: Source, kind: SampleKind) -> None:
    packed = source.packing in kind.packs
    unit = f"windows of data.max_length={source.max_length} tokens" if packed else "samples"
    if len(datasets["train"]) < source.batch_size:
        smaller = "data.batch_size or data.max_length" if packed else "data.batch_size"
        raise DataError(
            f"the train split makes {len(datasets['train'])} {unit}, fewer than one batch of "
            f"data.batch_size={source.batch_size}; set a smaller {smaller}, or give more data"
        )
    for split in ("val", "test"):
        if not datasets[split].lengths.any():
            raise DataError(
                f"the {split} split is empty (no {unit} with a target); give data.{split} at least "
                f"one sample of two tokens, or leave it out to have data.{split}_fraction of the "
                "training data split off"
            )


def _stats(
    dataset: EncodedDataset,
    samples: Sequence[Sample],
    tokens: dict[str, Ragged],
    unknown: int | None,
) -> dict[str, int]:
    return {
        "samples": len(samples),
        "rows": len(dataset),
        "tokens": sum(rows.size for rows in tokens.values()),
        "unknown": sum(rows.count(unknown) for rows in tokens.values()),
        "bytes": sum(text_bytes(samples, field) for field in tokens),
        "longest": dataset.longest,
        "truncated": dataset.truncated,
        "cut": dataset.cut,
        "without_target": dataset.without_target,
    }
