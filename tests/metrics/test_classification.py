import pickle

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from torch import Tensor

from truesweep.metrics.classification import TABLE_COLUMNS, ClassificationScores, table

pytestmark = pytest.mark.numbers

CASES = {
    "all classes": ([0, 1, 2, 3, 2, 1, 0, 0], [0, 2, 2, 3, 1, 1, 0, 3]),
    "one never predicted": ([0, 1, 2, 3, 2], [0, 1, 2, 2, 2]),
    "one never gold": ([0, 1, 2, 2], [0, 1, 3, 2]),
    "one in neither": ([0, 0, 2, 2], [0, 2, 2, 2]),
    "all wrong": ([0, 0, 1], [1, 1, 0]),
    "one sample": ([2], [2]),
}


def scored(gold: list[int], predicted: list[int]) -> dict[str, Tensor]:
    metric = ClassificationScores(4)
    metric.update(torch.tensor(predicted), torch.tensor(gold))
    figures: dict[str, Tensor] = metric.compute()
    return figures


@pytest.mark.parametrize("case", CASES)
def test_the_figures_are_scikit_learns(case: str) -> None:
    gold, predicted = CASES[case]
    figures = scored(gold, predicted)
    for average in ("macro", "weighted"):
        expected = f1_score(gold, predicted, average=average, zero_division=0)
        assert figures[f"f1_{average}"].item() == pytest.approx(expected, abs=1e-12)
    assert figures["accuracy"].item() == pytest.approx(accuracy_score(gold, predicted), abs=1e-12)
    per_class = precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), per_class, strict=True):
        assert figures[name].tolist() == pytest.approx(values.tolist(), abs=1e-12)


def test_neither_batching_nor_the_form_of_predictions_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator)
    labels = torch.randint(4, (50,), generator=generator)
    whole, parts = ClassificationScores(4), ClassificationScores(4)
    whole.update(logits.argmax(-1), labels)
    for start in range(0, 50, 7):
        parts.update(logits[start : start + 7], labels[start : start + 7])
    assert torch.equal(whole.confusion, parts.confusion)
    assert parts.count.item() == 50


def test_nothing_seen_scores_zero() -> None:
    metric = ClassificationScores(3)
    assert metric.compute()["f1_macro"].item() == 0.0
    metric.update(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    assert (metric.compute()["accuracy"].item(), metric.count.item()) == (0.0, 0)


def test_a_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(RuntimeError):
        ClassificationScores(3).update(torch.tensor([0]), torch.tensor([3]))


def test_the_table_has_a_row_a_class() -> None:
    rows = table(scored([0, 0, 1], [0, 1, 1]), ["no", "yes", "maybe", "other"])
    assert TABLE_COLUMNS == ("class", "precision", "recall", "f1", "support")
    assert rows[0] == ["no", 1.0, 0.5, pytest.approx(2 / 3), 2]
    assert rows[3] == ["other", 0.0, 0.0, 0.0, 0]


def test_states_survive_saving_copying_and_resetting() -> None:
    metric = ClassificationScores(4)
    metric.persistent(True)
    metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    loaded = ClassificationScores(4)
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    assert loaded.compute()["f1"].tolist() == metric.compute()["f1"].tolist()
    assert torch.equal(pickle.loads(pickle.dumps(metric)).confusion, metric.confusion)
    metric.reset()
    assert metric.count.item() == 0
