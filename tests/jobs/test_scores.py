"""What is kept for each sample, and the standard errors that follow."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.commands.conftest import trained
from truesweep.metrics.likelihood import IGNORED, nll_by_row, token_nll
from truesweep.metrics.text import CorpusBleu
from truesweep.runs.run import Run
from truesweep.tasks.base import SampleScores

__all__ = ["trained"]


def scores(run: Path, split: str) -> dict[str, npt.NDArray[Any]]:
    return Run(run).read_scores(split)


@pytest.mark.parametrize("task", ["lm", "translation", "classification"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_samples_add_up_to_the_figures(trained: dict[str, Path], task: str, split: str) -> None:
    run = Run(trained[task])
    results, kept = run.read_results(), scores(run.path, split)
    assert len(kept["nll"]) == results[f"{split}/samples"]
    loss = kept["nll"].sum() / kept["count"].sum()
    assert loss == pytest.approx(results[f"{split}/loss"], rel=1e-9)
    if task == "classification":
        right = (kept["gold"] == kept["predicted"]).mean()
        assert right == pytest.approx(results[f"{split}/accuracy"])
    if task == "translation":
        metric = CorpusBleu()
        metric.update_counts(torch.from_numpy(kept["bleu"]))
        assert float(metric.compute()) == pytest.approx(results[f"{split}/bleu"])


def test_figures_have_standard_errors(trained: dict[str, Path]) -> None:
    results = Run(trained["classification"]).read_results()
    kept = scores(trained["classification"], "test")
    expected = kept["nll"].std(ddof=1) / np.sqrt(len(kept["nll"]))
    assert results["test/loss_standard_error"] == pytest.approx(expected)
    assert 0 < results["test/f1_macro_standard_error"] < 0.5


def test_rows_sum_to_the_batch() -> None:
    logits, labels = torch.randn(5, 7, 11), torch.randint(0, 11, (5, 7))
    labels[1, 3:] = IGNORED
    labels[4] = IGNORED
    sums, counts = nll_by_row(logits, labels, chunk=3 * 11)
    total, count = token_nll(logits, labels)
    torch.testing.assert_close(sums.sum().float(), total)
    assert counts.tolist() == [7, 3, 7, 7, 0]
    assert counts.sum() == count


def test_scores_come_in_the_order_of_the_split() -> None:
    kept = SampleScores()
    kept.add([3, 0], nll=torch.tensor([3.0, 0.0]))
    kept.add([], nll=torch.tensor([99.0]))  # a row that only fills up
    kept.add([1, 2], nll=torch.tensor([1.0, 2.0, 98.0]))
    assert kept.gather()["nll"].tolist() == [0, 1, 2, 3]


def test_scores_in_bf16_are_kept() -> None:
    """As a metric's are that makes a tensor of its own with trainer.precision=bf16-true."""
    kept = SampleScores()
    kept.add([0, 1], own=torch.tensor([1.0, 0.5], dtype=torch.bfloat16))
    assert kept.gather()["own"].tolist() == [1, 0.5]
