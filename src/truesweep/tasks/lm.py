"""Language modelling: predict the next token."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.compat import one_text_a_row
from truesweep.data.batch import Batch
from truesweep.data.encode import encode_inputs
from truesweep.data.kinds import TEXT, SampleKind
from truesweep.data.prepare import Prepared
from truesweep.figures import Figure
from truesweep.metrics.likelihood import (
    BitsPerByte,
    NegativeLogLikelihood,
    Perplexity,
)
from truesweep.models import Head
from truesweep.tasks.base import Task, unigram
from truesweep.tasks.generation import Sampling, context_length, continue_ids
from truesweep.tasks.training import Recipe

PROMPT_TOKENS = 16
"""How much of a scored text is shown to the model to be continued."""


class LanguageModeling(Task):
    """A causal language model, scored by loss, perplexity and bits per byte.

    Args:
        model: Returns logits [batch, length, vocabulary].
        tokenizer: The model's tokenizer.
        recipe: How to train; None to evaluate or generate only.
        bytes_per_target: By split, the UTF-8 bytes of its text for each predicted token: what makes
            models with different tokenizers comparable. Without the splits whose tokens do not
            hold the whole text.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        sample_tokens: Length of the text sampled at the end of a training.
        sample_temperature: 0 takes the likeliest token; 1 samples from the model as it is.
        sample_top_k: Sample among so many likeliest tokens; None: among all.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take logits
            [batch, length, vocabulary] and labels [batch, length], -100 where there is none.
    """

    head: ClassVar[Head] = "causal"
    kind: ClassVar[SampleKind] = TEXT
    tag = "lm"
    pipeline = "text-generation"
    options: ClassVar[Mapping[str, str]] = {
        "max_new_tokens": "sample_tokens",
        "temperature": "sample_temperature",
        "top_k": "sample_top_k",
    }

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        bytes_per_target: dict[str, float] | None = None,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        sample_tokens: Annotated[int, Ge(0)] = 200,
        sample_temperature: Annotated[float, Ge(0)] = 0.8,
        sample_top_k: Annotated[int, Gt(0)] | None = 50,
        metrics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.bytes_per_target = bytes_per_target or {}
        self.label_smoothing = label_smoothing
        self.prompt: list[int] = []
        self.sampling = Sampling(
            max_new_tokens=sample_tokens, temperature=sample_temperature, top_k=sample_top_k
        )

    @classmethod
    def ends_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """How a text is made up."""
        return "sample_tokens", "sample_temperature", "sample_top_k"

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the cross-entropies of all next tokens."""
        return self.token_losses(batch, self.label_smoothing)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [batch, length, vocabulary]."""
        return causal_logits(self.model, batch)

    def on_test_epoch_start(self) -> None:
        """Forget the last evaluation, and what it began with."""
        super().on_test_epoch_start()
        self.prompt = []

    def make_metrics(self) -> dict[str, Metric]:
        """Loss in nats per token, perplexity, bits per byte."""
        return {
            "loss": NegativeLogLikelihood(),
            "perplexity": Perplexity(),
            "bits_per_byte": BitsPerByte(bytes_per_target=1.0),
        }

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """Whether bits per byte are left out."""
        judged = ("val", "test") if self.recipe else (self.test_split,)
        withheld = [split for split in judged if split not in self.bytes_per_target]
        if withheld:
            yield (
                f"bits_per_byte of {' and '.join(withheld)} is left out: the tokens do not hold "
                "the whole text, and what is not in them would cost nothing. tokenizer=byte and "
                "tokenizer=bpe hold every text"
            )

    def reported(self, split_name: str) -> tuple[str, ...]:
        """Without bits per byte where the tokens do not hold the whole text."""
        withheld = {
            name
            for name in super().reported(split_name)
            if name.endswith("bits_per_byte")
            and f"{split_name}/{name}".rpartition("/")[0] not in self.bytes_per_target
        }
        return tuple(name for name in super().reported(split_name) if name not in withheld)

    def following(self, figure: Figure, base: float, part: str) -> float | None:
        """Bits per byte, besides."""
        per_byte = self.bytes_per_target.get(part)
        if figure.name.endswith("bits_per_byte") and per_byte:
            return base / math.log(2) / per_byte
        return super().following(figure, base, part)

    def figures(self) -> dict[str, float]:
        """Without bits per byte where the tokens do not hold the whole text."""
        bits_per_byte = cast(BitsPerByte, self.metrics["bits_per_byte"])
        withheld = {"bits_per_byte"} if math.isnan(bits_per_byte.bytes_per_target) else set()
        return {k: v for k, v in super().figures().items() if k not in withheld}

    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch of windows or texts."""
        if not self.prompt and batch["lengths"][0]:
            self.prompt = batch["input_ids"][0, : min(PROMPT_TOKENS, first_text(batch))].tolist()
        nll, count, logits = self.nll_by_row(batch)
        self.scores.add(batch["index"], nll=nll, count=count)
        self.add_to_metrics(batch["index"], logits, batch["labels"])
        bits_per_byte = cast(BitsPerByte, self.metrics["bits_per_byte"])
        bits_per_byte.bytes_per_target = self.bytes_per_target.get(split_name, math.nan)
        for name in ("loss", "perplexity", "bits_per_byte"):
            cast(NegativeLogLikelihood, self.metrics[name]).update_sums(nll.sum(), count.sum())

    def tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """A text that the model makes up behind the first words it was scored on."""
        if not self.prompt or not self.sampling.max_new_tokens or self.is_sharded:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ids = self.sample(self.prompt)
        texts = [
            str(self.tokenizer.decode(part, skip_special_tokens=True))
            for part in (self.prompt, ids[len(self.prompt) :])
        ]
        return {"samples": (["prompt", "continuation"], [texts])}

    def sample(self, prompt: Sequence[int]) -> list[int]:
        """Token ids that the model makes up, behind those of the prompt."""
        return continue_ids(self.model, prompt, self.sampling)

    def answer(self, text: str, packing: bool) -> str:
        """The prompt and its continuation."""
        limit = context_length(self.model) or 1_000_000
        ids = encode_inputs(self.tokenizer, self.kind.name, [text], limit)[0]
        if packing:  # windows of packed text begin anywhere, with no special token
            ids = self.tokenizer(text or "\n", add_special_tokens=False)["input_ids"]
        return str(self.tokenizer.decode(self.sample(ids), skip_special_tokens=True))

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, float]:
        """Frequencies of tokens in training."""
        figures = unigram(prepared, split_name)
        if per_byte := prepared.bytes_per_target.get(split_name):
            figures["bits_per_byte"] = figures["loss"] / math.log(2) / per_byte
        return figures


def first_text(batch: Batch) -> int:
    """How many inputs of a batch's first row are of the text that it begins with."""
    if "position_ids" in batch:  # what comes after it begins anew, padding too
        positions: Tensor = batch["position_ids"][0]
        return int((positions == torch.arange(len(positions), device=positions.device)).sum())
    return int(batch["lengths"][0])


def causal_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """A causal model's scores of the next tokens [batch, length, vocabulary]."""
    inputs = {name: batch.get(name) for name in ("input_ids", "attention_mask")}
    beside = "position_ids" in batch
    if beside:  # not all models know them
        inputs["position_ids"] = batch["position_ids"]
    with nullcontext() if beside else one_text_a_row():
        scores = model(**inputs, use_cache=False).logits
    assert isinstance(scores, Tensor)
    return scores
