"""BLEU and chrF of a detokenised corpus, as the `sacrebleu` command has them, and ROUGE."""

import math
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor
from torchmetrics.functional.text import rouge_score
from typing_extensions import override

from truesweep.compat import corpus_score, forget_value, sentence_counts
from truesweep.errors import ConfigError
from truesweep.figures import BLEU as BLEU_FIGURE
from truesweep.figures import CHRF as CHRF_FIGURE
from truesweep.metrics.sums import SumMetric
from truesweep.text import SPACELESS, percent


class TextMetric(SumMetric):
    """A metric of generated texts as a sum over texts of the counts that it is computed from.

    Args:
        number_of_counts: How many a text has.
        dtype: Their type.
    """

    counts: Tensor
    count: Tensor

    def __init__(
        self, number_of_counts: int, dtype: torch.dtype = torch.int64, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(number_of_counts, dtype=dtype)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add texts and their references, one each, detokenised."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
        if predictions:
            self.update_counts(self.statistics(predictions, references))

    @abstractmethod
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        """The counts that each text adds, [B, counts], of as many references."""

    def update_counts(self, counts: Tensor) -> None:
        """Add texts of which `statistics` is known."""
        forget_value(self)
        self.counts += counts.sum(0)
        self.count += len(counts)

    def by_sample(self, counts: Tensor) -> dict[str, Tensor]:
        """What an evaluation keeps of each text, by name: `statistics`, as the figures ask for."""
        return {self.figures[0].name: counts}


class _CorpusScore(TextMetric):
    """A sacreBLEU metric.

    The score of the summed counts is exactly the corpus score; a mean of batches' scores is not.
    """

    def __init__(self, metric: BLEU | CHRF, number_of_counts: int, **kwargs: Any) -> None:
        super().__init__(number_of_counts, **kwargs)
        metric.num_refs = 1
        self.metric = metric

    @property
    def signature(self) -> str:
        """What sacreBLEU asks to be stated beside a score."""
        return str(self.metric.get_signature())

    @override
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        # Line ends are stripped as the command does when it reads a file.
        stripped = [[line.rstrip() for line in lines] for lines in (predictions, references)]
        counts = sentence_counts(self.metric, *stripped)
        return torch.tensor(counts, device=self.device)

    @override
    def compute(self) -> Tensor:
        """The score, from 0 to 100, float64; NaN of no sentence at all."""
        if not int(self.count):
            return torch.tensor(math.nan, dtype=torch.float64, device=self.device)
        score = corpus_score(self.metric, self.counts.tolist())
        return torch.tensor(score, dtype=torch.float64, device=self.device)


BleuTokenizer = Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "flores200", "char", "none"]
BY_LANGUAGE: dict[str, BleuTokenizer] = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
}
"""SacreBLEU's own choice by the language of the translations; `13a` for all others.

Under codes of three letters, too, which FLORES has, and which sacreBLEU does not know.
"""
BY_SPACES = ("13a", "intl", "none")
"""Tokenizers that find words by the spaces between them."""


def bleu_tokenizer(language: str | None) -> BleuTokenizer:
    """The tokenizer that suits a language, given by its code: `zh`, `zh_TW`, `zho_Hans`, `de`."""
    code = re.split(r"[-_]", language or "")[0].lower()
    return BY_LANGUAGE.get(code, "13a")


def written_without_spaces(texts: Iterable[str]) -> bool:
    """Whether most letters are of a script that puts no spaces between words."""
    letters = without = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        without += sum(map(str.isalpha, SPACELESS.findall(text)))
    return 2 * without > letters


class CorpusBleu(_CorpusScore):
    """Corpus BLEU with one reference (Papineni et al. 2002; Post 2018), 0 to 100.

    Args:
        tokenize: sacreBLEU's tokenizer; see `bleu_tokenizer`.
        lowercase: compare without case.

    Raises:
        ConfigError: The tokenizer needs a package or a file that is not there.
    """

    figures = (BLEU_FIGURE,)

    def __init__(
        self, tokenize: BleuTokenizer = "13a", lowercase: bool = False, **kwargs: Any
    ) -> None:
        try:  # `force` only silences a hint
            metric = BLEU(lowercase, force=True, tokenize=tokenize)
        except (ImportError, OSError, RuntimeError) as error:
            language = tokenize.partition("-")[0]
            remedy = "type pip install sentencepiece, with a network for its model"
            if tokenize.endswith("mecab"):
                remedy = f"type pip install 'sacrebleu[{language}]'"
            raise ConfigError(
                f"task.bleu_tokenize={tokenize}: sacreBLEU cannot load it "
                f"({type(error).__name__}); {remedy}, or set task.bleu_tokenize=char"
            ) from None
        # Matches and totals of four orders, and two lengths.
        super().__init__(metric, 4 + 4 + 2, **kwargs)


class CorpusChrF(_CorpusScore):
    """Corpus chrF with one reference (Popović 2015), 0 to 100.

    Args:
        word_order: 0 for chrF, 2 for chrF++.
        lowercase: compare without case.
    """

    figures = (CHRF_FIGURE,)

    def __init__(self, word_order: int = 0, lowercase: bool = False, **kwargs: Any) -> None:
        chrf = CHRF(word_order=word_order, lowercase=lowercase)
        super().__init__(chrf, 3 * chrf.order, **kwargs)


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
