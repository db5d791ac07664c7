"""Splits made from a sample's content, and what must hold between splits.

Which side a sample falls on follows from a hash of what the model reads of it, never from its place
or from chance: duplicates stay on one side, and a sample stays where it is when others are added.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, dropwhile, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from truesweep.data.division import Division, begun_by
from truesweep.data.samples import Chat, Kind, Labelled, Pair, Sample, Splits, hash_splits
from truesweep.data.source import Source
from truesweep.data.texts import BLOCK, StoredText, Text, Texts, TextsWriter
from truesweep.errors import ConfigError, DataError

KEY = "data.train"
_PARAGRAPH, _LINE, _OLD_LINE = map(re.compile, (rb"\n(?:[ \t]*\r?\n)+", rb"\n", rb"\r"))
_UNITS = {"paragraphs": _PARAGRAPH, "lines": _LINE, "lines, of old": _OLD_LINE}
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
    texts = [sample for sample in samples if isinstance(sample, str)]
    if texts and (documents or len(texts) == 1):
        parts, by = split_documents(texts, shares)
        return parts, _how(by, shares), _notes(by, shares)
    parts, notes = split_off(samples, shares), []
    if kept := _keep_classes(parts):
        notes.append(
            f"{KEY}: samples of classes that nothing would be left of to train on "
            f"were not split off ({kept:,} of them)"
        )
    notes += _said(_fill(parts), parts)
    return parts, _how("samples", shares), notes


def divide_stored(
    texts: Texts, shares: Mapping[str, float], documents: bool, folder: Path
) -> tuple[dict[str, Texts], dict[str, Any], list[str]]:
    """Split parts off from training texts, as `divide` does.

    Args:
        texts: The training texts.
        shares: Of what is to be split off, by the name of the split.
        documents: Whether each split gets a part of each of them.
        folder: Where the splits are written.
    """
    names = ("train", *shares)
    if documents or len(texts) == 1:
        by = _split_stored(texts, shares, folder)
        return _parts(folder, names), _how(by, shares), _notes(by, shares)
    _distribute(texts, shares, folder)
    parts, wider = _parts(folder, names), dict(shares)
    for name in shares:
        if not parts[name]:
            first, last = _ends(text for text in texts.parts() if _side(text, wider) == "train")
            if first < last:
                wider[name] = math.nextafter(first, 1) if name == "val" else 1 - last
    if widened := [name for name in shares if wider[name] != shares[name]]:
        _distribute(texts, wider, folder)
        parts = _parts(folder, names)
    return parts, _how("samples", shares), _said(widened, parts)


def _distribute(texts: Texts, shares: Mapping[str, float], folder: Path) -> None:
    """Write each text to the split on whose side it falls."""
    with Division(folder, ("train", *shares), json.dumps(shares)) as division:
        (start,) = division.place or (0,)
        for number, text in enumerate(texts.parts(start), start + 1):
            writer = division.writers[_side(text, shares)]
            writer.add([text.encode()] if isinstance(text, str) else text.byte_blocks())
            division.advance(len(text), number)


def _parts(folder: Path, names: Iterable[str]) -> dict[str, Texts]:
    return {name: Texts(folder, name) for name in names}


def _how(by: str, shares: Mapping[str, float]) -> dict[str, Any]:
    by = by if by == CHARACTERS else f"SHA-256 of {by} of train"
    return {"by": by, "shares": {**shares}}


def _notes(by: str, shares: Mapping[str, float]) -> list[str]:
    if by != CHARACTERS:
        return []
    few = "has too few lines to divide, so that"
    return [f"{KEY}: {few} {' and '.join(shares)} are its last characters"]


def _said(filled: Sequence[str], parts: Mapping[str, Sequence[Any]]) -> list[str]:
    """What to say of splits for which samples were taken; of no use where one has none still."""
    if not all(parts.values()):
        return []
    return [
        f"{KEY}: has so few samples that none fell into {name} by its share, "
        f"data.{name}_fraction; the nearest one was taken"
        for name in filled
    ]


def split_off(samples: Iterable[Sample], shares: Mapping[str, float]) -> Parts:
    """Distribute samples over `train` and the splits of `shares`, keeping their order."""
    parts: Parts = {name: [] for name in ("train", *shares)}
    for sample in samples:
        parts[_side(_read(sample), shares)].append(sample)
    return parts


def split_documents(documents: Sequence[str], shares: Mapping[str, float]) -> tuple[Parts, str]:
    """Distribute the paragraphs of documents, or their lines where paragraphs are too few.

    Where lines are too few as well, each document is cut in two or three.

    Returns:
        Each split's part of each document, verbatim and in order; and what was distributed.
    """
    with TemporaryDirectory() as aside:
        folder = Path(aside)
        with TextsWriter(folder, "all") as writer:
            for document in documents:
                writer.add([document.encode()])
        by = _split_stored(Texts(folder, "all"), shares, folder)
        return {name: list(Texts(folder, name)) for name in ("train", *shares)}, by


def _split_stored(documents: Texts, shares: Mapping[str, float], folder: Path) -> str:
    """Distribute documents as `split_documents` does, into texts of the splits' names."""
    names = ("train", *shares)
    begun = begun_by(folder)
    for by, end in dropwhile(lambda unit: begun in _UNITS and unit[0] != begun, _UNITS.items()):
        with Division(folder, names, by) as division:
            _cut_units(documents, end, shares, division)
        if all(len(Texts(folder, name)) for name in names):
            return by.partition(",")[0]
    with Division(folder, names, CHARACTERS) as division:
        for document in documents.stored():
            _cut_characters(document, shares, division.writers)
    return CHARACTERS


