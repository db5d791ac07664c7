"""Trivial models that tasks are compared with: what a figure is worth."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt

from truesweep.data.prepare import Prepared
from truesweep.figures import compute


def unigram(prepared: Prepared, split: str) -> dict[str, float]:
    """Loss and perplexity of the frequencies that targets have in the training split."""
    scored = prepared.datasets[split].target_counts(len(prepared.target_counts))
    loss = unigram_loss(prepared.target_counts, scored)
    return {"loss": loss, "perplexity": math.exp(loss)}


def unigram_loss(train: npt.NDArray[np.int64], scored: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats under add-one smoothed training frequencies.

    Args:
        train: How often each token is a target in training [vocabulary].
        scored: The same in the split that is scored [vocabulary].
    """
    logs = np.log(train + 1.0) - math.log(train.sum() + len(train))
    return float(-(scored * logs).sum() / scored.sum())


def score_once(name: str, metric: Any, predictions: Any, targets: Any) -> dict[str, float]:
    """What a metric has to say of predictions, on this rank alone; the metric itself is left alone.

    Args:
        name: Under which the metric is reported.
        metric: A torchmetrics metric.
        predictions: As its `update` takes them.
        targets: Likewise.
    """
    alone = deepcopy(metric)
    alone.reset()
    alone.distributed_available_fn = _nowhere
    alone.update(predictions, targets)
    return compute(name, alone)


def _nowhere() -> bool:
    """Whether there are other ranks to wait for."""
    return False
