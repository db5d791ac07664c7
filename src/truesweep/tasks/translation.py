"""Translation with an encoder–decoder."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.figures import compute
from truesweep.metrics.likelihood import NegativeLogLikelihood, Perplexity, nll_by_row
from truesweep.metrics.text import (
    BY_SPACES,
    BleuTokenizer,
    CorpusBleu,
    CorpusChrF,
    bleu_tokenizer,
    written_without_spaces,
)
from truesweep.tasks.base import Batch, Recipe, Task, losses
from truesweep.tasks.generation import context_length, generate
from truesweep.tasks.sharding import is_sharded

OF_LOSS = ("loss", "perplexity")
"""The metrics for which nothing is translated."""


class Translation(Task):
    """Source text to target text, scored by loss, perplexity, corpus BLEU and chrF.

    Args:
        model: Returns logits [batch, target length, vocabulary].
        tokenizer: One vocabulary for both languages.
        recipe: How to train; None to evaluate or generate only.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        beam_size: Hypotheses kept in beam search; 1 is greedy.
        length_penalty: Exponent of the length that a hypothesis' log-probability is divided by;
            above 1 prefers longer translations.
        max_new_tokens: Longest translation.
        val_generated: Validation sentences that are translated for BLEU at each validation, the
            first ones of the split; None: all, 0: none. The test split is always translated whole.
        shown: Translations kept as examples.
        bleu_tokenize: How BLEU finds words (sacreBLEU's names); None: as suits the language of
            the translations, `data.target`.
        target_language: That language's code, if it is known.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take translations
            and references, as lists of texts.
    """

    head: ClassVar[str] = "seq2seq"
    kind: ClassVar[str] = "pairs"

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
        bleu_tokenize: BleuTokenizer | None = None,
        target_language: str | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        self.bleu_tokenize = bleu_tokenize or bleu_tokenizer(target_language)
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.label_smoothing = label_smoothing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.max_new_tokens = max_new_tokens
        self.val_generated = val_generated
        self.shown = shown
        self._examples: list[tuple[int, str, str, str]] = []

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the cross-entropies of all target tokens."""
        return losses(self.logits(batch), batch["labels"], self.label_smoothing)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [batch, target length, vocabulary]."""
        scores = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["decoder_input_ids"],
            use_cache=False,
        ).logits
        assert isinstance(scores, Tensor)
        return scores

    def make_metrics(self) -> dict[str, Metric]:
        """Loss in nats per token, perplexity; BLEU and chrF in 0–100."""
        return {
            "loss": NegativeLogLikelihood(),
            "perplexity": Perplexity(),
            "bleu": CorpusBleu(self.bleu_tokenize),
            "chrf": CorpusChrF(),
        }

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """Whether BLEU can find the words of the references."""
        if self.bleu_tokenize in BY_SPACES and written_without_spaces(answers):
            yield (
                f"BLEU looks for words between spaces (task.bleu_tokenize={self.bleu_tokenize}), "
                "and the references have few: it scores whole sentences as words. Set "
                "task.bleu_tokenize=zh, ja-mecab, ko-mecab, flores200 or char"
            )

    def reported(self, split_name: str) -> tuple[str, ...]:
        """Without BLEU and the like where nothing is to be translated."""
        untranslated = split_name == "val" and self.val_generated == 0
        return OF_LOSS if untranslated else super().reported(split_name)

    def figures(self) -> dict[str, float]:
        """Without BLEU and the like where nothing was translated, on any rank."""
        if math.isnan(float(cast(CorpusBleu, self.metrics["bleu"]).compute())):
            return {k: v for n in OF_LOSS for k, v in compute(n, self.metrics[n]).items()}
        return super().figures()

    def signatures(self, split_name: str) -> dict[str, str]:
        """SacreBLEU's signatures."""
        return {
            f"{split_name}/{name}_signature": cast(CorpusBleu, self.metrics[name]).signature
            for name in ("bleu", "chrf")
        }

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation and its examples."""
        super().on_validation_epoch_start()
        self._examples = []

    on_test_epoch_start = on_validation_epoch_start

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch: its loss, and what is translated of it."""
        nll, count = nll_by_row(self.logits(batch), batch["labels"])
        self.scores.add(batch["index"], nll=nll, count=count)
        for name in OF_LOSS:
            cast(NegativeLogLikelihood, self.metrics[name]).update_sums(nll.sum(), count.sum())
        limit = self.val_generated if split_name == "val" else None
        rows = [r for r, i in enumerate(batch["index"]) if limit is None or i < limit]
        if not rows and is_sharded(self.model):
            # Other ranks translate and need this one for it, in validation too.
            self.translate_ids(batch["input_ids"][:1], batch["attention_mask"][:1])
        if not rows:
            return
        hypotheses = self.translate_ids(batch["input_ids"][rows], batch["attention_mask"][rows])
        references = [batch["reference"][r] for r in rows]
        index = [batch["index"][r] for r in rows]
        for name in ("bleu", "chrf"):
            metric = cast(CorpusBleu, self.metrics[name])
            counts = metric.statistics(hypotheses, references)
            metric.update_counts(counts)
            self.scores.add(index, **{name: counts})
        self.add_to_metrics(index, hypotheses, references)
        for row, hypothesis in zip(rows, hypotheses, strict=True):
            if batch["index"][row] < self.shown:
                example = (batch["source"][row], batch["reference"][row], hypothesis)
                self._examples.append((batch["index"][row], *example))

    def tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """The first translations of the last evaluation."""
        rows = [list(example[1:]) for example in sorted(self._examples)]
        return {"translations": (["source", "reference", "translation"], rows)}

    def translate_ids(self, input_ids: Tensor, attention_mask: Tensor) -> list[str]:
        """Translate token ids [batch, length] to text, no longer than the model's context."""
        longest = min(self.max_new_tokens, context_length(self.model) or self.max_new_tokens)
        beams: dict[str, Any] = {}
        if self.beam_size > 1:
            beams = {"length_penalty": self.length_penalty, "early_stopping": True}
        with torch.inference_mode():
            ids = generate(
                self.model,
                input_ids,
                attention_mask=attention_mask,
                leave=lambda: bool(self.stop_requested),  # no figure comes of this validation
                max_new_tokens=longest,
                num_beams=self.beam_size,
                do_sample=False,
                **beams,
            )
        return [str(t) for t in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
