"""BLEU and chrF of a corpus of detokenised text, as the `sacrebleu` command gives them."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor
from typing_extensions import override

from truesweep.compat import corpus_score, forget_value, sentence_counts
from truesweep.metrics.sums import SumMetric


class _CorpusScore(SumMetric):
    """A sacreBLEU metric as a sum over sentences of the counts that it is computed from.

    The score of the summed counts is exactly the corpus score; a mean of batches' scores is not.
    """

    counts: Tensor
    count: Tensor

    def __init__(self, metric: BLEU | CHRF, number_of_counts: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        metric.num_refs = 1
        self.metric = metric
        zeros = torch.zeros(number_of_counts, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def signature(self) -> str:
        """What sacreBLEU asks to be stated beside a score."""
        return str(self.metric.get_signature())

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add sentences and their references, one each, detokenised."""
        if predictions or references:
            self.update_counts(self.statistics(predictions, references))

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        """The counts that each sentence adds, int64 [B, counts]."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
        # Line ends are stripped as the command does when it reads a file.
        stripped = [[line.rstrip() for line in lines] for lines in (predictions, references)]
        counts = sentence_counts(self.metric, *stripped)
        return torch.tensor(counts, device=self.device)

    def update_counts(self, counts: Tensor) -> None:
        """Add sentences of which `statistics` is known."""
        forget_value(self)
        self.counts += counts.sum(0)
        self.count += len(counts)

    @override
    def compute(self) -> Tensor:
        """The score, from 0 to 100, float64; NaN of no sentence at all."""
        if not int(self.count):
            return torch.tensor(math.nan, dtype=torch.float64, device=self.device)
        score = corpus_score(self.metric, self.counts.tolist())
        return torch.tensor(score, dtype=torch.float64, device=self.device)


class CorpusBleu(_CorpusScore):
    """Corpus BLEU with one reference (Papineni et al. 2002; Post 2018), 0 to 100.

    Args:
        tokenize: sacreBLEU's tokenizer; `zh` and `char` suit Chinese and Japanese.
        lowercase: compare without case.
    """

    def __init__(
        self,
        tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a",
        lowercase: bool = False,
        **kwargs: Any,
    ) -> None:
        # Matches and totals of four orders, and two lengths; `force` only silences a hint.
        super().__init__(BLEU(lowercase, force=True, tokenize=tokenize), 4 + 4 + 2, **kwargs)


class CorpusChrF(_CorpusScore):
    """Corpus chrF with one reference (Popović 2015), 0 to 100.

    Args:
        word_order: 0 for chrF, 2 for chrF++.
        lowercase: compare without case.
    """

    def __init__(self, word_order: int = 0, lowercase: bool = False, **kwargs: Any) -> None:
        chrf = CHRF(word_order=word_order, lowercase=lowercase)
        super().__init__(chrf, 3 * chrf.order, **kwargs)
