"""Documents that every Python carries: its language reference and its standard library's source."""

import hashlib
import importlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from truesweep.data.splitting import Parts, paragraphs

# Modules that say something and are not mostly tables, in bytes.
_SMALLEST, _LARGEST = 2_000, 48_000
# Bounds the time of an epoch, whatever a distribution adds to the standard library; in bytes.
_ALL_MODULES = 3_000_000
# Shorter ones, such as `if __name__ == "__main__": main()`, stand in modules of all kinds.
_SHORTEST_PASSAGE = 60  # characters
# Keeps a character tokenizer's vocabulary to what the training split surely holds.
_TO_ASCII = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."})


def documents() -> list[str]:
    """Topics of `help()`, then modules, each in a fixed order; ASCII only, no text twice."""
    texts = [*_topics(), *_modules(Path(sysconfig.get_path("stdlib")))]
    return list(dict.fromkeys(text for text in texts if text.isascii()))


def divide(documents: list[str], shares: Mapping[str, float]) -> Parts:
    """Give whole documents to the splits of `shares`, those that have a passage in common to one.

    A split takes what fits into its share of all characters, in the order of SHA-256, so that its
    size is known whatever version of Python the documents come from; `train` takes the rest, in
    the order given.
    """
    total = sum(map(len, documents))
    rest = sorted(families(documents), key=lambda texts: hashlib.sha256(texts[0].encode()).digest())
    parts: Parts = {}
    for name, share in shares.items():
        chosen = _fill(rest, share * total)
        parts[name] = [text for texts in chosen for text in texts]
        rest = [texts for texts in rest if texts not in chosen]
    left = {text for texts in rest for text in texts}
    return {"train": [text for text in documents if text in left], **parts}


def families(documents: Sequence[str]) -> list[list[str]]:
    """Documents grouped so that no two groups have a passage in common.

    A model that was trained on `ntpath` would know much of `posixpath`.
    """
    family = {text: [text] for text in documents}
    owner: dict[str, str] = {}
    for text in documents:
        for passage in _passages(text):
            ours, theirs = family[text], family[owner.setdefault(passage, text)]
            if ours is not theirs:
                theirs.extend(ours)
                family |= dict.fromkeys(ours, theirs)
    return list({id(texts): texts for texts in family.values()}.values())


def _passages(text: str) -> Iterator[str]:
    """Paragraphs that are long enough not to be alike by chance, whatever their white space."""
    for paragraph in paragraphs(text):
        words = " ".join(paragraph.split())
        if len(words) >= _SHORTEST_PASSAGE:
            yield words


def _fill(rest: Iterable[list[str]], budget: float) -> list[list[str]]:
    chosen = []
    for texts in rest:
        size = sum(map(len, texts))
        if size <= budget:
            chosen.append(texts)
            budget -= size
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
