"""Learning from preferences: the better of two answers is to become likelier than the worse."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.batch import Batch
from truesweep.data.chats import Truncation
from truesweep.data.kinds import SampleKind
from truesweep.data.preferences import PREFERENCES, SIDES, PreferenceKind
from truesweep.data.prepare import Prepared
from truesweep.figures import Figure
from truesweep.metrics.likelihood import IGNORED
from truesweep.metrics.sums import SumMetric
from truesweep.models import Head
from truesweep.models.adapters import has_adapter, without_adapter
from truesweep.tasks.base import Task
from truesweep.tasks.lm import causal_logits
from truesweep.tasks.sft import SupervisedFineTuning
from truesweep.tasks.training import Recipe

Loss = Literal["dpo", "ipo", "simpo"]
COLUMNS = ("loss", "better", "margin", "pairs")


class Rewards(SumMetric):
    """Means over pairs: loss, how often the better answer has more reward, how much more."""

    figures = (
        Figure("loss", higher_is_better=False, samples=("loss", "pairs"), curve="loss"),
        Figure("accuracy", higher_is_better=True, samples=("better", "pairs")),
        Figure("margin", higher_is_better=True, samples=("margin", "pairs")),
    )
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(len(COLUMNS), dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, rows: Tensor) -> None:
        """Add pairs: `COLUMNS` of each, float64 [B, 4]."""
        self.sums += rows.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """The means, float64; NaN of no pair."""
        means = self.sums[:-1] / self.sums[-1]
        return dict(zip((figure.name for figure in self.figures), means, strict=True))


class DirectPreference(Task):
    """A causal model that learns which of two answers is better, scored by loss and rewards.

    The reward of an answer is beta times its log-likelihood, less that under the model as it was
    before the training: the same without its adapter, or what is kept of that. SimPO has the mean
    over the answer's tokens, and no such reference.

    Args:
        model: Returns logits [batch, length, vocabulary].
        tokenizer: The model's tokenizer, with a chat template.
        recipe: How to train; None to evaluate or generate only.
        loss: Of a pair: `dpo` (Rafailov et al. 2023), `ipo` (Azar et al. 2024; of means over
            tokens) or `simpo` (Meng et al. 2024).
        beta: How much likelihoods count; of IPO, the strength of its regularisation.
        gamma: By how much SimPO wants the rewards to differ.
        label_smoothing: Share of the pairs that are taken to be the wrong way round; of `dpo`.
        truncation: Which end of a conversation longer than `data.max_length` is cut off.
        max_new_tokens: Longest answer of `truesweep generate`.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take rewards
            [batch, 2], the better answer's first, and zeros [batch].
    """

    declares = Rewards.figures
    head: ClassVar[Head] = "causal"
    kind: ClassVar[SampleKind] = PREFERENCES
    tag = "dpo"
    pipeline = "text-generation"
    options: ClassVar[Mapping[str, str]] = {"max_new_tokens": "max_new_tokens"}

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        loss: Loss = "dpo",
        beta: Annotated[float, Gt(0)] = 0.1,
        gamma: Annotated[float, Ge(0)] = 0.5,
        label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0,
        truncation: Truncation = "right",
        max_new_tokens: Annotated[int, Gt(0)] = 64,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.form = loss
        self.beta = beta
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.max_new_tokens = max_new_tokens

    @classmethod
    def kind_of(cls, settings: Mapping[str, Any]) -> SampleKind:
        """Preferences, cut at the end that the settings ask for."""
        return PreferenceKind("completion", settings["truncation"])

    @classmethod
    def ends_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What only `truesweep generate` asks for."""
        return ("max_new_tokens",)

    @classmethod
    def needs_reference(cls, settings: Mapping[str, Any], model: PreTrainedModel) -> bool:
        """If there is no adapter to be left out."""
        return settings["loss"] != "simpo" and not has_adapter(model)

    @classmethod
    def ends(cls, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Those of answers."""
        return SupervisedFineTuning.ends(tokenizer)

    def targets(self, batch: Batch) -> Tensor:
        """Pairs."""
        return self.pairs(batch).sum()

    def pairs(self, batch: Batch) -> Tensor:
        """Whether there are two answers to compare, bool [batch]: one may be cut off."""
        labels: Tensor = batch["labels"]
        return (labels != IGNORED).any(1).all(-1)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum over pairs; the second is the first."""
        pairs = self.pairs(batch)
        total = (self.pair_losses(self.rewards(batch)) * pairs).sum()
        return total, total.detach(), pairs.sum()

    def rewards(self, batch: Batch) -> Tensor:
        """The rewards of both answers, [batch, 2]."""
        if self.form == "simpo":
            return self.beta * self._likelihoods(batch)
        reference = self._reference(batch)
        return self.beta * (self._likelihoods(batch) - reference)

    def _reference(self, batch: Batch) -> Tensor:
        """`_likelihoods` of the model as it was."""
        if not has_adapter(self.model):
            kept = torch.stack([batch[f"reference_{side}"] for side in SIDES], dim=1)
            return kept if self.form == "dpo" else kept / _tokens(batch)
        with torch.no_grad(), without_adapter(self.model), _in_evaluation(self.model):
            return self._likelihoods(batch)

    def pair_losses(self, rewards: Tensor) -> Tensor:
        """The loss of each pair [batch], from the rewards of both answers [batch, 2]."""
        margin = rewards[:, 0] - rewards[:, 1]
        if self.form == "ipo":
            return (margin / self.beta - 1 / (2 * self.beta)) ** 2
        if self.form == "simpo":
            return -logsigmoid(margin - self.gamma)
        wrong = self.label_smoothing
        return -(1 - wrong) * logsigmoid(margin) - wrong * logsigmoid(-margin)

    def _likelihoods(self, batch: Batch) -> Tensor:
        """Log-likelihoods of both answers, [batch, 2]; but of DPO, means over their tokens."""
        sums = answer_likelihoods(self.model, batch)
        return sums if self.form == "dpo" else sums / _tokens(batch)

    def make_metrics(self) -> dict[str, Metric]:
        """Loss, accuracy and margin of rewards."""
        return {"rewards": Rewards()}

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch of pairs."""
        size = len(batch["index"])
        rewards, pairs = self.rewards(batch)[:size], self.pairs(batch)[:size].double()
        margin = (rewards[:, 0] - rewards[:, 1]).double()
        values = self.pair_losses(rewards).double(), (margin > 0).double(), margin
        rows = torch.stack([*(value * pairs for value in values), pairs], dim=1)
        self.scores.add(batch["index"], **dict(zip(COLUMNS, rows.unbind(1), strict=True)))
        first = torch.zeros(len(rewards), dtype=torch.int64, device=rewards.device)
        self.add_to_metrics(batch["index"], rewards, first)
        cast(Rewards, self.metrics["rewards"]).update(rows)

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, float]:
        """Both answers are worth the same."""
        loss = float(self.pair_losses(torch.zeros(1, 2, dtype=torch.float64)))
        return {"loss": loss, "accuracy": 0.5, "margin": 0.0}

    def answer(self, text: str, packing: bool) -> str:
        """The answer to a question, or to messages given as JSON."""
        answering = SupervisedFineTuning(
            model=self.model, tokenizer=self.tokenizer, max_new_tokens=self.max_new_tokens
        )
        answering.max_length = self.max_length
        return answering.answer(text, packing)


def answer_likelihoods(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Log-likelihoods of both last answers of preferences, [batch, 2]."""
    sides = []
    for side in range(len(SIDES)):
        logits = causal_logits(
            model, {key: batch[key][..., side] for key in ("input_ids", "attention_mask")}
        )
        wide = logits if logits.dtype == torch.float64 else logits.float()
        nll = cross_entropy(
            wide.transpose(1, 2), batch["labels"][..., side], ignore_index=IGNORED, reduction="none"
        )
        sides.append(-nll.sum(1))
    return torch.stack(sides, dim=1)


def _tokens(batch: Batch) -> Tensor:
    """Tokens of both last answers, [batch, 2]."""
    labels: Tensor = batch["labels"]
    return (labels != IGNORED).sum(1).clamp(min=1)


@contextmanager
def _in_evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
