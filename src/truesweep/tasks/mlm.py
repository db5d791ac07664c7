"""Masked language modelling: find tokens that are hidden, from what stands on both sides."""

import math
from typing import Annotated, Any, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.frames import input_frame
from truesweep.data.masked import MASK, MASKED_TEXT
from truesweep.data.prepare import Prepared
from truesweep.errors import ConfigError
from truesweep.metrics.likelihood import (
    IGNORED,
    NegativeLogLikelihood,
    Perplexity,
    TokenAccuracy,
    correct_by_row,
    nll_by_row,
)
from truesweep.models.dropout import draw
from truesweep.tasks.base import Task, unigram_loss
from truesweep.tasks.training import Recipe

EVALUATION = (0,)
"""What the masks of evaluations follow from, besides the sample: the same in all runs."""
CHOICE = 1
"""Behind a seed and a step, what tells masks from dropout."""


class MaskedLanguageModeling(Task):
    """A model that reads both ways, scored by loss, perplexity and accuracy on hidden tokens.

    Which tokens are hidden follows from the seed, the step and the sample, so that no split of a
    batch changes it; in evaluations from the sample alone. What is hidden is replaced by the mask
    token, or by any token, or stays as it is (Devlin et al. 2019).

    Args:
        model: Returns logits [batch, length, vocabulary].
        tokenizer: The model's tokenizer, with a mask token.
        recipe: How to train; None to evaluate or generate only.
        mask_rate: Share of a sample's tokens that are hidden, special ones aside; one at least.
        masked: Of the hidden tokens, the share that the mask token replaces.
        random: The share that any other token replaces. The rest stays.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take logits
            [batch, length, vocabulary] and labels [batch, length], -100 where nothing is hidden.

    Raises:
        ConfigError: `masked` and `random` are more than all.
    """

    declares = TokenAccuracy.figures
    head = "masked"
    kind = MASKED_TEXT
    tag = "mlm"
    pipeline = "fill-mask"

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        mask_rate: Annotated[float, Gt(0), Lt(1)] = 0.15,
        masked: Annotated[float, Ge(0), Le(1)] = 0.8,
        random: Annotated[float, Ge(0), Le(1)] = 0.1,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        if masked + random > 1 + 1e-9:
            raise ConfigError(
                f"task.masked={masked} and task.random={random} are shares of the hidden tokens, "
                "and more than 1 together"
            )
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.mask_rate = mask_rate
        self.masked = masked
        self.random = random
        self.label_smoothing = label_smoothing
        special = set(tokenizer.all_special_ids)
        ordinary = torch.tensor(sorted({*tokenizer.get_vocab().values()} - special))
        self.register_buffer("ordinary_ids", ordinary, persistent=False)

    def seen(self, batch: Batch, step: int | None) -> Batch:
        """A batch with some tokens hidden."""
        return self.hide(batch, EVALUATION if step is None else (self.plan.seed, step, CHOICE))

    def hide(self, batch: Batch, entropy: tuple[int, ...]) -> Batch:
        """A batch with some tokens hidden, which alone are left among the labels.

        Args:
            batch: Its labels are the tokens that may be hidden.
            entropy: What the choice follows from, besides the sample.
        """
        input_ids, labels = batch["input_ids"], batch["labels"]
        shape = (3, labels.shape[1])
        numbers = draw(entropy, batch["index"], shape, labels.device).long() + 2**31
        order, action, substitute = numbers.unbind(1)
        eligible = labels != IGNORED
        places = order.masked_fill(~eligible, 2**32).argsort(stable=True, dim=1).argsort(1)
        count = (eligible.sum(1).double() * self.mask_rate).round().clamp(min=1)
        hidden = eligible & (places < count[:, None])
        share = action.double() / 2**32
        others = cast(Tensor, self.ordinary_ids).to(labels.device)
        seen = torch.where(
            share < self.masked + self.random, others[substitute % len(others)], labels
        )
        seen = torch.where(share < self.masked, self.tokenizer.mask_token_id, seen)
        return {
            **batch,
            "input_ids": torch.where(hidden, seen, input_ids),
            "labels": labels.masked_fill(~hidden, IGNORED),
        }

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the cross-entropies of all hidden tokens."""
        return self.token_losses(batch, self.label_smoothing)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [batch, length, vocabulary]."""
        scores = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        assert isinstance(scores, Tensor)
        return scores

    def make_metrics(self) -> dict[str, Metric]:
        """Loss in nats per hidden token, its exponential, and accuracy."""
        return {
            "loss": NegativeLogLikelihood(),
            "perplexity": Perplexity(),
            "accuracy": TokenAccuracy(),
        }

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch of windows or texts."""
        logits, labels = self.logits(batch), batch["labels"]
        nll, count = nll_by_row(logits, labels)
        correct = correct_by_row(logits, labels)
        self.scores.add(batch["index"], nll=nll, count=count, correct=correct)
        self.add_to_metrics(batch["index"], logits, labels)
        for name in ("loss", "perplexity"):
            cast(NegativeLogLikelihood, self.metrics[name]).update_sums(nll.sum(), count.sum())
        cast(TokenAccuracy, self.metrics["accuracy"]).update(correct, count)

    def tokens_per_target(self, prepared: Prepared) -> float:
        """All tokens are read, and few are targets."""
        return super().tokens_per_target(prepared) / self.mask_rate

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, float]:
        """Frequencies of tokens in training, and always the most frequent one."""
        train, dataset = prepared.target_counts, prepared.datasets[split_name]
        scored = np.zeros(len(train), np.int64)
        for start in range(0, len(dataset), 1024):
            rows = range(start, min(start + 1024, len(dataset)))
            labels = self.hide(dataset.collate(rows), EVALUATION)["labels"].numpy()
            scored += np.bincount(labels[labels != IGNORED], minlength=len(train))
        loss = unigram_loss(train, scored)
        accuracy = scored[train.argmax()] / max(1, scored.sum())
        return {"loss": loss, "perplexity": math.exp(loss), "accuracy": float(accuracy)}

    def answer(self, text: str, packing: bool) -> str:
        """The text with the likeliest token in the place of each mask."""
        mask = self.tokenizer.mask_token
        text = text.replace(MASK, mask)
        if mask not in text:
            raise ConfigError(
                f"the text {text!r} has no {mask}: write it where a token is to be found"
            )
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)[
            "input_ids"
        ]
        frame = input_frame(self.tokenizer, "text")
        limit = self.limit(len(ids) + len(frame))
        row = frame.wrap(np.array(ids, np.int32), limit)
        tokens = torch.tensor([row], device=self.device)
        with torch.inference_mode():
            scores = self.logits({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
            scores[..., self.tokenizer.all_special_ids] = -math.inf
        found = torch.where(tokens == self.tokenizer.mask_token_id, scores.argmax(-1), tokens)
        return str(self.tokenizer.decode(found[0], skip_special_tokens=True))
