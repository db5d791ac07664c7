"""Splits made from a sample's content, and what must hold between splits.

Which side a sample falls on follows from a hash of what the model reads of it, never from its place
or from chance: duplicates stay on one side, and a sample stays where it is when others are added.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from truesweep.data.samples import Chat, Kind, Labelled, Pair, Sample, Splits, hash_splits
from truesweep.data.source import Source
from truesweep.errors import ConfigError, DataError

KEY = "data.train"
CHARACTERS = "characters of train, its last ones"
"""How a text is divided that has too few lines."""

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


def divide(
    samples: Sequence[Sample], shares: Mapping[str, float], documents: bool = False
) -> tuple[Parts, dict[str, Any], list[str]]:
    """Split parts off from training samples.

    Args:
        samples: The training samples.
        shares: Of what is to be split off, by the name of the split.
        documents: Whether they are whole documents, of which each split gets a part. So is a text
            that is the only one.

    Returns:
        The splits; how they were made, for provenance; and what the user should know of that.
    """
    notes: list[str] = []
    texts = [sample for sample in samples if isinstance(sample, str)]
    if texts and (documents or len(texts) == 1):
        parts, by = split_documents(texts, shares)
        if by == CHARACTERS:
            notes.append(
                f"{KEY}: has too few lines to divide, so that {' and '.join(shares)} are "
                "its last characters"
            )
    else:
        parts, by = split_off(samples, shares), "samples"
        if kept := _keep_classes(parts):
            notes.append(
                f"{KEY}: samples of classes that nothing would be left of to train on "
                f"were not split off ({kept:,} of them)"
            )
    by = by if by == CHARACTERS else f"SHA-256 of {by} of train"
    return parts, {"by": by, "shares": {**shares}}, notes


def split_off(samples: Iterable[Sample], shares: Mapping[str, float]) -> Parts:
    """Distribute samples over `train` and the splits of `shares`, keeping their order."""
    parts: Parts = {name: [] for name in ("train", *shares)}
    for sample in samples:
        parts[_side(sample, shares)].append(sample)
    return parts


def split_documents(documents: list[str], shares: Mapping[str, float]) -> tuple[Parts, str]:
    """Distribute the paragraphs of documents, or their lines where paragraphs are too few.

    Where lines are too few as well, each document is cut in two or three.

    Returns:
        Each split's part of each document, verbatim and in order; and what was distributed.
    """
    units = (paragraphs, "paragraphs"), (lines, "lines"), (_lines_of_old, "lines")
    for cut, unit in units:
        parts = _split_blocks(documents, shares, cut)
        if all(parts.values()):
            return parts, unit
    return _split_characters(documents, shares), CHARACTERS


def paragraphs(text: str) -> list[str]:
    """Blocks of a text that end with blank lines, which they include; joined, the text again."""
    ends = [match.end() for match in re.finditer(r"\n(?:[ \t]*\r?\n)+", text)]
    blocks = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [block for block in blocks if block]


def lines(text: str) -> list[str]:
    """Lines of a text with their ends; joined, the text again."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _lines_of_old(text: str) -> list[str]:
    """Lines that end by carriage returns."""
    return re.findall(r"[^\r]*\r|[^\r]+", text)


def complete(kind: Kind, parts: Parts, origin: dict[str, Any], notes: Sequence[str] = ()) -> Splits:
    """Make `Splits` of three parts, none of which may be empty; each adds its hash to the origin.

    Args:
        kind: The kind of their samples.
        parts: The three of them.
        origin: Where they come from.
        notes: What was done to them that the user should know; a sentence each.

    Raises:
        DataError: A part is empty: too few samples for the share that was split off.
    """
    for name, samples in parts.items():
        if not samples:
            raise DataError(
                f"There is no sample for {name}, of {sum(map(len, parts.values())):,} in all. A "
                "split that is divided from the training data by content hash needs more of them, "
                "or another data.val_fraction=… and data.test_fraction=…; or name a split of its "
                "own." + "".join(f" {note}." for note in notes)
            )
    hashes = {name: hash_splits([parts[name]]) for name in ("train", "val", "test")}
    origin = {**origin, "fingerprints": hashes}
    if notes:
        origin["notes"] = list(dict.fromkeys(notes))
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


def _split_characters(documents: list[str], shares: Mapping[str, float]) -> Parts:
    """Cut each document: its end is what is split off."""
    parts: Parts = {name: [] for name in ("train", *shares)}
    for text in documents:
        end = len(text)
        for name, share in reversed(list(shares.items())):
            start = end - int(len(text) * share)
            parts[name] += [text[start:end]] if start < end else []
            end = start
        parts["train"] += [text[:end]]
    return parts


def _keep_classes(parts: Parts) -> int:
    """Take back into `train` what it needs to have a sample of each class.

    Of a class that it lacks, the text that is the farthest from being trained on is left where it
    is for as long as there is another one: a class with one text is trained on only.

    Returns:
        How many samples were taken back.
    """
    split = {name: part for name, part in parts.items() if name != "train"}
    lacking = set().union(*(_labels(part) for part in split.values())) - _labels(parts["train"])
    if not lacking:
        return 0
    nearest: dict[str, tuple[float, str]] = {}
    for sample in chain.from_iterable(split.values()):
        if isinstance(sample, Labelled) and sample.label in lacking:
            place = abs(_position(sample) - 0.5), _read(sample)
            nearest[sample.label] = min(place, nearest.get(sample.label, place))
    back = {text for _, text in nearest.values()}
    kept = [sample for part in split.values() for sample in part if _read(sample) in back]
    for name, part in split.items():
        parts[name] = [sample for sample in part if _read(sample) not in back]
    parts["train"] += kept
    return len(kept)


def _side(sample: Sample, shares: Mapping[str, float]) -> str:
    """`val` takes hashes from the bottom, `test` from the top: neither moves the other's border."""
    position = _position(sample)
    if position < shares.get("val", 0.0):
        return "val"
    return "test" if 1 - position <= shares.get("test", 0.0) else "train"


def _position(sample: Sample) -> float:
    """The place of what is read of a sample among all there could be: from 0 to 1."""
    digest = hashlib.sha256(_read(sample).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _read(sample: Sample) -> str:
    """What a model reads of a sample, to be compared with others'."""
    read = sample.source if isinstance(sample, Pair | Chat) else sample
    return (read.text if isinstance(read, Labelled) else read).strip()


def _labels(samples: Iterable[Sample]) -> set[str]:
    return {sample.label for sample in samples if isinstance(sample, Labelled)}
