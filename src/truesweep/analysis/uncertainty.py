"""How far an evaluation's figure could be off because its split is a sample of finite size.

Samples of a split (sentences, windows, texts) count as independent draws; tokens within one do not.
None of this knows how much a figure changes with the seed of the training, which is usually more.

Shapes: M samples, K statistics a sample, B resamples.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from truesweep.analysis.curves import Floats
from truesweep.errors import DataError
from truesweep.figures import STANDARD_ERROR, Figure

Score = Callable[[Floats], Floats]
"""Makes figures [B] from the summed statistics of whole splits [B, K]."""

RESAMPLES = 1000
PAIRED_RESAMPLES = 200
"""Their spread is known to 5 %, and hundreds of runs are compared within seconds."""
_AT_ONCE = 2**22
"""Weights of samples that are held at a time."""


@dataclass(frozen=True)
class Estimate:
    """A figure and what it is worth.

    Args:
        value: The figure on the split itself.
        standard_error: Its standard error; NaN where one sample leaves nothing to tell it from.
    """

    value: float
    standard_error: float


def mean_loss(sums: npt.ArrayLike, counts: npt.ArrayLike) -> Estimate:
    """The mean over all tokens, from sums over samples of unequal length.

    A ratio of two sums, each of M independent terms, whose standard error is that of the residuals
    sums - mean * counts (Cochran 1977, Sampling Techniques, section 6.4).

    Args:
        sums: Each sample's sum of negative log-likelihoods [M].
        counts: Each sample's tokens [M].

    Raises:
        DataError: There are no samples, or no tokens, or not as many sums as counts.
    """
    value, influence = _influence(sums, counts)
    return _normal(value, influence, np.asarray(counts) > 0)


def accuracy(correct: npt.ArrayLike) -> Estimate:
    """The share of right answers.

    The standard error is the half-width / 1.96 of Agresti and Coull's interval (1998), which two
    more right and two more wrong answers keep from vanishing where all are right.

    Args:
        correct: Whether each sample was answered rightly [M].
    """
    hits = np.asarray(correct, np.float64)
    _require(len(hits) > 0, "an accuracy needs at least one sample")
    shifted = (hits.sum() + 2) / (len(hits) + 4)
    error = math.sqrt(shifted * (1 - shifted) / (len(hits) + 4))
    return Estimate(float(hits.mean()), error)


def paired_loss(
    sums: tuple[npt.ArrayLike, npt.ArrayLike], counts: tuple[npt.ArrayLike, npt.ArrayLike]
) -> Estimate:
    """The difference of two systems' mean losses, first minus second, on the same samples.

    What makes a sample hard for both cancels, so it is far surer than either loss.

    Args:
        sums: Both systems' sums by sample, each [M].
        counts: Both systems' tokens by sample, each [M]; different with different tokenizers.
    """
    (first, first_influence), (second, second_influence) = map(_influence, sums, counts)
    _require(
        len(first_influence) == len(second_influence), "both systems need scores of the same split"
    )
    told = np.asarray(counts[0]) + np.asarray(counts[1]) > 0
    return _normal(first - second, first_influence - second_influence, told)


def paired_mean(first: npt.ArrayLike, second: npt.ArrayLike) -> Estimate:
    """The same of two tables of sums and counts [M, 2]."""
    a, b = np.asarray(first), np.asarray(second)
    return paired_loss((a[:, 0], b[:, 0]), (a[:, 1], b[:, 1]))


def bootstrap(statistics: npt.ArrayLike, score: Score, resamples: int = RESAMPLES) -> Estimate:
    """A figure of a whole split, by resampling its samples (Efron 1979; for BLEU, Koehn 2004).

    Args:
        statistics: What the figure is computed from once summed over samples [M, K].
        score: Computes it, such as `bleu` and `f1_macro`.
        resamples: Number of resampled splits.
    """
    table = _table(statistics)
    value = float(score(table.sum(0, keepdims=True))[0])
    if len(table) < 2:
        return Estimate(value, math.nan)
    drawn = np.concatenate([score(w @ table) for w in _weights(len(table), resamples)])
    return Estimate(value, float(drawn.std(ddof=1)))


def paired_bootstrap(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    score: Score,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The difference of two systems' figures, first minus second, on the same resampled splits.

    Args:
        first: One system's statistics by sample [M, K].
        second: The other's, of the same samples [M, K].
        score: As in `bootstrap`.
        resamples: Number of resampled splits.
    """
    a, b = _table(first), _table(second)
    _require(len(a) == len(b), "both systems need scores of the same split")
    value = float(score(a.sum(0, keepdims=True))[0] - score(b.sum(0, keepdims=True))[0])
    if len(a) < 2:
        return Estimate(value, math.nan)
    weights = _weights(len(a), resamples)
    drawn = np.concatenate([score(w @ a) - score(w @ b) for w in weights])
    return Estimate(value, float(drawn.std(ddof=1)))


