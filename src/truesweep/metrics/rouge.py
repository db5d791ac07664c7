"""ROUGE (Lin 2004) of texts in any language."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torchmetrics.functional.text import rouge_score

from truesweep.text import SPACELESS, percent

RougeWords = Literal["english", "any"]
"""What words are made of.

`english`: lower-cased English letters and digits, as torchmetrics and the package rouge-score have
it. `any`: letters and digits of all scripts, and a character is a word where no spaces stand
between words. Of English texts both are the same.
"""
_ENGLISH = re.compile(r"[a-z0-9]+")
_FEW = 0.02
"""The share of words unlike English ones that is not worth a word: English texts have some, too."""


class _Kept(dict[int, str | int]):
    """What `str.translate` leaves of each character: letters, marks and numbers."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        found: str | int = code if unicodedata.category(character)[0] in "LMN" else " "
        return self.setdefault(code, f" {character} " if SPACELESS.match(character) else found)


_KEPT = _Kept()


def any_words(text: str) -> str:
    """The words of a text in any language, lower-cased, with spaces between them."""
    return " ".join(unicodedata.normalize("NFC", text.lower()).translate(_KEPT).split())


def f_measures(
    prediction: str, reference: str, keys: Sequence[str], words: RougeWords
) -> list[float]:
    """The F-measures of a text, 0 to 1, unstemmed.

    Args:
        prediction: The text.
        reference: What it should be.
        keys: Which ones, such as `rouge1` and `rougeL`.
        words: What words are made of.
    """
    asked: dict[str, Any] = {"rouge_keys": tuple(keys)}
    if words == "any":
        asked |= {"normalizer": any_words, "tokenizer": str.split}
    scores = rouge_score(prediction, reference, **asked)
    return [float(scores[f"{key}_fmeasure"]) for key in keys]


def unknown_words(references: Sequence[str], words: RougeWords) -> Iterator[str]:
    """A sentence if ROUGE cannot find the words of references."""
    if words != "english":
        return
    found = [word for reference in references for word in any_words(reference).split()]
    unlike = sum(_ENGLISH.fullmatch(word) is None for word in found) / max(1, len(found))
    if unlike > _FEW:
        yield (
            "ROUGE knows English letters and digits only (task.rouge_words=english), and "
            f"{percent(unlike)} of the references' words have others, which it leaves out or cuts "
            "at. Set task.rouge_words=any"
        )
