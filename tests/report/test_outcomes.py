"""What the statistics are told of runs: which are one point, which samples they share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import MakeRun, configuration, write
from truesweep.analysis.uncertainty import f1_macro, f1_statistics
from truesweep.report import Comparison, compare
from truesweep.report.findings import findings
from truesweep.report.payload import payload


def ids(comparison: Comparison) -> list[str]:
    return [run.id for run in comparison.runs]


def ranks(comparison: Comparison) -> dict[str, int | None]:
    return {run.id: comparison.rank(run) for run in comparison.runs}


def keep_scores(path: Path, **scores: Any) -> None:
    (path / "scores").mkdir()
    np.savez(path / "scores" / "val.npz", **scores)


def test_one_run_under_two_names_is_one_seed(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", configuration(name="a"), end=1.0)
    make_run("b", configuration(name="b"), end=1.0)
    make_run("c", configuration(model__depth=3), end=2.0)
    found = compare([tmp_path])
    assert ranks(found) == {"a": 1, "b": 1, "c": 2}
    assert found.ranking.basis == "none"  # no second seed
    assert found.ranking.standings[0].deviation is None


def test_a_repeated_seed_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    for i, (seed, loss) in enumerate([(0, 1.0), (1, 1.5), (1, 1.5), (1, 1.5)]):
        make_run(f"r{i}", configuration(seed=seed, name=f"n{i}"), end=loss)
    make_run("other", configuration(model__depth=3), end=2.0)
    best = compare([tmp_path]).ranking.standings[0]
    assert best.mean == pytest.approx(1.35)
    assert best.deviation == pytest.approx(np.std([1.0, 1.5], ddof=1))
    assert len(best.ids) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer__threads": 2},
        {"logger": {"_target_": "truesweep.record.Wandb"}},
        {"callbacks__progress": {"seconds_between_lines": 1.0}},
    ],
)
def test_what_changes_no_number_makes_no_point(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    job = {"sweep": "s", "varies": {"optimizer.lr": 0.001}}
    make_run("a", configuration(seed=0), job=job)
    make_run("b", configuration(seed=1, **changes), job=job, end=2.1)
    found = compare([tmp_path])
    assert ranks(found) == {"a": 1, "b": 1}
    assert found.ranking.basis == "seeds"


def test_what_was_swept_makes_points_whatever_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    for threads in (1, 2):
        job = {"sweep": "s", "varies": {"trainer.threads": threads}}
        make_run(f"t{threads}", configuration(trainer__threads=threads), job=job)
    assert len(compare([tmp_path]).ranking.standings) == 2


def runs_of_losses(make_run: MakeRun) -> None:
    """Three runs, of which the second is tied with the first by all that follows from the loss."""
    draw = np.random.default_rng(0)
    hard = 2 + draw.normal(0, 0.5, 400)
    for i, worse in enumerate([0.0, 0.001, 0.1]):
        nll = hard + worse + draw.normal(0, 0.05, 400)
        loss = float(nll.mean())
        figures = {
            "val/loss": loss,
            "val/perplexity": np.exp(loss),
            "val/bits_per_byte": 0.4 * loss,
        }
        path = make_run(
            f"r{i}", configuration(model__depth=i), **{"val/loss_standard_error": 0.025}
        )
        write(path / "results.json", json.loads((path / "results.json").read_text()) | figures)
        keep_scores(path, nll=nll, count=np.ones(400))


@pytest.mark.parametrize("figure", ["val/loss", "val/perplexity", "val/bits_per_byte"])
def test_what_follows_from_the_loss_is_compared_sample_by_sample(
    make_run: MakeRun, tmp_path: Path, figure: str
) -> None:
    runs_of_losses(make_run)
    found = compare([tmp_path], figure)
    assert found.ranking.basis == "paired samples"
    assert {run.id: found.tied(run) for run in found.runs} == {"r0": True, "r1": True, "r2": False}


@pytest.mark.parametrize(
    ("figure", "error"),
    [("val/loss", 0.02), ("val/perplexity", 0.02 * np.exp(2)), ("val/bits_per_byte", 0.008)],
)
def test_without_samples_the_errors_follow_from_the_loss_too(
    make_run: MakeRun, tmp_path: Path, figure: str, error: float
) -> None:
    figures = {"val/loss": 2.0, "val/perplexity": float(np.exp(2)), "val/bits_per_byte": 0.8}
    for i in range(2):
        path = make_run(f"r{i}", configuration(model__depth=i))
        write(path / "results.json", {**figures, "val/loss_standard_error": 0.02})
    found = compare([tmp_path], figure)
    assert [one.standard_error for one in found.outcomes] == pytest.approx([error, error])
    assert found.ranking.basis == "evaluation"


@pytest.mark.parametrize("figure", ["accuracy", "f1_macro", "f1_weighted"])
def test_classes_are_compared_sample_by_sample(
    make_run: MakeRun, tmp_path: Path, figure: str
) -> None:
    draw = np.random.default_rng(0)
    gold = draw.integers(0, 4, 300)
    hard = draw.random(300) < 0.2  # both are wrong on the same ones
    for i, more in enumerate([0.0, 0.04]):
        wrong = hard | (draw.random(300) < more)
        predicted = np.where(wrong, (gold + 1) % 4, gold)
        value = float(f1_macro(f1_statistics(gold, predicted, 4).sum(0, keepdims=True))[0])
        own = {f"val/{figure}": value, f"val/{figure}_standard_error": 0.023}
        keep_scores(
            make_run(f"r{i}", configuration(model__depth=i), **own), gold=gold, predicted=predicted
        )
    found = compare([tmp_path], f"val/{figure}")
    assert found.ranking.basis == "paired samples"
    assert found.ranking.tied == []  # which by their own errors they are
    assert "Highest" in found.ranking.text


def test_translations_are_compared_sentence_by_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    right = draw.integers(3, 10, 200)
    for i, better in enumerate([0, 1]):
        matches = np.stack([right + better, right - 1, right - 2, right - 3], 1)
        table = np.hstack([np.full((200, 2), 12), matches, np.tile([12, 11, 10, 9], (200, 1))])
        own = {"val/bleu": 40.0 + 2 * i, "val/bleu_standard_error": 2.0}
        keep_scores(make_run(f"r{i}", configuration(model__depth=i), **own), bleu=table)
    found = compare([tmp_path], "val/bleu")
    assert (found.ranking.basis, found.ranking.tied) == ("paired samples", [])


def test_other_samples_are_not_paired(make_run: MakeRun, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(2):
        own = {"val/accuracy": 0.5, "val/accuracy_standard_error": 0.02}
        path = make_run(f"r{i}", configuration(model__depth=i), **own)
        keep_scores(path, gold=draw.integers(0, 4, 50), predicted=draw.integers(0, 4, 50))
    assert compare([tmp_path], "val/accuracy").ranking.basis == "evaluation"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_missing(make_run: MakeRun, tmp_path: Path, value: float) -> None:
    for i, loss in enumerate([value, 2.0, 1.0]):
        path = make_run(f"r{i}", configuration(model__depth=i))
        write(path / "results.json", {"val/loss": loss})
    found = compare([tmp_path])
    assert ids(found) == ["r2", "r1", "r0"]
    assert [run["objective"] for run in payload(found)["runs"]] == [1.0, 2.0, None]
    assert findings(found)


def test_what_is_not_finite_is_sorted_last(make_run: MakeRun, tmp_path: Path) -> None:
    for i, loss in enumerate([3.0, "NaN", 2.0, "-Infinity", 1.0]):
        make_run(f"r{i}", configuration(model__depth=i), end=1.0 + i, **{"test/loss": loss})
    assert ids(compare([tmp_path]).sorted("test/loss")) == ["r4", "r2", "r0", "r1", "r3"]


def test_a_pruned_value_is_no_range_to_try(make_run: MakeRun, tmp_path: Path) -> None:
    def job(i: int, state: str = "completed") -> None:
        lr = 10.0 ** (i - 4)
        config = configuration(optimizer__lr=lr)
        make_run(
            f"r{i}", config, end=3.0 - i / 10, state=state, job={"varies": {"optimizer.lr": lr}}
        )

    for i in range(3):
        job(i)
    assert "Try optimizer.lr=" in said(tmp_path)["Edge of the range"]
    job(3, "pruned")
    assert "Edge of the range" not in said(tmp_path)


def said(folder: Path) -> dict[str, str]:
    found = compare([folder]).filtered(["state=completed"])
    return {one.title: one.text for one in findings(found)}
