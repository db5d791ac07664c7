"""The rules of cleaning: which there are, and what those say that look at one text alone.

None is on by default. Each says of a text what is wrong with it, in the name of its key; `gopher/…`
and `c4/…` name the part of a published set of rules that a text fails.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from truesweep.data.samples import Kind
from truesweep.data.similarity import SIMILAR, words
from truesweep.errors import ConfigError, did_you_mean

CERTAIN = 0.9
"""The probability from which on a text is taken to be of another language."""

_PACKAGES = {"unicode": "ftfy", "languages": "py3langid", "label_errors": "sklearn"}
_PAIRS, _LABELLED = ("length_ratio", "copies"), ("conflicts", "min_per_label", "max_per_label")


@dataclass(kw_only=True, frozen=True)
class Clean:
    """What is changed or left out of data before they are tokenized; nothing by default.

    What a rule leaves out is counted under the rule's name. Of several that apply, the first one
    here counts.

    Args:
        splits: The splits that are cleaned. Those that judge had better stay as they are: else
            cleaning changes what figures mean.
        paragraphs: Look at the paragraphs of a text one by one, and leave out these; null: of a
            text over 64 KiB, such as a book. Lines, where there are no paragraphs.
        unicode: Repair what was decoded with the wrong encoding (`schÃ¶n`), terminal escapes and
            control characters, and compose letters and accents (NFC), by ftfy.
        min_words: Words that a text must have; of a pair, each side.
        max_words: Words that it may have.
        max_symbols: Share of a text's characters that may be neither letters, digits, white space
            nor ordinary punctuation.
        gopher: The quality rules of Rae et al. 2021 (Gopher), A.1.1, for English documents.
        gopher_repetition: The rules against repeated lines, paragraphs and n-grams of the same,
            table A1, for languages with spaces.
        c4: The rules of Raffel et al. 2020 (C4), 2.2, for English pages; they take lines out too.
            Its list of bad words and its removal of repeated sentences are left out. Not for pairs
            and conversations, whose parts answer to each other.
        languages: ISO 639-1 codes of the languages that texts may be in; of pairs, that of the
            source and that of the target. By py3langid, which must be sure of another one.
        copies: Leave out pairs whose sides are the same text.
        length_ratio: How many times the words of one side of a pair the other may have.
        conflicts: Leave out texts that stand there with several labels, but for those with the
            commonest label, if one is.
        label_errors: Leave out texts whose label a linear model over n-grams, which has not seen
            them, gives less than 5 %, and another one more than 50 %, by scikit-learn. Half of what
            it finds may be right: see docs/data.md.
        duplicates: Leave out what has stood before in the same split, but for case and white
            space; of paragraphs, only those of eight words and more.
        near_duplicates: Leave out what is much like something before it in the same split.
        min_per_label: Samples that a label must have; 2 leaves out what stands alone.
        max_per_label: Samples that a label may have; which stay follows from their content.
        similarity: From here on two texts are alike: the Jaccard similarity of the sets of their
            5-character windows; or, for `near_duplicates`, the share of their words that both have,
            in whatever order and but for typing errors, where 0.8 is three of four. With other
            numbers in it, a text is another one.
        across_sources: Look for duplicates in all sources of a mixture together; what stands in
            two stays in the first.
    """

    splits: tuple[Literal["train", "val", "test"], ...] = ("train",)
    paragraphs: bool | None = None
    unicode: bool = False
    min_words: Annotated[int, Ge(0)] = 0
    max_words: Annotated[int, Gt(0)] | None = None
    max_symbols: Annotated[float, Ge(0), Le(1)] | None = None
    gopher: bool = False
    gopher_repetition: bool = False
    c4: bool = False
    languages: tuple[str, ...] = ()
    copies: bool = False
    length_ratio: Annotated[float, Ge(1)] | None = None
    conflicts: bool = False
    label_errors: bool = False
    duplicates: bool = False
    near_duplicates: bool = False
    min_per_label: Annotated[int, Ge(0)] = 0
    max_per_label: Annotated[int, Gt(0)] | None = None
    similarity: Annotated[float, Gt(0.5), Le(1)] = SIMILAR
    across_sources: bool = False

    @property
    def asked(self) -> list[str]:
        """The rules that are on, by the names of their keys."""
        how = ("splits", "paragraphs", "similarity", "across_sources")
        return [
            name
            for name, default in vars(Clean()).items()
            if name not in how and getattr(self, name) != default
        ]

    def check(self, kind: Kind) -> None:
        """See that all that is asked for can be done.

        Raises:
            ConfigError: A package is missing, or a rule is for other samples.
        """
        for name in self.asked:
            package = _PACKAGES.get(name)
            if package and find_spec(package) is None:
                raise ConfigError(
                    f"data.clean.{name} needs a package that is not installed: "
                    "pip install truesweep[clean]"
                )
            if (name in _PAIRS and kind != "pairs") or (
                name in (*_LABELLED, "label_errors") and kind != "labelled"
            ):
                of = "pairs" if name in _PAIRS else "texts with labels"
                raise ConfigError(
                    f"data.clean.{name} is for {of}, and these are none; leave it out"
                )
        if self.c4 and kind in ("pairs", "chats"):
            of = "conversations" if kind == "chats" else kind
            raise ConfigError(
                "data.clean.c4 takes lines out of a text, and here are texts that belong together: "
                f"{of}; leave it out"
            )
        sides = len(self.languages)
        if kind == "pairs" and sides and sides != 2:
            raise ConfigError(
                f"data.clean.languages has {sides} entries: give that of the source and that of "
                "the target, as in data.clean.languages=[de,en]"
            )

    def check_languages(self) -> None:
        """See that texts can be told to be in those languages; loads what tells it.

        Raises:
            ConfigError: One is unknown.
        """
        known = sorted({*_identifier().labels}) if self.languages else []
        for name in self.languages:
            if name not in known:
                raise ConfigError(
                    f"data.clean.languages: {name!r} is no language that can be told"
                    f"{did_you_mean(name, known)}. Give ISO 639-1 codes: {', '.join(known)}"
                )

    def mended(self, text: str) -> tuple[str, list[str]]:
        """A text as those rules make it that change texts, and their names, if they did."""
        fixed = _repairing()(text) if self.unicode else text
        lined = c4_lines(fixed) if self.c4 else fixed
        changed = {"unicode": fixed != text, "c4": lined != fixed}
        return lined, [name for name, did in changed.items() if did]

    def fault(self, text: str, languages: tuple[str, ...]) -> str | None:
        """What is wrong with a text alone; None: nothing.

        Args:
            text: The text.
            languages: Those that it may be in; any, if there is none.
        """
        return next(self._faults(text, languages), None)

    def _faults(self, text: str, languages: tuple[str, ...]) -> Iterator[str]:
        if self.min_words or self.max_words is not None:
            count = len(words(text))
            if count < self.min_words:
                yield "min_words"
            if self.max_words is not None and count > self.max_words:
                yield "max_words"
        if self.max_symbols is not None and symbols(text) > self.max_symbols:
            yield "max_symbols"
        checks: list[tuple[bool, str, Callable[[str], str | None]]] = [
            (self.gopher, "gopher", gopher),
            (self.gopher_repetition, "gopher_repetition", gopher_repetition),
            (self.c4, "c4", c4),
        ]
        for on, name, check in checks:
            if on and (fault := check(text)):
                yield f"{name}/{fault}"
        if languages:
            found, sureness = language(text)
            if found not in languages and sureness >= CERTAIN:
                yield "languages"


@cache
def _repairing() -> Callable[[str], str]:
    import ftfy

    # What was written on purpose stays: quotation marks, ligatures, wide letters, entities; and
    # line ends, which splits that are not cleaned would keep.
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        fix_line_breaks=False,
    )
    return lambda text: ftfy.fix_text(text, config)


@cache
def _identifier() -> Any:
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def can_identify() -> bool:
    """Whether languages can be told."""
    return find_spec("py3langid") is not None


def language(text: str) -> tuple[str | None, float]:
    """The language that a text is likely in (ISO 639-1), and how likely."""
    found: tuple[str | None, float] = _identifier().classify(text)
    return found


_SYMBOL = re.compile(r"""[^\w\s.,;:!?'"()\-–—…’‘“”«»„¿¡。、，！？「」（）]""")


def symbols(text: str) -> float:
    """The share of characters that are neither of words nor ordinary punctuation."""
    return len(_SYMBOL.findall(text)) / max(1, len(text))


# -- Rae et al. 2021, Scaling Language Models: Methods, Analysis & Insights from Training Gopher ---

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "▪", "◦", "*", "-")
_ELLIPSES = ("...", "…")