def bleu(sums: Floats) -> Floats:
    """Corpus BLEU, 0 to 100, from sums of sacreBLEU's statistics [B, 2 + N + N].

    Those of a sentence are the lengths of hypothesis and reference, matches and totals of N orders;
    `sacrebleu.BLEU._extract_corpus_statistics` gives them.
    """
    from sacrebleu.metrics.bleu import BLEU  # not needed, and not loaded, without translations

    orders = (sums.shape[1] - 2) // 2
    return np.array(
        [
            BLEU.compute_bleu(
                row[2 : 2 + orders],
                row[2 + orders :],
                row[0],
                row[1],
                smooth_method="exp",  # sacreBLEU's default, for orders without a match
                max_ngram_order=orders,
            ).score
            for row in sums.round().astype(int).tolist()
        ]
    )


def f1_statistics(gold: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Floats:
    """By sample and class, what F1 is computed from: hit, predicted, gold [M, 3 C]."""
    eye = np.eye(classes)
    is_gold, is_predicted = eye[np.asarray(gold)], eye[np.asarray(predicted)]
    return np.hstack([is_gold * is_predicted, is_predicted, is_gold])


def f1_macro(sums: Floats) -> Floats:
    """Mean F1 of the classes that occur as gold or as predicted, 0 to 1, from [B, 3 C]."""
    scores, present, _ = _f1(sums)
    mean: Floats = scores.sum(1) / present.sum(1)
    return mean


def f1_weighted(sums: Floats) -> Floats:
    """Mean F1 of the classes, weighted by how often each is gold, 0 to 1, from [B, 3 C]."""
    scores, _, gold = _f1(sums)
    mean: Floats = (scores * gold).sum(1) / gold.sum(1)
    return mean


def _f1(sums: Floats) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    hits, predicted, gold = np.split(sums, 3, axis=1)
    total = predicted + gold
    return 2 * hits / np.maximum(total, 1), total > 0, gold


@dataclass(frozen=True)
class Kind:
    """How a figure is made from what is known of each sample.

    Args:
        value: The figure, from a table of a split's samples [M, K].
        estimate: The same, and what it is worth.
        difference: First minus second, from two tables of the same samples.
    """

    value: Callable[[Floats], float]
    estimate: Callable[[Floats], Estimate]
    difference: Callable[[Floats, Floats], Estimate]


def _bootstrapped(
    score: Score, statistics: Callable[[Floats, int], Floats] = lambda table, classes: table
) -> Kind:
    def value(table: Floats) -> float:
        return float(score(statistics(table, _classes(table)).sum(0, keepdims=True))[0])

    def estimate(table: Floats) -> Estimate:
        return bootstrap(statistics(table, _classes(table)), score)

    def difference(first: Floats, second: Floats) -> Estimate:
        classes = max(map(_classes, (first, second)))
        a, b = (statistics(table, classes) for table in (first, second))
        return paired_bootstrap(a, b, score, PAIRED_RESAMPLES)

    return Kind(value, estimate, difference)


def _classes(table: Floats) -> int:
    """How many classes there are, of samples that are classified; a class is its number."""
    return int(table.max()) + 1


def _of_classes(table: Floats, classes: int) -> Floats:
    predicted, gold = table.astype(np.int64).T
    return f1_statistics(gold, predicted, classes)


def _hits(table: Floats) -> Floats:
    return np.stack([table[:, 0] == table[:, 1], np.ones(len(table))], axis=1)


def _ratio(table: Floats) -> Estimate:
    """Of answers that are right or wrong, one a sample, the estimate that knows of all being so.

    Scores from 0 to 1, such as ROUGE, vary at most as much as these; where all of them are 0, none
    has shown how much less it is, and an error of 0 would say that the next text cannot have any.
    """
    values, counts = table.T
    if (counts == 1).all() and np.isin(values, (0, 1)).all():
        return accuracy(values)
    return mean_loss(values, counts)


SCORES: Mapping[str, Kind] = {
    "ratio": Kind(
        lambda table: float(table[:, 0].sum() / table[:, 1].sum()),
        _ratio,
        paired_mean,
    ),
    "accuracy": Kind(
        lambda table: float((table[:, 0] == table[:, 1]).mean()),
        lambda table: accuracy(table[:, 0] == table[:, 1]),
        lambda first, second: paired_mean(_hits(first), _hits(second)),
    ),
    "bleu": _bootstrapped(bleu),
    "f1_macro": _bootstrapped(f1_macro, _of_classes),
    "f1_weighted": _bootstrapped(f1_weighted, _of_classes),
}
"""By the `score` of a figure's declaration. Classified samples are rows of predicted and gold."""


def samples_of(figure: Figure, scores: Mapping[str, npt.NDArray[Any]]) -> Floats | None:
    """The table that a figure is made from [M, K]; None where an evaluation has kept none.

    Args:
        figure: The figure.
        scores: What is known of each sample by name, [M] or [M, .].
    """
    known = figure.samples and figure.score in SCORES and scores.keys() >= {*figure.samples}
    if not known:
        return None
    return np.column_stack([scores[name] for name in figure.samples]).astype(np.float64)


def standard_errors(
    scores: Mapping[str, npt.NDArray[Any]], split: str, figures: Iterable[Figure]
) -> dict[str, float]:
    """How much figures would vary with another split of the same size, by name.

    Ratios and accuracy by their formulas, the others by the bootstrap.

    Args:
        scores: What was found for each sample.
        split: The name of the split.
        figures: Their declarations.
    """
    tables = ((figure, samples_of(figure, scores)) for figure in figures)
    return {
        f"{split}/{one.name}{STANDARD_ERROR}": SCORES[one.score].estimate(table).standard_error
        for one, table in tables
        if table is not None
    }


def standard_error_that_follows(figure: Figure, value: float, base: float, error: float) -> float:
    """The standard error of what grows with another figure, to the first order.

    Args:
        figure: Its declaration.
        value: The figure.
        base: What it follows.
        error: The standard error of that.
    """
    return error * (value if figure.growth == "exponential" else value / base)


def _influence(sums: npt.ArrayLike, counts: npt.ArrayLike) -> tuple[float, Floats]:
    """The ratio of two sums, and how far each sample moves it."""
    y, n = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    _require(len(y) == len(n), f"{len(y)} sums for {len(n)} counts")
    _require(n.sum() > 0, "a mean loss needs at least one token")
    mean = float(y.sum() / n.sum())
    return mean, (y - mean * n) / n.sum()


def _normal(value: float, influence: Floats, told: npt.NDArray[np.bool_]) -> Estimate:
    m = int(told.sum())  # a sample without a token tells nothing
    error = math.sqrt(m / (m - 1) * float(influence @ influence)) if m > 1 else math.nan
    return Estimate(value, error)


def _weights(samples: int, resamples: int) -> Iterator[Floats]:
    """How often each sample is drawn in each resample, in parts of [., M]."""
    if samples * resamples <= _AT_ONCE:
        return iter((_one_part(samples, resamples),))
    generator = np.random.default_rng(0)
    size = max(1, _AT_ONCE // samples)
    parts = (min(size, resamples - start) for start in range(0, resamples, size))
    return (_draw(generator, samples, n) for n in parts)


@lru_cache(maxsize=1)
def _one_part(samples: int, resamples: int) -> Floats:
    # Drawing takes most of the time, and a sweep's runs are compared by the same resamples.
    return _draw(np.random.default_rng(0), samples, resamples)


def _draw(generator: np.random.Generator, samples: int, resamples: int) -> Floats:
    return generator.multinomial(samples, np.full(samples, 1 / samples), resamples).astype(float)


def _table(statistics: npt.ArrayLike) -> Floats:
    table = np.asarray(statistics, np.float64)
    _require(table.ndim == 2 and len(table) > 0, "a bootstrap needs a row for each sample")
    return table


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)
