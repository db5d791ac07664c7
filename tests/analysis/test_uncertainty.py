import math

import numpy as np
import pytest
import sacrebleu
from sklearn.metrics import f1_score

from truesweep.analysis.uncertainty import (
    SCORES,
    accuracy,
    bleu,
    bootstrap,
    f1_macro,
    f1_statistics,
    f1_weighted,
    mean_loss,
    paired_bootstrap,
    paired_loss,
)
from truesweep.errors import DataError

pytestmark = pytest.mark.numbers


def split(draw: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of samples whose loss a token depends on their length; true mean known."""
    counts = draw.integers(5, 60, samples).astype(float)
    per_token = 2 + 0.01 * counts + 0.3 * draw.standard_normal(samples)
    return per_token * counts, counts


def test_the_interval_of_a_mean_loss_holds_the_truth() -> None:
    draw = np.random.default_rng(0)
    lengths = np.arange(5, 60)
    truth = ((2 + 0.01 * lengths) * lengths).sum() / lengths.sum()
    found = [mean_loss(*split(draw, 80)) for _ in range(500)]
    share = np.mean([abs(e.value - truth) <= 1.96 * e.standard_error for e in found])
    assert 0.92 <= share <= 0.97
    spread = np.std([e.value for e in found])
    assert np.mean([e.standard_error for e in found]) == pytest.approx(spread, rel=0.1)


def test_pairing_takes_out_what_both_find_hard() -> None:
    draw = np.random.default_rng(0)
    sums, counts = split(draw, 300)
    other = sums + counts * (0.05 + 0.05 * draw.standard_normal(300))
    difference = paired_loss((other, sums), (counts, counts))
    assert difference.value == pytest.approx(0.05, abs=0.01)
    assert difference.value > 1.96 * difference.standard_error
    unpaired = math.hypot(
        mean_loss(sums, counts).standard_error, mean_loss(other, counts).standard_error
    )
    assert difference.standard_error < unpaired / 5


def test_the_interval_of_an_accuracy_holds_the_truth() -> None:
    draw = np.random.default_rng(0)
    for truth in (0.7, 0.97):
        found = [accuracy(draw.random(60) < truth) for _ in range(500)]
        near = [abs(e.value - truth) <= 1.96 * e.standard_error for e in found]
        assert np.mean(near) >= 0.93
    assert 1 - 1.96 * accuracy([True] * 20).standard_error < 0.9


def sentences(quality: float, size: int = 120) -> list[list[int]]:
    """sacreBLEU's statistics of made-up sentences, of which a share of words is right."""
    draw = np.random.default_rng(int(100 * quality))
    references = [
        " ".join(map(str, np.random.default_rng(i).integers(0, 50, 12))) for i in range(size)
    ]
    predictions = [
        " ".join(w if draw.random() < quality else "x" for w in line.split()) for line in references
    ]
    statistics: list[list[int]] = sacrebleu.BLEU()._extract_corpus_statistics(
        predictions, [references]
    )
    return statistics


def test_bleu_is_sacrebleus() -> None:
    statistics = sentences(0.8)
    expected = sacrebleu.BLEU()._compute_score_from_stats(np.sum(statistics, 0).tolist()).score
    sums = np.sum(statistics, 0, dtype=float)[None]
    assert bleu(sums)[0] == pytest.approx(expected, abs=1e-9)
    none = np.array([[10.0, 10, 4, 0, 0, 0, 10, 9, 8, 7]])  # smoothed, as sacreBLEU does
    ints = none[0].astype(int).tolist()
    assert bleu(none)[0] == pytest.approx(sacrebleu.BLEU()._compute_score_from_stats(ints).score)


def test_the_bootstrap_of_bleu_is_as_wide_as_repetition() -> None:
    statistics = np.array(sentences(0.8, size=1500))
    found = bootstrap(statistics[:100], bleu, resamples=300)
    repeated = [
        float(bleu(statistics[i : i + 100].sum(0, keepdims=True))[0]) for i in range(0, 1500, 100)
    ]
    assert found.standard_error == pytest.approx(np.std(repeated, ddof=1), rel=0.6)


def test_two_systems_on_the_same_sentences() -> None:
    better = paired_bootstrap(sentences(0.85), sentences(0.75), bleu, resamples=300)
    assert better.value > 2.58 * better.standard_error
    same = paired_bootstrap(sentences(0.8), sentences(0.8), bleu, resamples=100)
    assert (same.value, same.standard_error) == (0.0, 0.0)


def test_f1_is_scikit_learns_and_its_bootstrap_holds_it() -> None:
    draw = np.random.default_rng(0)
    gold = draw.integers(0, 3, 200)
    predicted = np.where(draw.random(200) < 0.7, gold, draw.integers(0, 3, 200))
    statistics = f1_statistics(gold.tolist(), predicted.tolist(), classes=5)
    sums = statistics.sum(0, keepdims=True)
    assert f1_macro(sums)[0] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert f1_weighted(sums)[0] == pytest.approx(f1_score(gold, predicted, average="weighted"))
    found = bootstrap(statistics, f1_macro, resamples=500)
    assert 0.02 < found.standard_error < 0.05


def test_what_cannot_be_estimated() -> None:
    assert math.isnan(mean_loss([2.0], [1.0]).standard_error)
    with pytest.raises(DataError, match="2 sums for 1 counts"):
        mean_loss([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="at least one token"):
        mean_loss([], [])
    with pytest.raises(DataError, match="same split"):
        paired_bootstrap([[1.0, 2.0]], [[1.0, 2.0]] * 2, bleu)


def test_one_sample_that_tells_anything_leaves_its_error_unknown() -> None:
    assert math.isnan(mean_loss([2.0, 0.0, 0.0], [1, 0, 0]).standard_error)
    assert math.isnan(paired_loss(([2.0, 0.0], [1.0, 0.0]), ([1, 0], [1, 0])).standard_error)
    statistics = [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1]]
    assert math.isnan(bootstrap(statistics, bleu).standard_error)
    assert math.isnan(paired_bootstrap(statistics, statistics, bleu).standard_error)
    assert mean_loss([2.0, 1.0, 0.0], [1, 1, 0]) == mean_loss([2.0, 1.0], [1, 1])


def test_answers_that_are_all_right_are_not_sure_to_be() -> None:
    right = np.ones((15, 2))
    assert SCORES["ratio"].estimate(right) == accuracy([True] * 15)
    assert SCORES["ratio"].estimate(right).standard_error > 0.05
    wrong = np.array([[0.0, 1]] * 15)  # a ROUGE of 0 is known no better than an accuracy of 0
    assert SCORES["ratio"].estimate(wrong).standard_error > 0.05
    tokens = np.array([[1.0, 3], [2, 3]])
    assert SCORES["ratio"].estimate(tokens) == mean_loss(tokens[:, 0], tokens[:, 1])
