"""What tasks share that turn one text into another, mostly with an encoder–decoder."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.frames import target_frame
from truesweep.data.kinds import PAIRS, SampleKind
from truesweep.data.prepare import Prepared
from truesweep.figures import compute, of_metric
from truesweep.metrics.likelihood import NegativeLogLikelihood, Perplexity
from truesweep.metrics.sums import Count
from truesweep.metrics.text import TextMetric
from truesweep.models import Head
from truesweep.tasks.base import Task, score_once, unigram
from truesweep.tasks.generation import context_length, generate
from truesweep.tasks.training import Recipe

LIKELIHOODS = ("loss", "perplexity")
"""The metrics of how likely the right text is."""


class TextToText(Task):
    """Source text to target text, scored by loss, perplexity, and metrics of the texts.

    Args:
        model: Returns logits [batch, target length, vocabulary].
        tokenizer: One vocabulary for both sides.
        recipe: How to train; None to evaluate or generate only.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        beam_size: Hypotheses kept in beam search; 1 is greedy.
        length_penalty: Exponent of the length that a hypothesis' log-probability is divided by;
            above 1 prefers longer ones.
        max_new_tokens: Longest text that is generated.
        val_generated: Validation samples for which a text is generated at each validation, the
            first ones of the split; None: all, 0: none. The test split is always done whole.
        shown: Texts kept as examples.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take texts and
            references, as lists of texts.
    """

    head: ClassVar[Head] = "seq2seq"
    kind: ClassVar[SampleKind] = PAIRS
    options: ClassVar[Mapping[str, str]] = {
        "max_new_tokens": "max_new_tokens",
        "beam_size": "beam_size",
    }
    table: ClassVar[str] = "texts"
    """The name of the table of examples."""
    of_tokens: ClassVar[tuple[str, ...]] = LIKELIHOODS
    """The metrics for which nothing is generated."""
    of_texts: ClassVar[tuple[str, ...]] = ("beam_size", "length_penalty", "max_new_tokens")
    """The keys that say how texts are generated and compared."""

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
        metrics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.label_smoothing = label_smoothing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.max_new_tokens = max_new_tokens
        self.val_generated = val_generated
        self.shown = shown
        self._generated = Count()
        self._examples: list[tuple[int, str, str, str]] = []

    @classmethod
    def ends_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The examples; all that texts depend on, where only the test split has any."""
        return ("shown", *(cls.of_texts if settings["val_generated"] == 0 else ()))

    @classmethod
    def validates_by(cls) -> tuple[str, ...]:
        """Which texts are generated, and how."""
        return ("val_generated", *cls.of_texts)

    @abstractmethod
    def text_metrics(self) -> dict[str, TextMetric]:
        """The metrics that compare texts with references, by name."""

    @abstractmethod
    def trivial(self, source: str) -> str:
        """The text that a trivial model makes of a source: a baseline for the metrics of texts."""

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the cross-entropies of all target tokens."""
        return self.token_losses(batch, self.label_smoothing)

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
        """Loss in nats per token, perplexity; and those of texts."""
        of_loss = {"loss": NegativeLogLikelihood(), "perplexity": Perplexity()}
        return {**of_loss, **self.text_metrics()}

    def reported(self, split_name: str) -> tuple[str, ...]:
        """Without figures of texts where none is to be generated."""
        none = split_name == "val" and self.val_generated == 0
        return self.of_tokens if none else super().reported(split_name)

    def figures(self) -> dict[str, float]:
        """Without figures of texts where none was generated, on any rank."""
        if not int(self._generated.compute()):
            return {k: v for n in self.of_tokens for k, v in compute(n, self.metrics[n]).items()}
        return super().figures()

    def own_counts(self) -> dict[str, int]:
        """Figures of texts are of those that were generated."""
        count = int(self._generated.compute())
        generated = {n: m for n, m in self._metrics().items() if n not in self.of_tokens}
        of_texts = (f for n, m in generated.items() for f in of_metric(n, m))
        return {figure.name: count for figure in of_texts}

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation and its examples."""
        super().on_validation_epoch_start()
        self._generated.reset()
        self._examples = []

    on_test_epoch_start = on_validation_epoch_start

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch: its loss, and the texts that are generated for it."""
        nll, count = self.score_tokens(batch)
        self.scores.add(batch["index"], nll=nll, count=count)
        for name in LIKELIHOODS:
            cast(NegativeLogLikelihood, self.metrics[name]).update_sums(nll.sum(), count.sum())
        limit = self.val_generated if split_name == "val" else None
        rows = [
            row
            for row, place in enumerate(batch["index"])
            if limit is None or self._is_among_first(place, limit)
        ]
        if not rows and self.is_sharded:
            # Other ranks generate and need this one for it, in validation too.
            one = batch["input_ids"][:1]
            self.generate_texts(one, torch.ones_like(one))
        if rows:
            self._score_texts(batch, rows)

    def _is_among_first(self, place: int, count: int) -> bool:
        """Whether a validation sample is one of the first, of a mixture of those of each source."""
        # Of a loaded model, the split that is scored stands in the place of a test.
        loader = cast(Any, self.trainer.val_dataloaders)
        loader = cast(Any, self.trainer.test_dataloaders) if loader is None else loader
        starts = [one.start for one in loader.by_source.values() if isinstance(one, slice)] or [0]
        start = max(start for start in starts if start <= place)
        return bool(place - start < -(-count // len(starts)))

    def score_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums of the negative log-likelihoods of a batch's targets and their number, by row."""
        nll, count, _ = self.nll_by_row(batch)
        return nll, count

    def asked(self, batch: Batch, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """What texts are generated for: token ids and mask [rows, length], and references."""
        references = [batch["reference"][r] for r in rows]
        return batch["input_ids"][rows], batch["attention_mask"][rows], references

    def _score_texts(self, batch: Batch, rows: list[int]) -> None:
        *inputs, references = self.asked(batch, rows)
        texts = self.generate_texts(*inputs)
        index = [batch["index"][r] for r in rows]
        self._generated.update(len(rows))
        for name, metric in self.metrics.items():
            if isinstance(metric, TextMetric) and name not in self.added:
                counts = metric.statistics(texts, references)
                metric.update_counts(counts)
                self.scores.add(index, **metric.by_sample(counts))
        self.add_to_metrics(index, texts, references)
        for row, reference, text in zip(rows, references, texts, strict=True):
            if batch["index"][row] < self.shown:
                example = (batch["source"][row], reference, text)
                self._examples.append((batch["index"][row], *example))

    def tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """The first texts of the last evaluation."""
        rows = [list(example[1:]) for example in sorted(self._examples)]
        return {self.table: (["source", "reference", self.kind.answer or "text"], rows)}

    def generate_texts(self, input_ids: Tensor, attention_mask: Tensor) -> list[str]:
        """Turn token ids [batch, length] into texts, no longer than the model's context."""
        read = input_ids.shape[1] if self.head == "causal" else 0  # stands in front of the text
        longest, context = self.max_new_tokens, context_length(self.model)
        if context is not None:
            # Behind what is read, as many as behind the longest: not what others of a batch leave.
            longest = max(1, min(longest, context - context // 2 if read else context))
        beams: dict[str, Any] = {}
        # What stands before every target, such as its language, is no question to the model.
        before = target_frame(self.tokenizer).prefix if self.head == "seq2seq" else ()
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
                **({"forced_bos_token_id": before[0]} if len(before) == 1 else {}),
                **({"eos_token_id": ends} if (ends := self.ends(self.tokenizer)) else {}),
            )
        return [
            str(t) for t in self.tokenizer.batch_decode(ids[:, read:], skip_special_tokens=True)
        ]

    def answer(self, text: str, packing: bool) -> str:
        """The text that is generated for a source."""
        tokens = self.input_ids(text)
        return self.generate_texts(tokens, torch.ones_like(tokens))[0]

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, float]:
        """Frequencies of tokens in training, and what a trivial model makes of the sources."""
        pairs = prepared.datasets[split_name].pairs
        texts = [self.trivial(pair.source) for pair in pairs]
        references = [pair.target for pair in pairs]
        figures = unigram(prepared, split_name)
        for name, metric in self.metrics.items():
            if name in self.added or isinstance(metric, TextMetric):
                figures |= score_once(name, metric, texts, references)
        return figures