def gopher(text: str) -> str | None:
    """What of the quality rules a document fails; None: nothing.

    All thresholds are those of A.1.1: 50 to 100,000 words; a mean word length of 3 to 10; at most
    0.1 hash signs, or ellipses, a word; at most 90 % of lines with a bullet at their beginning and
    30 % with an ellipsis at their end; 80 % of words with a letter; two of eight English stop
    words.
    """
    found, rows = text.split(), [line.strip() for line in text.splitlines() if line.strip()]
    count, lines = len(found), max(1, len(rows))
    if not 50 <= count <= 100_000:
        return "words"
    if not 3 <= sum(map(len, found)) / count <= 10:
        return "word_length"
    if text.count("#") / count > 0.1:
        return "hash_signs"
    if sum(map(text.count, _ELLIPSES)) / count > 0.1:
        return "ellipses"
    if sum(row.startswith(_BULLETS) for row in rows) / lines > 0.9:
        return "bullets"
    if sum(row.endswith(_ELLIPSES) for row in rows) / lines > 0.3:
        return "ellipsis_lines"
    if sum(any(map(str.isalpha, word)) for word in found) / count < 0.8:
        return "letters"
    if len(_STOP_WORDS & set(re.findall(r"\w+", text.lower()))) < 2:
        return "stop_words"
    return None


