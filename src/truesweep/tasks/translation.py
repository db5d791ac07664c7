"""Translation with an encoder–decoder."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, cast

from annotated_types import Ge, Gt, Lt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.data.kinds import TRANSLATIONS
from truesweep.metrics.text import (
    BY_SPACES,
    BleuTokenizer,
    CorpusBleu,
    CorpusChrF,
    TextMetric,
    bleu_tokenizer,
    written_without_spaces,
)
from truesweep.tasks.seq2seq import TextToText
from truesweep.tasks.training import Recipe


class Translation(TextToText):
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

    kind = TRANSLATIONS
    tag = "translation"
    pipeline = "translation"
    table: ClassVar[str] = "translations"
    of_texts = (*TextToText.of_texts, "bleu_tokenize")

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
        """BLEU and chrF, in 0–100."""
        return {"bleu": CorpusBleu(self.bleu_tokenize), "chrf": CorpusChrF()}

    def trivial(self, source: str) -> str:
        """The source as it stands."""
        return source

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """Whether BLEU can find the words of the references."""
        if self.bleu_tokenize in BY_SPACES and written_without_spaces(answers):
            yield (
                f"BLEU looks for words between spaces (task.bleu_tokenize={self.bleu_tokenize}), "
                "and the references have few: it scores whole sentences as words. Set "
                "task.bleu_tokenize=zh, ja-mecab, ko-mecab, flores200 or char"
            )

    def signatures(self, split_name: str) -> dict[str, str]:
        """SacreBLEU's signatures."""
        return {
            f"{split_name}/{name}_signature": cast(CorpusBleu, self.metrics[name]).signature
            for name in ("bleu", "chrf")
        }
