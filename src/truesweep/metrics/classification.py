"""F1, precision, recall and accuracy from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from truesweep.figures import ACCURACY, F1_MACRO, F1_WEIGHTED
from truesweep.metrics.sums import SumMetric


class ClassificationScores(SumMetric):
    """All figures of a classifier, as scikit-learn gives them, from 0 to 1.

    Args:
        num_classes: classes that the model tells apart.
    """

    figures = (F1_MACRO, F1_WEIGHTED, ACCURACY)
    confusion: Tensor  # [gold, predicted], int64

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    @property
    def count(self) -> Tensor:
        """Samples seen by this rank."""
        return self.confusion.sum()

    @override
    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            predictions: `[N]` class ids, or `[N, C]` scores of which the highest counts.
            labels: `[N]` class ids.
        """
        if predictions.ndim > 1:
            predictions = predictions.argmax(-1)
        classes = len(self.confusion)
        pairs = torch.bincount(labels * classes + predictions, minlength=classes**2)
        self.confusion += pairs.view(classes, classes)

    @override
    def compute(self) -> dict[str, Tensor]:
        """Give the figures of `scores`."""
        return scores(self.confusion)


def scores(confusion: Tensor) -> dict[str, Tensor]:
    """Compute the figures of a confusion matrix `[gold, predicted]` of C classes.

    A figure whose denominator is zero is zero. Like scikit-learn's default, `f1_macro` is the mean
    over the classes that occur as gold or as predicted; a class in neither has no say.

    Returns:
        `accuracy`, `f1_macro`, `f1_weighted`: float64 scalars; `precision`, `recall`, `f1`
        (float64) and `support` (int64): `[C]`.
    """
    correct = confusion.diagonal()
    support, predicted = confusion.sum(1), confusion.sum(0)
    f1 = _ratio(2 * correct, support + predicted)
    occurring = (support + predicted) > 0
    return {
        "accuracy": _ratio(correct.sum(), confusion.sum()),
        "f1_macro": _ratio(f1.sum(), occurring.sum()),
        "f1_weighted": _ratio((f1 * support).sum(), support.sum()),
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, support),
        "f1": f1,
        "support": support,
    }


def table(figures: dict[str, Tensor], names: Sequence[str]) -> list[list[Any]]:
    """Give rows of name, precision, recall, F1 and support, one a class; see `TABLE_COLUMNS`."""
    columns = [figures[column].tolist() for column in TABLE_COLUMNS[1:]]
    return [list(row) for row in zip(names, *columns, strict=True)]


TABLE_COLUMNS = ("class", "precision", "recall", "f1", "support")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator.double() / denominator.clamp(min=1)
