"""Splits of texts that are written once, as UTF-8, and stay on disk."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from truesweep.data.cache import cached, default_cache
from truesweep.data.division import JOURNAL, PART
from truesweep.data.readers import Document
from truesweep.data.samples import Splits
from truesweep.data.splitting import complete, divide_stored
from truesweep.data.texts import Texts, TextsWriter
from truesweep.record.files import write_json

VERSION = 1  # of the texts that are kept; a new one leaves all older ones unread
_DESCRIBED = "splits.json"
_READING = "reading.json"  # how far the texts of each split are
_READ = "read.json"  # while the texts are being divided: what was done to them

Blocks = Iterable[bytes]
"""A text, a block of UTF-8 at a time."""


def stored(
    key: Mapping[str, Any],
    texts: Mapping[str, Callable[[], Iterable[Blocks]]],
    missing: Mapping[str, float],
    documents: bool,
    origin: Mapping[str, Any],
    told: Callable[[], list[str]],
    full: bool = False,
) -> Splits:
    """The splits of texts, from the cache or else read one by one.

    Args:
        key: What decides them besides the shares of what is split off, as JSON values.
        texts: Gives the texts of each split that there is.
        missing: The splits that are split off from `train`, and the share of each.
        documents: Whether each of these gets a part of each text.
        origin: Where the texts come from.
        told: Says what was done to the texts, once they are read.
        full: Read all of what is kept to see whether it is damaged.
    """
    whole = {**key, "shares": dict(missing), "version": VERSION}
    name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]

    def write(folder: Path) -> None:
        # Each step leaves a file, and those that are done are not done again after a kill.
        whole = folder / "whole"  # what is to be divided
        places = {name: whole if missing and name == "train" else folder for name in texts}
        if not (folder / _DESCRIBED).exists():
            if not (folder / _READ).exists():
                whole.mkdir(exist_ok=True)
                reading = _Reading(folder / _READING)
                for name, give in texts.items():
                    reading.write(places[name], name, give())
                write_json(folder / _READ, told())
            made = {name: Texts(place, name) for name, place in places.items()}
            how: dict[str, Any] = {}
            notes: list[str] = []
            if missing:
                divided, split_off, notes = divide_stored(made["train"], missing, documents, folder)
                made |= divided
                how = {"split_off": split_off}
            notes = [*json.loads((folder / _READ).read_text(encoding="utf-8")), *notes]
            splits = complete("text", made, {**origin, **how}, notes)
            described = {"fingerprint": splits.fingerprint, "origin": splits.origin}
            write_json(folder / _DESCRIBED, described)
        shutil.rmtree(whole, ignore_errors=True)
        for step in (_READING, _READ, JOURNAL):
            (folder / step).unlink(missing_ok=True)

    def read(folder: Path) -> Splits:
        described = json.loads((folder / _DESCRIBED).read_text(encoding="utf-8"))
        train, val, test = (Texts(folder, name) for name in ("train", "val", "test"))
        return Splits(train, val, test, "text", described["fingerprint"], described["origin"])

    return cached(default_cache() / "texts", name, write, read, full)


class _Reading:
    """Texts on their way from files, which go on where they were before a kill.

    Texts that are kept are asked for once more, since what was done to them is told by reading
    them; a whole file, of which there is nothing to tell, is not read again.

    Args:
        journal: What says how far they are.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._kept: dict[str, tuple[int, int]] = {}
        if journal.exists():
            self._kept = json.loads(journal.read_text(encoding="utf-8"))

    def write(self, folder: Path, name: str, texts: Iterable[Blocks]) -> None:
        """Write all texts of a split that are not there."""
        with TextsWriter(folder, name, self._kept.get(name, (0, 0))) as writer:
            ended, begun = writer.place
            held = 0
            for text in islice(texts, ended, None):
                for block in _after(text, begun):
                    writer.write(block)
                    if (held := held + len(block)) >= PART:
                        self._commit(name, writer)
                        held = 0
                writer.end()
                begun = 0
            self._commit(name, writer)

    def _commit(self, name: str, writer: TextsWriter) -> None:
        self._kept[name] = writer.commit()
        write_json(self._journal, self._kept)


def _after(text: Blocks, size: int) -> Iterator[bytes]:
    """What comes behind the first bytes of a text."""
    if isinstance(text, Document):
        yield from text.after(size)
        return
    for block in text:
        yield block[size:]
        size = max(0, size - len(block))
