"""Splits made from a sample's content, and what must hold between splits.

Which side a sample falls on follows from a hash of what the model reads of it, never from its place
or from chance: duplicates stay on one side, and a sample stays where it is when others are added.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from truesweep.data.samples import Kind, Labelled, Pair, Sample, Splits, hash_splits
from truesweep.data.source import Source
from truesweep.errors import ConfigError, DataError

Parts = dict[str, list[Sample]]  # samples of "train", "val", "test", as far as there are any


def shares(source: Source, given: Iterable[str]) -> dict[str, float]:
    """The splits that are not given, and the share of the training data that each shall take.

    Raises:
        ConfigError: They leave nothing to train on.
    """
    missing = {"val": source.val_fraction, "test": source.test_fraction}
    for name in given:
        missing.pop(name, None)
    if sum(missing.values()) >= 1:
        raise ConfigError(
            f"data.val_fraction={source.val_fraction} and data.test_fraction="
            f"{source.test_fraction} leave nothing to train on. Their sum must be under 1."
        )
    return missing


def split_off(samples: Iterable[Sample], shares: Mapping[str, float]) -> Parts:
    """Distribute samples over `train` and the splits of `shares`, keeping their order."""
    parts: Parts = {name: [] for name in ("train", *shares)}
    for sample in samples:
        parts[_side(sample, shares)].append(sample)
    return parts


def split_documents(documents: list[str], shares: Mapping[str, float]) -> tuple[Parts, str]:
    """Distribute the paragraphs of documents, or their lines where paragraphs are too few.

    Returns:
        Each split's part of each document, verbatim and in order; and what was distributed.
    """
    parts = _split_blocks(documents, shares, paragraphs)
    if all(parts.values()):
        return parts, "paragraphs"
    return _split_blocks(documents, shares, lines), "lines"


def paragraphs(text: str) -> list[str]:
    """Blocks of a text that end with blank lines, which they include; joined, the text again."""
    ends = [match.end() for match in re.finditer(r"\n(?:[ \t]*\r?\n)+", text)]
    blocks = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [block for block in blocks if block]


def lines(text: str) -> list[str]:
    """Lines of a text with their ends; joined, the text again."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def complete(kind: Kind, parts: Parts, origin: dict[str, Any]) -> Splits:
    """Make `Splits` of three parts, none of which may be empty; each adds its hash to the origin.

    Raises:
        DataError: A part is empty: too few samples for the share that was split off.
    """
    for name, samples in parts.items():
        if not samples:
            raise DataError(
                f"There is no sample for {name}. A split that is divided from the training data "
                "by content hash needs more of them, or another data.val_fraction=… and "
                "data.test_fraction=…; or name a split of its own."
            )
    hashes = {name: hash_splits([parts[name]]) for name in ("train", "val", "test")}
    origin = {**origin, "fingerprints": hashes}
    return Splits.of(kind, parts["train"], parts["val"], parts["test"], origin)


def check_labels(splits: Splits, locate: Callable[[str, str], str]) -> None:
    """Refuse a class that is evaluated but never trained.

    Args:
        splits: Samples of any kind; only labelled ones can fail.
        locate: Words for where a label first stands, from the name of a split and the label.

    Raises:
        DataError: A label of `val` or `test` is not in `train`.
    """
    known = _labels(splits.train)
    for name, samples in (("val", splits.val), ("test", splits.test)):
        for label in sorted(_labels(samples) - known):
            raise DataError(
                f"{locate(name, label)}: label {label!r} is in {name} and not in train, where "
                f"there are: {', '.join(sorted(known)[:20])}. Add training samples of it, correct "
                "the label, or remove the sample."
            )


def _split_blocks(
    documents: list[str], shares: Mapping[str, float], cut: Callable[[str], list[str]]
) -> Parts:
    parts: Parts = {name: [] for name in ("train", *shares)}
    for document in documents:
        for name, blocks in split_off(cut(document), shares).items():
            parts[name] += ["".join(map(str, blocks))] if blocks else []
    return parts


def _side(sample: Sample, shares: Mapping[str, float]) -> str:
    """`val` takes hashes from the bottom, `test` from the top: neither moves the other's border."""
    read = sample.source if isinstance(sample, Pair) else sample
    read = read.text if isinstance(read, Labelled) else read
    digest = hashlib.sha256(read.strip().encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < shares.get("val", 0.0):
        return "val"
    return "test" if 1 - position <= shares.get("test", 0.0) else "train"


def _labels(samples: Iterable[Sample]) -> set[str]:
    return {sample.label for sample in samples if isinstance(sample, Labelled)}
