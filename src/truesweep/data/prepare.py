"""From a source of data and a tokenizer to datasets: everything that a training reads."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerBase

from truesweep.data import mixture
from truesweep.data.cache import cached, default_cache
from truesweep.data.causal import bytes_per_target
from truesweep.data.datasets import EncodedDataset, Joined
from truesweep.data.encode import encode
from truesweep.data.frames import unnamed_language
from truesweep.data.kinds import EncodedSplit, SampleKind
from truesweep.data.leakage import VERSION as LEAKAGE_VERSION
from truesweep.data.leakage import Leak, Leakage, leaked
from truesweep.data.mixture import Mix, Mixture
from truesweep.data.records import alike
from truesweep.data.samples import Account, Joint, Sample, Splits, spread_pieces, text_bytes
from truesweep.data.source import Source
from truesweep.data.token_cache import SPLITS, Encoded, encode_each
from truesweep.data.tokenizers import TokenizerConfig, fingerprint
from truesweep.errors import ConfigError, DataError
from truesweep.models.tokens import vocabulary_size
from truesweep.record.files import write_json

TRIED_PIECES, TRIED_CHARACTERS = 20, 2_000
"""Of a split, what a tokenizer is tried on."""
_SPACED = re.compile(r"(\s*)(\S)")
"""A character, and the white space before it."""

_LEAKAGE = "leakage.json"


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
        leakage: What splits that judge have in common with those before them; nothing where it was
            not looked for.
        cleaned: What cleaning has made of splits, by their names.
        fingerprint: Hash of the content of all splits.
        origin: Where the data came from, their fingerprint and the tokenizer's, for the run's
            provenance.
        mix: How a training goes through the sources of a mixture; None of one source.
    """

    kind: SampleKind
    tokenizer: PreTrainedTokenizerBase
    train: EncodedDataset
    val: EncodedDataset
    test: EncodedDataset
    labels: list[str] | None
    stats: dict[str, dict[str, int]]
    lossless: frozenset[str]
    leakage: Sequence[Leakage]
    cleaned: Mapping[str, Account]
    fingerprint: str
    origin: dict[str, Any]
    mix: Mix | None = None

    @property
    def datasets(self) -> dict[str, EncodedDataset]:
        """The datasets by the name of their split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the samples as they were read and encoded, a sentence each."""
        return tuple(self.origin.get("notes", ()))

    def fingerprint_of(self, split: str) -> str | None:
        """Hash of a split's samples, whatever its name; None of a source that has not told it."""
        hashes: dict[str, str] = self.origin.get("fingerprints", {})
        return hashes.get(split)

    @property
    def bytes_per_target(self) -> dict[str, float]:
        """For each split of text, UTF-8 bytes that are scored over targets; else empty.

        Of a mixture also for each source, as `val/books`. A split whose tokens do not hold its
        whole text has none: what an unknown token hides would cost nothing, and a tokenizer that
        knows fewer words would win.
        """
        found = self.datasets
        for split, dataset in self.datasets.items():
            if isinstance(dataset, Joined):
                found |= {f"{split}/{name}": part for name, part in dataset.parts.items()}
        sizes = {split: bytes_per_target(found[split]) for split in found if split in self.lossless}
        return {split: size for split, size in sizes.items() if size is not None}

    def answers(self, split: str) -> list[str]:
        """The texts that a model's own are compared with; none without pairs."""
        return [pair.target for pair in self.datasets[split].pairs]

    @property
    def classes(self) -> int:
        """What a target is one of: tokens of the vocabulary, or classes."""
        return vocabulary_size(self.tokenizer) if self.labels is None else len(self.labels)

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
    parts = load_each(source, kind) if splits is None else {"": splits}
    encoded = encode_each(parts, tokenizer, kind, cache_dir, source.verify == "full")
    complete = kind.complete(next(iter(encoded.values())).tokenizer)
    found = kind.classes(chain.from_iterable(part.train for part in parts.values()))
    classes = found if found is None or labels is None else list(labels)
    datasets = {
        name: _datasets(part, encoded[name], kind, source, complete, classes or ())
        for name, part in parts.items()
    }
    stats = {
        name: _stats(datasets[name], part, encoded[name], complete.unk_token_id)
        for name, part in parts.items()
    }
    lossless = {
        f"{split}/{name}".rstrip("/"): _is_lossless(complete, kind, part, split, stats[name][split])
        for name, part in parts.items()
        for split in SPLITS
    }
    mix = None
    if splits is None and isinstance(source, Mixture):
        train = {name: each["train"] for name, each in datasets.items()}
        mix = source.mix(train, kind.counted, stats)
        lossless |= {s: all(lossless[f"{s}/{name}"] for name in parts) for s in SPLITS}
        whole: dict[str, EncodedDataset] = {
            s: Joined({name: each[s] for name, each in datasets.items()}) for s in SPLITS
        }
        together = mixture.joined(parts)
    else:
        ((name, together),) = parts.items()
        whole = datasets[name]
    _check_sizes(whole, source, kind)
    named = getattr(tokenizer, "target_language", None) or "target" not in kind.fields
    unnamed = None if named else unnamed_language(complete)
    samples = Joint([getattr(together, split) for split in SPLITS])
    told = (
        *([unnamed] if unnamed else []),
        *alike(classes or ()),
        *kind.notes(complete, samples),
    )
    notes = [*together.origin.get("notes", ()), *told]
    return Prepared(
        kind=kind,
        tokenizer=complete,
        **whole,
        labels=classes,
        stats={split: _summed([of[split] for of in stats.values()]) for split in SPLITS},
        lossless=frozenset(split for split, held in lossless.items() if held),
        leakage=_leakage(together, source, cache_dir),
        cleaned=together.cleaned,
        fingerprint=together.fingerprint,
        origin={
            **together.origin,
            "fingerprint": together.fingerprint,
            "tokenizer": fingerprint(complete),
            **({"notes": notes} if notes else {}),
        },
        mix=mix,
    )


