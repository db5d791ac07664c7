"""Texts to summarise that are installed anyway: docstrings of Python's library and of torch."""

import inspect
import platform
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from truesweep.data.embedded import Made, origin
from truesweep.data.kinds import PairKind
from truesweep.data.python_text import divide
from truesweep.data.samples import Pair, Sample
from truesweep.data.similarity import closest, normalise
from truesweep.data.splitting import Parts
from truesweep.text import figure

# Not of the library itself, or left out by some distributions.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
# Behind a line that ends with a colon, as that of `def` and `class` does. Parsing the code would
# take 20 times as long, and find few more.
_DOCSTRING = re.compile(r':[ \t]*\n[ \t]+[rR]?"""(.*?)"""', re.DOTALL)
_SHORTEST, _LONGEST = 60, 400  # characters of a text: worth a summary, and read whole
_FEWEST_WORDS = 3  # fewer are a name or a signature


def pairs(shares: Mapping[str, float]) -> Made:
    """What docstrings say behind their first line, and that line, which sums it up.

    Texts with a passage in common go to one split, as `python_text.divide` does it; of those that
    judge, what is much like a text before them is left out.
    """
    summaries = _summaries()
    parts = divide(list(summaries), shares)
    for judge, others in (("val", ["train"]), ("test", ["train", "val"])):
        if judge in parts:
            parts[judge] = _new(parts[judge], [s for name in others for s in parts.get(name, ())])
    made: Parts = {n: [Pair(str(t), summaries[str(t)]) for t in of] for n, of in parts.items()}
    packages = f"{platform.python_version()}, torch {version('torch')}"
    return made, origin("python", packages, "SHA-256 of texts", shares)


def _summaries() -> dict[str, str]:
    """The summary of each text, in the order of the files' names; ASCII only, no text twice."""
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    found: dict[str, str] = {}
    for folder in (Path(sysconfig.get_path("stdlib")), Path(torch.origin).parent):
        for path in sorted(folder.rglob("*.py")):
            if not _LEFT_OUT & set(path.relative_to(folder).parts):
                for text, summary in _divided(path.read_text(encoding="utf-8", errors="replace")):
                    found.setdefault(text, summary)
    return found


def _divided(code: str) -> Iterator[tuple[str, str]]:
    """What each docstring says first, and what it says then, as far as that is not too long."""
    for match in _DOCSTRING.finditer(code):
        summary, *rest = inspect.cleandoc(match[1]).split("\n\n")
        text = ""
        for part in rest:
            if len(text) + len(part) > _LONGEST:
                break
            text = f"{text}\n\n{part}".strip()
        plain = "\n" not in summary and (summary + text).isascii() and "\\" not in summary + text
        if plain and len(text) >= _SHORTEST and len(summary.split()) >= _FEWEST_WORDS:
            yield text, summary


def _new(texts: Sequence[Sample], known: Sequence[Sample]) -> list[Sample]:
    """The texts that are not much like known ones."""
    alike = closest([normalise(str(t)) for t in texts], [normalise(str(t)) for t in known])
    return [text for i, text in enumerate(texts) if i not in alike]


class SummaryKind(PairKind):
    """Texts and a summary of each."""

    answer = "summary"
    aligned = False
    needed = 150  # 4 points of ROUGE at a standard deviation of 0.25 a text
    embedded = staticmethod(pairs)

    def uncertainty(self, size: int) -> str:
        """Of ROUGE."""
        return f"its ROUGE is known to ±{figure(1.96 * 0.25 / max(1, size) ** 0.5, 2)} at best"


SUMMARIES = SummaryKind()
