"""Supervised fine-tuning: a causal model learns to give the answers of conversations."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from truesweep.data.batch import Batch
from truesweep.data.chat_template import TrainOn, encode_prompt, end_token
from truesweep.data.chats import CHATS, ChatKind, Truncation
from truesweep.data.conversations import messages_of
from truesweep.data.kinds import SampleKind
from truesweep.figures import Figure
from truesweep.metrics.likelihood import TokenAccuracy, correct_by_row, nll_by_row
from truesweep.metrics.text import RougeWords, TextMetric, f_measures, unknown_words
from truesweep.models import Head
from truesweep.models.batching import sees_padding_in_front
from truesweep.tasks.generation import context_length, generate
from truesweep.tasks.lm import causal_logits
from truesweep.tasks.seq2seq import LIKELIHOODS, TextToText
from truesweep.tasks.training import Recipe

KEYS = ("exact_match", "rougeL")


class Answers(TextMetric):
    """How many texts are their references, but for white space around them, and ROUGE-L.

    ROUGE-L is the mean of the F-measures, as `tasks.summarization.Rouge` has it.

    Args:
        words: What ROUGE's words are made of.
    """

    figures = tuple(Figure(key, higher_is_better=True, samples=(key, "answered")) for key in KEYS)

    def __init__(self, words: RougeWords = "english", **kwargs: Any) -> None:
        super().__init__(len(KEYS), torch.float64, **kwargs)
        self.words: RougeWords = words

    @override
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Tensor:
        rows = [
            [
                float(prediction.strip() == reference.strip()),
                *f_measures(prediction, reference, ["rougeL"], self.words),
            ]
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64, device=self.device)

    @override
    def by_sample(self, counts: Tensor) -> dict[str, Tensor]:
        columns = dict(zip(KEYS, counts.unbind(1), strict=True))
        return {**columns, "answered": torch.ones_like(counts[:, 0])}

    @override
    def compute(self) -> dict[str, Tensor]:
        """The means; NaN of no text at all."""
        return dict(zip(KEYS, self.counts / self.count, strict=True))


class SupervisedFineTuning(TextToText):
    """Answers in conversations, scored by loss, perplexity, accuracy of tokens, and as texts.

    What is generated and compared is the last answer of each conversation.

    Args:
        model: Returns logits [batch, length, vocabulary].
        tokenizer: The model's tokenizer, with a chat template.
        recipe: How to train; None to evaluate or generate only.
        train_on: Which tokens are targets: those of all answers (`assistant`), of the last one
            (`completion`), or all there are.
        truncation: Which end of a conversation longer than `data.max_length` is cut off.
        label_smoothing: Share of the target's probability spread over the whole vocabulary.
        beam_size: Hypotheses kept in beam search; 1 is greedy.
        max_new_tokens: Longest answer that is generated.
        val_generated: Validation samples for which an answer is generated at each validation, the
            first ones of the split; None: all, 0: none. The test split is always done whole.
        shown: Answers kept as examples.
        rouge_words: What ROUGE takes for words: English letters and digits, as the package
            rouge-score has it, or those of any script.
        metrics: Further torchmetrics metrics of its evaluations, by name; they take texts and
            references, as lists of texts.
    """

    declares = (*Answers.figures, *TokenAccuracy.figures)
    head: ClassVar[Head] = "causal"
    kind: ClassVar[SampleKind] = CHATS
    tag = "sft"
    pipeline = "text-generation"
    table = "answers"
    of_texts = (*TextToText.of_texts, "rouge_words")
    of_tokens = (*LIKELIHOODS, "accuracy")

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        train_on: TrainOn = "assistant",
        truncation: Truncation = "right",
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        beam_size: Annotated[int, Gt(0)] = 1,
        max_new_tokens: Annotated[int, Gt(0)] = 64,
        val_generated: Annotated[int, Ge(0)] | None = 32,
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
            max_new_tokens=max_new_tokens,
            val_generated=val_generated,
            shown=shown,
            metrics=metrics,
        )

    @classmethod
    def kind_of(cls, settings: Mapping[str, Any]) -> SampleKind:
        """Conversations, with the targets and the end that the settings ask for."""
        return ChatKind(settings["train_on"], settings["truncation"])

    def logits(self, batch: Batch) -> Tensor:
        """Scores [batch, length, vocabulary]."""
        return causal_logits(self.model, batch)

    def make_metrics(self) -> dict[str, Metric]:
        """Loss in nats per token, perplexity, accuracy; and those of texts."""
        return {**super().make_metrics(), "accuracy": TokenAccuracy()}

    def text_metrics(self) -> dict[str, TextMetric]:
        """Exact matches and ROUGE-L, 0 to 1."""
        return {"answers": Answers(self.rouge_words)}

    def score_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Likelihoods and numbers of targets; how many are the likeliest is kept."""
        logits, labels = self.logits(batch), batch["labels"]
        nll, count = nll_by_row(logits, labels)
        correct = correct_by_row(logits, labels)
        self.scores.add(batch["index"], correct=correct)
        cast(TokenAccuracy, self.metrics["accuracy"]).update(correct, count)
        return nll, count

    def asked(self, batch: Batch, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """What comes before the last answers, all ending together, and these as text."""
        answers = [batch["answers"][r] for r in rows]
        references = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        prompts = self._aligned([batch["prompts"][r] for r in rows])
        return *prompts, [str(text).strip() for text in references]

    def generate_texts(self, input_ids: Tensor, attention_mask: Tensor) -> list[str]:
        """The answers to token ids [batch, length], each as if it were asked alone."""
        if len(input_ids) > 1 and not self.is_sharded and self._sees_padding:
            rows = zip(input_ids, attention_mask.bool(), strict=True)
            alone = (row[read][None] for row, read in rows)
            return [self.generate_texts(row, torch.ones_like(row))[0] for row in alone]
        return [text.strip() for text in super().generate_texts(input_ids, attention_mask)]

    @cached_property
    def _sees_padding(self) -> bool:
        return sees_padding_in_front(self.model, generate)

    def _aligned(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of prompts that end together; of long ones, the end.

        At least half of the model's context is left to them.
        """
        context = context_length(self.model)
        if context is not None:
            room = max(context // 2, context - self.max_new_tokens)
            prompts = [prompt[-room:] for prompt in prompts]
        width = max(map(len, prompts))
        rows = [[-1] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(rows, device=self.device)
        mask = ids >= 0
        return ids.masked_fill(~mask, int(self.tokenizer.pad_token_id)), mask.long()

    @classmethod
    def ends(cls, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """What the chat template puts behind an answer, and the end of a text."""
        found = {end_token(tokenizer), cast(int | None, tokenizer.eos_token_id)}
        return sorted(token for token in found if token is not None)

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """Whether a model can learn to end an answer, and ROUGE can find the words of answers."""
        yield from unknown_words(answers, self.rouge_words)
        if end_token(self.tokenizer) is None:
            yield (
                "the chat template puts no special token behind an answer, so that a model does "
                "not learn to end one, and goes on for task.max_new_tokens. Set another "
                "tokenizer.chat_template"
            )

    def trivial(self, source: str) -> str:
        """What was asked."""
        return source

    def answer(self, text: str, packing: bool) -> str:
        """The answer to a question, or to messages given as JSON."""
        prompt = encode_prompt(self.tokenizer, messages_of(text))
        prompt = prompt[-self.limit(len(prompt)) :]
        return self.generate_texts(*self._aligned([prompt]))[0]