def _cut_units(
    documents: Texts, end: re.Pattern[bytes], shares: Mapping[str, float], division: Division
) -> None:
    """Distribute the parts of documents that end with a pattern."""
    writers = division.writers
    first, begun, sides = division.place or (0, None, ())
    for number, document in islice(enumerate(documents.stored()), first, None):
        written = set(sides)
        rest = document if begun is None else replace(document, start=begun)
        for begin, stop in _cut(rest, end):
            if stop - begin > BLOCK:
                block = replace(document, start=begin, end=stop)
                side, parts = _side(block, shares), block.byte_blocks()
            else:
                data = documents.read(begin, stop)
                side, parts = _side(data.decode(), shares), iter((data,))
            for part in parts:
                writers[side].write(part)
            written.add(side)
            division.advance(stop - begin, number, stop, sorted(written))
        for side in written:
            writers[side].end()
        begun, sides = None, ()


def _cut(text: StoredText, end: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    """Where the parts of a text are that end with a pattern of white space, and the last part."""
    begun, at, held = text.start, text.start, b""
    for block in chain(text.byte_blocks(), (b"",)):
        held += block
        # What matches behind it may go on in the next block.
        safe = len(held.rstrip(b" \t\r\n")) if block else len(held)
        for match in end.finditer(held):
            if match.start() >= safe:
                break
            yield begun, at + match.end()
            begun = at + match.end()
        held, at = held[safe:], at + safe
    if begun < text.end:
        yield begun, text.end


def _cut_characters(
    text: StoredText, shares: Mapping[str, float], writers: Mapping[str, TextsWriter]
) -> None:
    """Cut a text: its end is what is split off."""
    length = end = sum(map(len, text.blocks()))
    ranges: list[tuple[int, int, str]] = []
    for name, share in reversed(list(shares.items())):
        start = end - int(length * share)
        ranges.insert(0, (start, end, name))
        end = start
    at = 0
    for block in text.blocks():
        for start, stop, name in ((0, end, "train"), *ranges):
            writers[name].write(block[max(0, start - at) : max(0, stop - at)].encode())
        at += len(block)
    for name in ("train", *(name for start, stop, name in ranges if start < stop)):
        writers[name].end()


def paragraphs(text: str) -> list[str]:
    """Blocks of a text that end with blank lines, which they include; joined, the text again."""
    ends = [match.end() for match in re.finditer(_PARAGRAPH.pattern.decode(), text)]
    blocks = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [block for block in blocks if block]


def lines(text: str) -> list[str]:
    """Lines of a text with their ends; joined, the text again."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def passages(text: Text) -> Iterator[str]:
    """The paragraphs of a text, or its lines where its beginning has but one; joined, the text."""
    stream = iter((text,)) if isinstance(text, str) else text.blocks()
    held = next(stream, "")
    cut = paragraphs if len(paragraphs(held)) > 1 else lines
    for block in stream:
        *whole, held = cut(held)  # the last one may go on
        yield from whole
        if len(held) > BLOCK:
            yield held
            held = ""
        held += block
    yield from cut(held)


def complete(
    kind: Kind,
    parts: Mapping[str, Sequence[Sample]],
    origin: dict[str, Any],
    notes: Sequence[str] = (),
) -> Splits:
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
                f"There is no sample for {name}, of {sum(map(len, parts.values())):,} in all. Add "
                f"samples, raise data.{name}_fraction, or name samples for {name} alone: "
                f"data.{name}=…, with data=hub data.{name}_split=…."
                + "".join(f" {note}." for note in notes)
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
            place = abs(_position(_read(sample)) - 0.5), _read(sample)
            nearest[sample.label] = min(place, nearest.get(sample.label, place))
    back = {text for _, text in nearest.values()}
    kept = [sample for part in split.values() for sample in part if _read(sample) in back]
    for name, part in split.items():
        parts[name] = [sample for sample in part if _read(sample) not in back]
    parts["train"] += kept
    return len(kept)


def _fill(parts: Parts) -> list[str]:
    """Take a text for each split that has none, if `train` keeps another one of its class.

    Returns:
        The splits for which there was one.
    """
    filled = []
    for name in [name for name, part in parts.items() if name != "train" and not part]:
        of_class: dict[str | None, set[str]] = {}
        for sample in parts["train"]:
            label = sample.label if isinstance(sample, Labelled) else None
            of_class.setdefault(label, set()).add(_read(sample))
        last = {text for texts in of_class.values() if len(texts) == 1 for text in texts}
        if spare := set().union(*of_class.values()) - last:
            found = (min if name == "val" else max)(spare, key=_position)
            parts[name] = [sample for sample in parts["train"] if _read(sample) == found]
            parts["train"] = [sample for sample in parts["train"] if _read(sample) != found]
            filled.append(name)
    return filled


def _side(read: Text, shares: Mapping[str, float]) -> str:
    """`val` takes hashes from the bottom, `test` from the top: neither moves the other's border.

    Args:
        read: What is read of a sample.
        shares: Of what is split off, by the name of the split.
    """
    position = _position(read)
    if position < shares.get("val", 0.0):
        return "val"
    return "test" if 1 - position <= shares.get("test", 0.0) else "train"


def _position(read: Text) -> float:
    """The place of a text, without white space around it, among all there could be: 0 to 1."""
    if isinstance(read, str):
        digest = hashlib.sha256(read.strip().encode())
    else:
        digest = hashlib.sha256()
        for block in _stripped(read.blocks()):
            digest.update(block.encode())
    return int.from_bytes(digest.digest()[:8], "big") / 2**64


def _ends(texts: Iterable[Text]) -> tuple[float, float]:
    """The first and the last of the places of texts."""
    first, last = 1.0, 0.0
    for text in texts:
        place = _position(text)
        first, last = min(first, place), max(last, place)
    return first, last


def _stripped(blocks: Iterable[str]) -> Iterator[str]:
    """A text in blocks, without white space around it."""
    begun, held = False, ""
    for block in blocks:
        held += block if begun else block.lstrip()
        body = held.rstrip()
        yield body
        begun, held = begun or bool(body), held[len(body) :]


def _read(sample: Sample) -> str:
    """What a model reads of a sample, to be compared with others'."""
    read = sample.source if isinstance(sample, Pair | Chat) else sample
    return (read.text if isinstance(read, Labelled) else read).strip()


def _labels(samples: Iterable[Sample]) -> set[str]:
    return {sample.label for sample in samples if isinstance(sample, Labelled)}
