"""Summarisation with an encoder–decoder."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.text import rouge_score
from typing_extensions import override

from truesweep.data.docstrings import SUMMARIES
from truesweep.figures import Figure
from truesweep.metrics.text import TextMetric
from truesweep.tasks.seq2seq import TextToText

KEYS = ("rouge1", "rouge2", "rougeL")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


class Rouge(TextMetric):
    """ROUGE-1, -2 and -L (Lin 2004): the means of the texts' F-measures, 0 to 1, unstemmed.

    Words are what is left of lower-cased English letters and digits, as torchmetrics and the
    package rouge-score have it.
    """

    figures = tuple(Figure(key, higher_is_better=True, samples=(key, "summarised")) for key in KEYS)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(len(KEYS), torch.float64, **kwargs)

    @override
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        found = [
            rouge_score(prediction, reference, rouge_keys=KEYS)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        rows = [[float(scores[f"{key}_fmeasure"]) for key in KEYS] for scores in found]
        return torch.tensor(rows, dtype=torch.float64, device=self.device)

    @override
    def by_sample(self, counts: Tensor) -> dict[str, Tensor]:
        columns = dict(zip(KEYS, counts.unbind(1), strict=True))
        return {**columns, "summarised": torch.ones(len(counts), device=counts.device)}

    @override
    def compute(self) -> dict[str, Tensor]:
        """The means; NaN of no text at all."""
        return dict(zip(KEYS, self.counts / self.count, strict=True))


class Summarization(TextToText):
    """A text to a short one, scored by loss, perplexity, ROUGE-1, ROUGE-2 and ROUGE-L."""

    declares = Rouge.figures
    kind = SUMMARIES
    tag = pipeline = "summarization"
    table = "summaries"

    def text_metrics(self) -> dict[str, TextMetric]:
        """ROUGE, 0 to 1."""
        return {"rouge": Rouge()}

    def trivial(self, source: str) -> str:
        """The first sentence."""
        return _SENTENCE_END.split(source.strip(), maxsplit=1)[0]
