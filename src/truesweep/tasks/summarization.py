"""Summarisation with an encoder–decoder."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from truesweep.data.docstrings import SUMMARIES
from truesweep.figures import Figure
from truesweep.metrics.text import RougeWords, TextMetric, f_measures, unknown_words
from truesweep.tasks.seq2seq import TextToText
from truesweep.tasks.training import Recipe

KEYS = ("rouge1", "rouge2", "rougeL")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


class Rouge(TextMetric):
    """ROUGE-1, -2 and -L (Lin 2004): the means of the texts' F-measures, 0 to 1, unstemmed.

    Args:
        words: What words are made of.
    """

    figures = tuple(Figure(key, higher_is_better=True, samples=(key, "summarised")) for key in KEYS)

    def __init__(self, words: RougeWords = "english", **kwargs: Any) -> None:
        super().__init__(len(KEYS), torch.float64, **kwargs)
        self.words: RougeWords = words

    @override
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        rows = [
            f_measures(prediction, reference, KEYS, self.words)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64, device=self.device)

    @override
    def by_sample(self, counts: Tensor) -> dict[str, Tensor]:
        columns = dict(zip(KEYS, counts.unbind(1), strict=True))
        return {**columns, "summarised": torch.ones_like(counts[:, 0])}

    @override
    def compute(self) -> dict[str, Tensor]:
        """The means; NaN of no text at all."""
        return dict(zip(KEYS, self.counts / self.count, strict=True))


class Summarization(TextToText):
    """A text to a short one, scored by loss, perplexity, ROUGE-1, ROUGE-2 and ROUGE-L.

    Args:
        model: Returns logits [batch, target length, vocabulary].
        tokenizer: One vocabulary for both sides.
        recipe: How to train; None to evaluate or generate only.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        beam_size: Hypotheses kept in beam search; 1 is greedy.
        length_penalty: Exponent of the length that a hypothesis' log-probability is divided by;
            above 1 prefers longer ones.
        max_new_tokens: Longest summary.
        val_generated: Validation texts that are summarised at each validation, the first ones of
            the split; None: all, 0: none. The test split is always done whole.
        shown: Summaries kept as examples.
        rouge_words: What ROUGE takes for words: English letters and digits, as the package
            rouge-score has it, or those of any script.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take summaries and
            references, as lists of texts.
    """

    declares = Rouge.figures
    kind = SUMMARIES
    tag = pipeline = "summarization"
    table = "summaries"
    of_texts = (*TextToText.of_texts, "rouge_words")

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1,
        beam_size: Annotated[int, Gt(0)] = 4,
        length_penalty: float = 1.0,
        max_new_tokens: Annotated[int, Gt(0)] = 128,
        val_generated: Annotated[int, Ge(0)] | None = 100,
        shown: Annotated[int, Ge(0)] = 10,
        rouge_words: RougeWords = "english",
        metrics: dict[str, Any] | None = None,
    ) -> None:
        self.rouge_words: RougeWords = rouge_words
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            recipe=recipe,
            label_smoothing=label_smoothing,
            beam_size=beam_size,
            length_penalty=length_penalty,
            max_new_tokens=max_new_tokens,
            val_generated=val_generated,
            shown=shown,
            metrics=metrics,
        )

    def text_metrics(self) -> dict[str, TextMetric]:
        """ROUGE, 0 to 1."""
        return {"rouge": Rouge(self.rouge_words)}

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """Whether ROUGE can find the words of the references."""
        return unknown_words(answers, self.rouge_words)

    def trivial(self, source: str) -> str:
        """The first sentence."""
        return _SENTENCE_END.split(source.strip(), maxsplit=1)[0]
