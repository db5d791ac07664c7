"""Perplexities of one model and one text, however they are batched, padded and rounded."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torchmetrics.text
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from benchmarks.traps import stock
from benchmarks.traps.evaluation import start_from
from benchmarks.traps.material import named, trained
from benchmarks.traps.ours import quietly, results
from benchmarks.traps.report import Section
from truesweep.metrics.likelihood import Perplexity

WINDOW = 96
Scored = tuple[Tensor, Tensor]
"""Logits [B, T, V] and labels [B, T] of a batch, -100 where there is none."""


def measure() -> Section:
    """All perplexities, theirs and ours, beside the one in float64."""
    return Section(
        title="Perplexity",
        text=(
            "Perplexities of the same logits, and of the same text by the same model in batches "
            "of 8 sentences or of 8 windows. The truth is the exponential of the summed "
            "negative log-likelihoods over the number of tokens, all in float64. torchmetrics "
            "takes the softmax and then its logarithm, in the logits' own type, and counts the "
            "padding unless told not to; what Lightning logs is a mean of batches."
        ),
        columns=["of", "how", "stock", "truesweep", "truth"],
        rows=[*_of_logits(), *_of_text()],
    )


def _of_logits() -> list[list[str]]:
    """Two classes whose logits differ by the negative log-likelihood."""
    rows = []
    for nll, dtype in ((50, "float32"), (50, "bfloat16"), (50, "float16"), (110, "float32")):
        logits, labels = torch.zeros(1, 4, 2), torch.zeros(1, 4, dtype=torch.int64)
        logits[..., 1] = nll
        batch = (logits.to(getattr(torch, dtype)), labels)
        how = f"torchmetrics, {dtype} logits"
        rows.append(_row(f"NLL {nll}", how, torchmetrics_perplexity([batch]), [batch]))
    return rows


def _of_text() -> list[list[str]]:
    """The whole of a text by a trained language model."""
    folder = trained("lm", 0.0)
    padded, packed = (
        list(_scored(folder, _sentences(folder))),
        list(_scored(folder, _windows(folder))),
    )
    half = [(logits.bfloat16(), labels) for logits, labels in padded]
    rows = [
        _row("text, padded", "torchmetrics, bfloat16 logits", torchmetrics_perplexity(half), half)
    ]
    commands = {"text, padded": (padded, "false"), "text, packed": (packed, "true")}
    for name, (batches, packing) in commands.items():
        ours = our_perplexity(folder, packing)
        stocks: dict[str, Callable[[Iterable[Scored]], float]] = {
            "torchmetrics": torchmetrics_perplexity,
            "exponential of the mean of batches": exponential_of_mean,
            "mean of batches' exponentials": mean_of_exponentials,
        }
        if name == "text, padded":
            stocks["torchmetrics without `ignore_index`"] = without_ignore_index
        rows += [_row(name, how, f(batches), batches, ours) for how, f in stocks.items()]
    return rows


def _row(
    name: str, how: str, stock_value: float, batches: list[Scored], ours: float | None = None
) -> list[str]:
    if ours is None:
        metric = Perplexity()
        for batch in batches:
            metric.update(*batch)
        ours = float(metric.compute())
    return [name, how, *(f"{value:.6g}" for value in (stock_value, ours, truth(batches)))]


def truth(batches: Iterable[Scored]) -> float:
    """The perplexity in float64."""
    pairs = [_flat(logits.double(), labels) for logits, labels in batches]
    nll = sum(float(cross_entropy(*pair, reduction="sum")) for pair in pairs)
    return math.exp(nll / sum(int((labels != -100).sum()) for _, labels in pairs))


def torchmetrics_perplexity(batches: Iterable[Scored], ignore: int | None = -100) -> float:
    """The metric of torchmetrics."""
    metric = torchmetrics.text.Perplexity(ignore_index=ignore)
    for batch in batches:
        metric.update(*batch)
    return float(metric.compute())


def without_ignore_index(batches: Iterable[Scored]) -> float:
    """The same, of labels that are filled up with the pad token 0."""
    return torchmetrics_perplexity([(x, y.clamp(min=0)) for x, y in batches], ignore=None)


def exponential_of_mean(batches: Iterable[Scored]) -> float:
    """What becomes of `self.log("val/loss", loss)`."""
    losses = [float(cross_entropy(*_flat(*batch))) for batch in batches]
    return math.exp(sum(losses) / len(losses))


def mean_of_exponentials(batches: Iterable[Scored]) -> float:
    """What becomes of `self.log("val/perplexity", loss.exp())`."""
    found = [math.exp(float(cross_entropy(*_flat(*batch)))) for batch in batches]
    return sum(found) / len(found)


def _flat(logits: Tensor, labels: Tensor) -> Scored:
    return logits.flatten(0, 1), labels.flatten()


def our_perplexity(folder: Path, packing: str) -> float:
    """The validation of a run whose one step is too small to change a weight."""
    made = quietly(
        *named("lm", train="train", val="eighty", test="n1"),
        *start_from(folder),
        f"data.packing={packing}",
        "data.eval_batch_size=8",
        "trainer.max_steps=1",
        "optimizer=sgd",
        "optimizer.lr=1e-30",
        "scheduler.warmup=0",
    )
    return float(results(made)["val/perplexity"])


@torch.inference_mode()
def _scored(folder: Path, batches: Iterable[dict[str, Any]]) -> list[Scored]:
    """Logits and labels, from batches of tokens and labels in the same places."""
    model = stock.MODELS["lm"].from_pretrained(folder).eval()
    found = []
    for batch in batches:
        inputs = {key: value[:, :-1] for key, value in batch.items() if key != "labels"}
        found.append((model(**inputs).logits.clone(), batch["labels"][:, 1:]))
    return found


def _sentences(folder: Path) -> Iterable[dict[str, Any]]:
    """Sentences below each other, padded."""
    for batch in stock.loader("lm", folder, Path("eighty"), 8):
        yield {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}


def _windows(folder: Path) -> Iterable[dict[str, Any]]:
    """The whole text in windows that share one token with the next; the last one is short."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = Path("eighty.txt").read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [ids[start : start + WINDOW + 1] for start in range(0, len(ids) - 1, WINDOW)]
    for first in range(0, len(rows), 8):
        chosen = rows[first : first + 8]
        inputs, labels = (stock.padded(chosen, fill) for fill in (tokenizer.pad_token_id, -100))
        yield {"input_ids": inputs, "labels": labels}
