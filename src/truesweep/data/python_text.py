"""Documents that every Python carries: its language reference and its standard library's source."""

import hashlib
import importlib
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from truesweep.data.splitting import Parts, paragraphs

# Modules that say something and are not mostly tables, in bytes.
_SMALLEST, _LARGEST = 2_000, 48_000
# Bounds the time of an epoch, whatever a distribution adds to the standard library; in bytes.
_ALL_MODULES = 3_000_000
# Keeps a character tokenizer's vocabulary to what the training split surely holds.
_TO_ASCII = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."})


def documents() -> list[str]:
    """Topics of `help()`, then modules, each in a fixed order; ASCII only, no text twice."""
    texts = [*_topics(), *_modules(Path(sysconfig.get_path("stdlib")))]
    return list(dict.fromkeys(text for text in texts if text.isascii()))


def divide(documents: list[str], shares: Mapping[str, float]) -> Parts:
    """Give whole documents, in the order of their SHA-256, to the splits of `shares`.

    A split takes what fits into its share of all characters, so that its size is known whatever
    version of Python the documents come from; `train` takes the rest, in the order given.
    """
    total = sum(map(len, documents))
    rest = sorted(documents, key=lambda text: hashlib.sha256(text.encode()).digest())
    parts: Parts = {}
    for name, share in shares.items():
        parts[name] = [*_fill(rest, share * total)]
        rest = [text for text in rest if text not in parts[name]]
    left = set(rest)
    return {"train": [text for text in documents if text in left], **parts}


def _fill(texts: Iterable[str], budget: float) -> list[str]:
    chosen = []
    for text in texts:
        if len(text) <= budget:
            chosen.append(text)
            budget -= len(text)
    return chosen


def _topics() -> list[str]:
    """The language reference by topic, without topics that stand within larger ones."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions package it apart
        return []
    kept, seen = [], set[str]()
    for text in sorted(topics.values(), key=lambda text: (-len(text), text)):
        blocks = [block.strip() for block in paragraphs(text)]
        new = sum(len(block) for block in blocks if block not in seen)
        if new > len(text) / 2:
            kept.append(text.translate(_TO_ASCII))
        seen.update(blocks)
    return kept


def _modules(folder: Path) -> list[str]:
    """Source of top-level modules, in the order of their names; none where it is not installed."""
    kept, left = [], _ALL_MODULES
    for path in sorted(folder.glob("*.py")):
        size = path.stat().st_size
        generated = path.name.startswith("_sysconfigdata")
        if _SMALLEST <= size <= min(_LARGEST, left) and not generated:
            kept.append(path.read_text(encoding="utf-8"))
            left -= size
    return kept
