"""`data=embedded`: real samples for every task from what is installed anyway; no download."""

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from annotated_types import MinLen

from truesweep.data import locale_phrases, python_text
from truesweep.data.samples import Kind, Labelled, Pair, Splits
from truesweep.data.source import Source
from truesweep.data.splitting import Parts, complete, shares, split_off
from truesweep.errors import ConfigError, DataError

Made = tuple[Parts, dict[str, Any]]
"""Samples of all splits, and where they come from."""

# Phrases made besides the names, per language: enough to learn from in a minute or two.
_PAIRS, _TEXTS = 10_000, 1_500


@dataclass(kw_only=True)
class Embedded(Source):
    """Python's own documentation and source; dates, numbers and names in several languages.

    - `text`: the running interpreter's language reference and standard library.
    - `pairs`: dates, numbers, amounts and names in two languages, from Babel's locale data.
    - `labelled`: the same in many languages, labelled with the language's code.

    Args:
        source: Language to translate from, for pairs.
        target: Language to translate into, for pairs.
        languages: The classes, for labelled texts.
    """

    source: str = "de"
    target: str = "en"
    languages: Annotated[tuple[str, ...], MinLen(2)] = (
        *("de", "en", "es", "fr"),
        *("it", "nl", "pl", "sv"),
    )

    def load(self, kind: Kind) -> Splits:
        """Make the samples; see `Source.load`."""
        make = {"text": self._text, "pairs": self._pairs, "labelled": self._labelled}[kind]
        return self.divided(kind, make)

    def divided(self, kind: Kind, make: Callable[[Mapping[str, float]], Made]) -> Splits:
        """What a function makes of the shares of the data that validation and test shall have."""
        return complete(kind, *make(shares(self, ())))

    def _text(self, shares: Mapping[str, float]) -> Made:
        documents = python_text.documents()
        if not documents:
            raise DataError(
                "This Python carries neither its documentation nor its library's source. Name "
                "text of your own: data=files data.train=…"
            )
        version = platform.python_version()
        return (
            python_text.divide(documents, shares),
            origin("python", version, "SHA-256 of documents", shares),
        )

    def _pairs(self, shares: Mapping[str, float]) -> Made:
        if self.source == self.target:
            raise ConfigError(f"data.source and data.target are both {self.source!r}. Change one.")
        source, target = locale_phrases.parse(self.source), locale_phrases.parse(self.target)
        phrases = locale_phrases.names() + locale_phrases.compositions(_PAIRS)
        written = [(phrase(source), phrase(target)) for phrase in phrases]
        # A source has one translation: the first.
        pairs = {left: Pair(left, right) for left, right in reversed(written) if left and right}
        return split_off(pairs.values(), shares), _babel(shares)

    def _labelled(self, shares: Mapping[str, float]) -> Made:
        phrases = locale_phrases.names() + locale_phrases.compositions(_TEXTS)
        samples = []
        for language in dict.fromkeys(self.languages):
            locale = locale_phrases.parse(language)
            texts = dict.fromkeys(phrase(locale) for phrase in phrases)
            samples += [Labelled(text, language) for text in texts if text]
        shared = Counter(sample.text for sample in samples)
        return split_off((s for s in samples if shared[s.text] == 1), shares), _babel(shares)


def _babel(shares: Mapping[str, float]) -> dict[str, Any]:
    return origin("babel", version("babel"), "SHA-256 of samples", shares)


def origin(package: str, number: str, by: str, shares: Mapping[str, float]) -> dict[str, Any]:
    """Where samples come from, for the run's provenance."""
    return {"package": package, "version": number, "split_off": {"by": by, "shares": {**shares}}}
