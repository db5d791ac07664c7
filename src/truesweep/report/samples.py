"""What runs scored on each sample of a split, for comparing two of them sample by sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from truesweep.analysis.outcomes import Samples
from truesweep.analysis.uncertainty import (
    Estimate,
    Score,
    bleu,
    f1_macro,
    f1_statistics,
    f1_weighted,
    paired_bootstrap,
    paired_mean,
)
from truesweep.report.run import Run

Arrays = Mapping[str, npt.NDArray[Any]]
RESAMPLES = 200
"""Their spread is known to 5 %, and hundreds of runs are compared within seconds."""


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Args:
        table: What it is made from by sample [M, K].
        given: Which of the columns the split decides, so that they are alike in all runs.
        paired: The difference of two such tables.
    """

    table: Callable[[Arrays], Samples]
    given: int
    paired: Callable[[Samples, Samples], Estimate]


def read_samples(runs: Sequence[Run], figure: str) -> list[Samples] | None:
    """Each run's samples; None where it keeps none, or they are not the same ones.

    Args:
        runs: The runs.
        figure: Such as `val/loss`.
    """
    split, _, name = figure.partition("/")
    kind = KINDS.get(name)
    if kind is None:
        return None
    tables: list[Samples] = []
    for run in runs:
        try:
            table = kind.table(run.directory.read_scores(split))
        except (OSError, ValueError, KeyError):
            return None
        if tables and not np.array_equal(table[:, kind.given], tables[0][:, kind.given]):
            return None
        tables.append(table)
    return tables


def paired(figure: str) -> Callable[[Samples, Samples], Estimate]:
    """What compares two runs by a figure, given the samples of both."""
    kind = KINDS.get(figure.partition("/")[2])
    return paired_mean if kind is None else kind.paired


def _losses(scores: Arrays) -> Samples:
    return np.stack([scores["nll"], scores["count"]], axis=1).astype(np.float64)


def _hits(scores: Arrays) -> Samples:
    return np.stack([scores["predicted"], scores["gold"]], axis=1)


def _paired_accuracy(first: Samples, second: Samples) -> Estimate:
    ones = np.ones(len(first))
    a, b = (np.stack([one[:, 0] == one[:, 1], ones], axis=1) for one in (first, second))
    return paired_mean(a, b)


def _paired_bleu(first: Samples, second: Samples) -> Estimate:
    return paired_bootstrap(first, second, bleu, RESAMPLES)


def _paired_f1(score: Score) -> Callable[[Samples, Samples], Estimate]:
    def paired(first: Samples, second: Samples) -> Estimate:
        classes = int(max(first.max(), second.max())) + 1
        a, b = (f1_statistics(one[:, 1], one[:, 0], classes) for one in (first, second))
        return paired_bootstrap(a, b, score, RESAMPLES)

    return paired


_LOSS = Kind(_losses, 1, paired_mean)
KINDS = {
    "loss": _LOSS,
    "perplexity": _LOSS,
    "bits_per_byte": _LOSS,
    "bleu": Kind(lambda scores: scores["bleu"], 1, _paired_bleu),
    "accuracy": Kind(_hits, 1, _paired_accuracy),
    "f1_macro": Kind(_hits, 1, _paired_f1(f1_macro)),
    "f1_weighted": Kind(_hits, 1, _paired_f1(f1_weighted)),
}
"""By the figure's name; what follows from the loss is told apart as the loss is."""
