"""Splits of texts that are written once, as UTF-8, and stay on disk."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from truesweep.data.cache import cached, default_cache
from truesweep.data.samples import Splits
from truesweep.data.splitting import complete, divide_stored
from truesweep.data.texts import Texts, TextsWriter
from truesweep.record.files import write_json

VERSION = 1  # of the texts that are kept; a new one leaves all older ones unread
_DESCRIBED = "splits.json"

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
        made = {name: _write(folder, name, give()) for name, give in texts.items()}
        how: dict[str, Any] = {}
        notes: list[str] = []
        if missing:
            with TemporaryDirectory(dir=folder) as aside:
                train = _moved(folder, "train", Path(aside))
                divided, split_off, notes = divide_stored(train, missing, documents, folder)
            made |= divided
            how = {"split_off": split_off}
        splits = complete("text", made, {**origin, **how}, [*told(), *notes])
        described = {"fingerprint": splits.fingerprint, "origin": splits.origin}
        write_json(folder / _DESCRIBED, described)

    def read(folder: Path) -> Splits:
        described = json.loads((folder / _DESCRIBED).read_text(encoding="utf-8"))
        train, val, test = (Texts(folder, name) for name in ("train", "val", "test"))
        return Splits(train, val, test, "text", described["fingerprint"], described["origin"])

    return cached(default_cache() / "texts", name, write, read, full)


def _write(folder: Path, name: str, texts: Iterable[Blocks]) -> Texts:
    with TextsWriter(folder, name) as writer:
        for text in texts:
            writer.add(text)
    return Texts(folder, name)


def _moved(folder: Path, name: str, other: Path) -> Texts:
    """Texts that are read from another folder than they were written to."""
    for file in folder.glob(f"{name}.*"):
        file.rename(other / file.name)
    return Texts(other, name)