_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def gopher_repetition(text: str) -> str | None:
    """What of the rules against repetition a document fails; None: nothing.

    The thresholds are those of table A1: 0.30 of lines or paragraphs, 0.20 of the characters in
    them, have stood before; the commonest 2-, 3- and 4-gram make up 0.20, 0.18 and 0.16 of all
    characters; n-grams that stand there twice cover 0.15 (n = 5) to 0.10 (n = 10) of them.
    """
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    rows = [line for line in text.splitlines() if line.strip()]
    for name, parts in (("lines", rows), ("paragraphs", paragraphs)):
        seen = set[str]()
        again = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
        if len(again) > 0.30 * max(1, len(parts)):
            return name
        if sum(map(len, again)) > 0.20 * max(1, sum(map(len, parts))):
            return f"{name}_characters"
    found = text.split()
    lengths = [len(word) for word in found]
    total = max(1, sum(lengths))
    for n, most in _TOP.items():
        grams = Counter(zip(*(found[i:] for i in range(n)), strict=False))
        gram, times = max(grams.items(), key=lambda entry: entry[1], default=((), 0))
        if times > 1 and times * sum(map(len, gram)) > most * total:
            return f"top_{n}_gram"
    for n, most in _REPEATED.items():
        if _covered(found, lengths, n) > most * total:
            return f"repeated_{n}_grams"
    return None


def _covered(found: list[str], lengths: list[int], n: int) -> int:
    """Characters of the words within n-grams that have stood before, each counted once."""
    seen = set[tuple[str, ...]]()
    covered, until = 0, 0
    for start, gram in enumerate(zip(*(found[i:] for i in range(n)), strict=False)):
        if gram in seen:
            covered += sum(lengths[max(start, until) : start + n])
            until = start + n
        seen.add(gram)
    return covered


# -- Raffel et al. 2020, Exploring the Limits of Transfer Learning, section 2.2 --------------------

_ENDS = (".", "!", "?", '"', "”")
_POLICIES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)


def c4_lines(text: str) -> str:
    """A page without the lines that the rules take out.

    Lines stay that have five words and end with a full stop, another end of a sentence or a
    quotation mark; those with `javascript` or of a notice on cookies or privacy go.
    """
    kept = [line for line in text.splitlines(keepends=True) if _is_prose(line.strip())]
    return "".join(kept)


def _is_prose(line: str) -> bool:
    small = line.lower()
    return (
        line.endswith(_ENDS)
        and not line.endswith("...")
        and len(line.split()) >= 5
        and "javascript" not in small
        and not any(policy in small for policy in _POLICIES)
    )


def c4(text: str) -> str | None:
    """Why a page is left out: `lorem ipsum`, a curly bracket, under three sentences; or None."""
    if "lorem ipsum" in text.lower():
        return "lorem_ipsum"
    if "{" in text:
        return "curly_bracket"
    if len(re.findall(r"[.!?]+[\"”’')]*(?:\s|$)", text)) < 3:
        return "sentences"
    return None