def load_each(source: Source, kind: SampleKind) -> dict[str, Splits]:
    """The splits of each source of a mixture, by its name; those of one that is none under ""."""
    if isinstance(source, Mixture):
        return kind.load_each(source)
    return {"": kind.load(source)}


def _datasets(
    splits: Splits,
    encoded: Encoded,
    kind: SampleKind,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
) -> dict[str, EncodedDataset]:
    return {
        split: kind.dataset(
            EncodedSplit(
                name=split,
                samples=getattr(splits, split),
                tokens={**encoded.tokens[split], **encoded.marks[split]},
                source=source,
                tokenizer=tokenizer,
                labels=labels,
            )
        )
        for split in SPLITS
    }


def _is_lossless(
    tokenizer: PreTrainedTokenizerBase,
    kind: SampleKind,
    splits: Splits,
    split: str,
    stats: Mapping[str, int],
) -> bool:
    """Whether the tokens of a split hold its whole text."""
    known = kind.lossless and not stats["unknown"]
    return known and keeps_text(tokenizer, getattr(splits, split))


def _leakage(splits: Splits, source: Source, cache_dir: Path | None) -> list[Leakage]:
    """What stands in several splits, found once for each content."""
    if source.decontaminate == "off":
        return []

    def write(folder: Path) -> None:
        samples = {split: getattr(splits, split) for split in SPLITS}
        found, kept = folder / _LEAKAGE, folder / "found"
        if not found.exists():
            kept.mkdir(exist_ok=True)
            leaks = leaked(splits.kind, samples, kept)
            write_json(found, [asdict(leak) for leak in leaks])
        shutil.rmtree(kept, ignore_errors=True)

    def read(folder: Path) -> list[Leakage]:
        return list(map(_read_leakage, json.loads((folder / _LEAKAGE).read_text())))

    root = (cache_dir or default_cache()) / "leakage"
    name = f"{splits.fingerprint[:32]}-{splits.kind}-{LEAKAGE_VERSION}"
    return cached(root, name, write, read, source.verify == "full")


def _read_leakage(kept: dict[str, Any]) -> Leakage:
    return Leakage(**{**kept, "examples": [Leak(**leak) for leak in kept["examples"]]})


def keeps_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sample]) -> bool:
    """Whether tokens are turned back into the text that they were made from.

    Decoders may put white space where there was none, and leave it out at the ends; a tokenizer of
    whole words never sees any, and keeps no text. Tried on pieces from all over the texts.
    """
    if isinstance(getattr(tokenizer, "backend_tokenizer", Tokenizer(BPE())).model, WordLevel):
        return False
    tried = list(spread_pieces(texts, TRIED_PIECES, TRIED_CHARACTERS))
    back = (str(tokenizer.decode(row.tolist())) for row in encode(tokenizer, tried))
    return all(_holds(a, b) for a, b in zip(tried, back, strict=True))


def _holds(text: str, back: str) -> bool:
    """Whether a decoded text has all of the original, its white space as well."""
    found, wanted = (_SPACED.findall(each.strip()) for each in (back, text))
    return len(found) == len(wanted) and all(
        one[1] == other[1] and other[0] in ("", one[0])
        for one, other in zip(found, wanted, strict=True)
    )


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
    datasets: Mapping[str, EncodedDataset],
    splits: Splits,
    encoded: Encoded,
    unknown: int | None,
) -> dict[str, dict[str, int]]:
    return {
        split: {
            "samples": len(getattr(splits, split)),
            "rows": len(dataset),
            "tokens": sum(rows.size for rows in encoded.tokens[split].values()),
            "unknown": sum(rows.count(unknown) for rows in encoded.tokens[split].values()),
            "bytes": sum(text_bytes(getattr(splits, split), f) for f in encoded.tokens[split]),
            "longest": dataset.longest,
            "truncated": dataset.truncated,
            "cut": dataset.cut,
            "without_target": dataset.without_target,
        }
        for split, dataset in datasets.items()
    }


def _summed(stats: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """What is known of the same split of several sources together."""
    return {
        name: (max if name == "longest" else sum)(one[name] for one in stats) for name in stats[0]
    }
