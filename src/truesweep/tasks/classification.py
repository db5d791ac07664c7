"""Text classification."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.kinds import LABELLED, SampleKind
from truesweep.data.prepare import Prepared
from truesweep.figures import LOSS
from truesweep.metrics.classification import TABLE_COLUMNS, ClassificationScores, table
from truesweep.metrics.likelihood import IGNORED, NegativeLogLikelihood, nll_by_row
from truesweep.models import Head
from truesweep.tasks.base import Task, score_once, unigram_loss
from truesweep.tasks.training import Recipe, losses


class Classification(Task):
    """One label for a text, scored by loss, macro and weighted F1 and accuracy.

    Args:
        model: Returns logits [batch, classes].
        tokenizer: The model's tokenizer.
        recipe: How to train; None to evaluate or generate only.
        labels: The classes' names, by id.
        label_smoothing: Share of the target's probability spread over all classes.
        token_dropout: Share of input tokens replaced by the unknown token while training.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take logits
            [batch, classes] and labels [batch].
    """

    declares = (replace(LOSS, per_token=False),)

    head: ClassVar[Head] = "classifier"
    kind: ClassVar[SampleKind] = LABELLED
    tag = "classification"
    pipeline = "text-classification"

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: list[str],
        recipe: Recipe | None = None,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        token_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        self.labels = labels
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.label_smoothing = label_smoothing
        self.token_dropout = token_dropout
        self._per_class: list[list[Any]] = []

    def logits(self, batch: Batch) -> Tensor:
        """Scores [batch, classes]."""
        input_ids = batch["input_ids"]
        if self.training and self.token_dropout:
            input_ids = self._drop_tokens(input_ids)
        scores = self.model(input_ids=input_ids, attention_mask=batch["attention_mask"]).logits
        assert isinstance(scores, Tensor)
        return scores

    def _drop_tokens(self, input_ids: Tensor) -> Tensor:
        unknown = self.tokenizer.unk_token_id
        special = torch.tensor(self.tokenizer.all_special_ids, device=input_ids.device)
        ones = torch.ones(input_ids.shape, device=input_ids.device)
        # Drawn as dropout is, so that no split of the batch changes it.
        dropped = functional.dropout(ones, self.token_dropout) == 0
        keep = torch.isin(input_ids, special)
        substitute = unknown if unknown is not None else self.tokenizer.pad_token_id
        return torch.where(dropped & ~keep, substitute, input_ids)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the cross-entropies of all samples."""
        return losses(self.logits(batch), batch["labels"], self.label_smoothing)

    def make_metrics(self) -> dict[str, Metric]:
        """Loss in nats per sample, and all that a confusion matrix tells."""
        return {"loss": NegativeLogLikelihood(), "scores": ClassificationScores(len(self.labels))}

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch of classified texts."""
        logits, labels = self.logits(batch), batch["labels"]
        nll, count = nll_by_row(logits, labels)
        self.scores.add(
            batch["index"], nll=nll, count=count, gold=labels, predicted=logits.argmax(-1)
        )
        cast(NegativeLogLikelihood, self.metrics["loss"]).update_sums(nll.sum(), count.sum())
        real = labels != IGNORED
        cast(ClassificationScores, self.metrics["scores"]).update(logits[real], labels[real])
        self.add_to_metrics(batch["index"], logits[real], labels[real])

    def figures(self) -> dict[str, float]:
        """Loss, F1 and accuracy; the per-class figures go to a table."""
        scores = cast(ClassificationScores, self.metrics["scores"])
        self._per_class = table(scores.compute(), self.labels)  # which the metric keeps
        return super().figures()

    def tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Precision, recall, F1 and support of each class in the last evaluation."""
        return {"classes": (list(TABLE_COLUMNS), self._per_class)}

    def answer(self, text: str, packing: bool) -> str:
        """The likeliest class, a tab, and its probability."""
        tokens = self.input_ids(text)
        with torch.inference_mode():
            logits = self.logits({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        probability, index = logits.float().softmax(-1)[0].max(0)
        return f"{self.labels[int(index)]}\t{float(probability):.4f}"

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, float]:
        """Frequencies of classes in training, and always the most frequent one."""
        counts = prepared.target_counts
        scored = prepared.datasets[split_name].target_counts(len(counts))
        gold = torch.repeat_interleave(torch.arange(len(counts)), torch.from_numpy(scored))
        majority = torch.full_like(gold, int(counts.argmax()))
        figures = score_once("scores", ClassificationScores(len(counts)), majority, gold)
        return {"loss": unigram_loss(counts, scored), **figures}
