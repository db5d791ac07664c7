"""Docstrings of Python's library and of torch, which are installed anyway: to sum up, or to ask."""

import inspect
import platform
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from truesweep.data.embedded import Made, origin
from truesweep.data.kinds import PairKind
from truesweep.data.python_text import divide
from truesweep.data.samples import Chat, Pair, Sample
from truesweep.data.similarity import closest, normalise
from truesweep.data.splitting import Parts, split_off
from truesweep.text import figure

# Not of the library itself, or left out by some distributions.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
# Behind a line that ends with a colon, as that of `def` and `class` does. Parsing the code would
# take 20 times as long, and find few more.
_DOCSTRING = re.compile(r':[ \t]*\n[ \t]+[rR]?"""(.*?)"""', re.DOTALL)
# A function's name and parameters, where none of these has a parenthesis, and its docstring.
_FUNCTION = re.compile(
    r'^[ \t]*def ([a-z]\w*)\(([^()]*)\)[^\n:]*:[ \t]*\n[ \t]+[rR]?"""(.*?)"""',
    re.DOTALL | re.MULTILINE,
)
_MOST_PARAMETERS = 8
_SHORTEST, _LONGEST = 60, 400  # characters of a text: worth a summary, and read whole
_FEWEST_WORDS = 3  # fewer are a name or a signature


def pairs(shares: Mapping[str, float]) -> Made:
    """What docstrings say behind their first line, and that line, which sums it up.

    Texts with a passage in common go to one split, as `python_text.divide` does it; of those that
    judge, what is much like a text before them is left out.
    """
    summaries = _summaries()
    parts = _new(divide(list(summaries), shares), str)
    made: Parts = {n: [Pair(str(t), summaries[str(t)]) for t in of] for n, of in parts.items()}
    return made, _origin(shares)


def chats(shares: Mapping[str, float]) -> Made:
    """Conversations about functions: what one does, as its docstring says, and its parameters.

    No two have the first line of a docstring in common, nor a name; of those that judge, what is
    much like a conversation before them is left out.
    """
    talks: dict[str, Chat] = {}
    known = set[str]()
    for module, code in _modules():
        for name, parameters, docstring in _FUNCTION.findall(code):
            summary = inspect.cleandoc(docstring).partition("\n\n")[0]
            talk = _talk(called := f"{module}.{name}", parameters, summary)
            if talk is not None and called not in known:
                known.add(called)
                talks.setdefault(normalise(summary), talk)
    parts = split_off(talks.values(), shares)
    return _new(parts, lambda chat: cast(Chat, chat).source), _origin(shares)


def preferences(shares: Mapping[str, float]) -> Made:
    """The same conversations; rejected is what is true of another function."""
    parts, origin = chats(shares)
    return {name: _with_rejected([*cast(Sequence[Chat], of)]) for name, of in parts.items()}, origin


def _with_rejected(talks: Sequence[Chat]) -> list[Sample]:
    """Conversations, each preferred to itself with the last answer of the next that asks so."""
    found: list[Sample] = []
    for first in dict.fromkeys(chat.messages[2]["content"] for chat in talks):
        alike = [chat for chat in talks if chat.messages[2]["content"] == first]
        for chat, other in zip(alike, [*alike[1:], *alike[:1]], strict=True):
            messages = chat.messages
            rejected = [*messages[:-1], {**messages[-1], "content": other.target}]
            found.append(Chat.of(messages, rejected=rejected))
    return found


def _talk(name: str, parameters: str, summary: str) -> Chat | None:
    """Two questions and their answers, the harder one first or last; None of what tells little."""
    named = [part.strip().lstrip("*").split(":")[0].split("=")[0] for part in parameters.split(",")]
    known = [part.strip() for part in named if part.strip() not in ("", "/", "self", "cls")]
    if not _tells(summary) or not 0 < len(known) <= _MOST_PARAMETERS:
        return None
    listed = ", ".join(known)
    called = f"{name}({listed})"
    if len(summary) % 2:
        questions = f"What does {called} do?", "What are its parameters?"
        replies = summary, listed
    else:
        questions = f"What are the parameters of {called}?", "What does it do?"
        replies = listed, summary
    return Chat.of(
        [
            {"role": role, "content": content}
            for turn in zip(questions, replies, strict=True)
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
    )


def _origin(shares: Mapping[str, float]) -> dict[str, Any]:
    packages = f"{platform.python_version()}, torch {version('torch')}"
    return origin("python", packages, "SHA-256 of texts", shares)


def _summaries() -> dict[str, str]:
    """The summary of each text, in the order of the files' names; ASCII only, no text twice."""
    found: dict[str, str] = {}
    for _, code in _modules():
        for text, summary in _divided(code):
            found.setdefault(text, summary)
    return found


def _modules() -> Iterator[tuple[str, str]]:
    """The names of modules and their code, in the order of the files' names."""
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    library, package = Path(sysconfig.get_path("stdlib")), Path(torch.origin).parent
    for folder, above in ((library, library), (package, package.parent)):
        for path in sorted(folder.rglob("*.py")):
            if not _LEFT_OUT & set(path.relative_to(folder).parts):
                name = ".".join(path.relative_to(above).with_suffix("").parts)
                yield name.removesuffix(".__init__"), path.read_text("utf-8", errors="replace")


def _divided(code: str) -> Iterator[tuple[str, str]]:
    """What each docstring says first, and what it says then, as far as that is not too long."""
    for match in _DOCSTRING.finditer(code):
        summary, *rest = inspect.cleandoc(match[1]).split("\n\n")
        text = ""
        for part in rest:
            if len(text) + len(part) > _LONGEST:
                break
            text = f"{text}\n\n{part}".strip()
        if _tells(summary) and _is_plain(text) and len(text) >= _SHORTEST:
            yield text, summary


def _tells(summary: str) -> bool:
    """Whether a first line says something: it is no mere name or signature."""
    return "\n" not in summary and _is_plain(summary) and len(summary.split()) >= _FEWEST_WORDS


def _is_plain(text: str) -> bool:
    return text.isascii() and "\\" not in text


def _new(parts: Parts, read: Callable[[Sample], str]) -> Parts:
    """The parts, those that judge without what is much like a sample of a part before them."""
    kept = dict(parts)
    for judge, others in (("val", ["train"]), ("test", ["train", "val"])):
        known = [normalise(read(s)) for name in others for s in kept.get(name, ())]
        texts = [normalise(read(sample)) for sample in kept.get(judge, ())]
        alike = closest(texts, known)
        if judge in kept:
            kept[judge] = [s for i, s in enumerate(kept[judge]) if i not in alike]
    return kept


class SummaryKind(PairKind):
    """Texts and a summary of each."""

    answer = "summary"
    needed = 150  # 4 points of ROUGE at a standard deviation of 0.25 a text
    embedded = staticmethod(pairs)

    def uncertainty(self, size: int) -> str:
        """Of ROUGE."""
        return f"its ROUGE is known to ±{figure(1.96 * 0.25 / max(1, size) ** 0.5, 2)} at best"


SUMMARIES = SummaryKind()
