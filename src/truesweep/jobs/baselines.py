"""What a figure is worth: the same figure for a trivial model, measured on the same split."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from truesweep.data.prepare import Prepared
from truesweep.data.seq2seq import Seq2SeqDataset
from truesweep.figures import compute
from truesweep.metrics.classification import ClassificationScores
from truesweep.metrics.text import CorpusBleu, CorpusChrF
from truesweep.tasks import Task

_ALONE: dict[str, Any] = {"sync_on_compute": False}
"""Baselines are one rank's business; the others wait for nothing."""


def baselines(prepared: Prepared, split: str, task: Task) -> dict[str, Any]:
    """Baselines by the name of the figure they stand beside, such as `baseline/test/loss`.

    They are computed as the task computes its own figures.

    Language models: the frequencies of tokens in the training split. Translation: the same for the
    loss, and the copied source for BLEU and chrF. Classification: the most frequent class.
    """
    by_kind = {"text": _unigram, "pairs": _copied_source, "labelled": _majority}
    figures = by_kind[prepared.kind](prepared, split, task)
    return {f"baseline/{split}/{name}": value for name, value in figures.items()}


def unigram_loss(train: npt.NDArray[np.int64], scored: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats under add-one smoothed training frequencies.

    Args:
        train: How often each token is a target in training [vocabulary].
        scored: The same in the split that is scored [vocabulary].
    """
    logs = np.log(train + 1.0) - math.log(train.sum() + len(train))
    return float(-(scored * logs).sum() / scored.sum())


def _unigram(prepared: Prepared, split: str, task: Task) -> dict[str, float]:
    scored = prepared.datasets[split].target_counts(len(prepared.target_counts))
    loss = unigram_loss(prepared.target_counts, scored)
    figures = {"loss": loss, "perplexity": math.exp(loss)}
    per_byte = prepared.bytes_per_target.get(split)
    if per_byte:
        figures["bits_per_byte"] = loss / math.log(2) / per_byte
    return figures


def _copied_source(prepared: Prepared, split: str, task: Task) -> dict[str, float]:
    dataset = prepared.datasets[split]
    assert isinstance(dataset, Seq2SeqDataset)
    pairs = dataset.pairs
    sources, targets = [p.source for p in pairs], [p.target for p in pairs]
    figures = _unigram(prepared, split, task)
    for name, of_task in task.metrics.items():
        if name not in task.added and not isinstance(of_task, CorpusBleu | CorpusChrF):
            continue
        metric: Any = deepcopy(of_task)
        metric.reset()
        metric.distributed_available_fn = _nowhere
        metric.update(sources, targets)
        figures |= compute(name, metric)
    return figures


def _nowhere() -> bool:
    """Whether there are other ranks to wait for."""
    return False


def _majority(prepared: Prepared, split: str, task: Task) -> dict[str, float]:
    counts = prepared.target_counts
    scored = prepared.datasets[split].target_counts(len(counts))
    gold = torch.repeat_interleave(torch.arange(len(counts)), torch.from_numpy(scored))
    metric = ClassificationScores(len(counts), **_ALONE)
    metric.update(torch.full_like(gold, int(counts.argmax())), gold)
    computed = metric.compute()
    figures = {figure.name: float(computed[figure.name]) for figure in metric.figures}
    return {"loss": unigram_loss(counts, scored), **figures}
