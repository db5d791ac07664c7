"""Runs whose figures say nothing about each other are not ranked."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import MakeRun, configuration, write
from truesweep.report import Comparison, compare
from truesweep.report.findings import findings
from truesweep.sweeps.progress import Board

BYTE, CHAR = {"_target_": "x.tokenizers.Byte"}, {"_target_": "x.tokenizers.Char"}
CLAIMS = {"Ahead", "Winner", "Edge of the range", "Not the same chance"}


@pytest.fixture
def two(make_run: MakeRun, tmp_path: Path) -> Any:
    """Compares two runs, of which some things differ."""

    def make(
        objective: str | None = None,
        *,
        tokenizers: tuple[Any, Any] = (CHAR, CHAR),
        tasks: tuple[str, str] = ("x.LanguageModeling", "x.LanguageModeling"),
        train: tuple[str | None, str | None] = ("t", "t"),
        val: tuple[str | None, str | None] = ("v", "v"),
        **results: float,
    ) -> Comparison:
        figures = {"val/perplexity": 8.0, "val/bits_per_byte": 1.5} | results
        for i in range(2):
            config = configuration(
                optimizer__lr=0.1**i, tokenizer=tokenizers[i], task={"_target_": tasks[i]}
            )
            path = make_run(
                f"r{i}", config, end=2.0 + i, **figures, **{"train/tokens": 1000 * (i + 1)}
            )
            hashes = {"train": train[i], "val": val[i]}
            write(path / "provenance.json", {"data": {"fingerprints": hashes}})
        return compare([tmp_path], objective)

    return make


def best(comparison: Comparison) -> Any:
    """What a status of the same runs calls the best."""
    board = Board("val/loss", "min")
    return board.best(board.rows([run.directory for run in comparison.runs]))


def said(comparison: Comparison) -> dict[str, str]:
    return {one.title: one.text for one in findings(comparison)}


def test_alike_runs_are_ranked(two: Any) -> None:
    found = two()
    assert {"Ahead", "Not the same chance"} <= set(said(found))
    assert [found.rank(run) for run in found.runs] == [1, 2]
    assert best(found).id == "r0"


@pytest.mark.parametrize(
    ("differs", "what"),
    [
        ({"val": ("v", "w")}, "differ in their validation data, so"),
        ({"tasks": ("x.LanguageModeling", "x.Translation")}, "differ in their task, so"),
        ({"tokenizers": (BYTE, CHAR)}, "differ in their tokenizer, so"),
        ({"train": ("t", "u")}, "differ in their tokenizer's training text, so"),
        ({"val": ("v", "w"), "tokenizers": (BYTE, CHAR)}, "validation data and tokenizer, so"),
    ],
)
def test_runs_that_say_nothing_about_each_other(two: Any, differs: Any, what: str) -> None:
    found = two(**differs)
    told = said(found)
    assert what in told["Not comparable"]
    assert "no run is called the best" in told["Not comparable"]
    assert not CLAIMS & set(told)
    assert [found.rank(run) for run in found.runs] == [None, None]
    assert best(found) is None
    assert not any(found.tied(run) for run in found.runs)
    assert [run.id for run in found.runs] == ["r0", "r1"]  # in order all the same


@pytest.mark.parametrize(
    "differs",
    [
        {"train": ("t", "u"), "tokenizers": (BYTE, BYTE)},  # which learn nothing
        {"val": ("v", None), "train": (None, "t")},  # not known of a run of before
    ],
)
def test_what_makes_no_difference(two: Any, differs: Any) -> None:
    assert "Not comparable" not in said(two(**differs))


def test_bits_per_byte_rank_runs_of_different_tokenizers(two: Any) -> None:
    found = two(tokenizers=(BYTE, CHAR))
    assert "Rank by --objective val/bits_per_byte, which" in said(found)["Not comparable"]
    told = said(compare([found.runs[0].directory.path.parent], "val/bits_per_byte"))
    assert "Not comparable" not in told
    assert "Ahead" in told


def test_bits_per_byte_that_one_run_leaves_out_rank_nothing(two: Any) -> None:
    found = two(tokenizers=(BYTE, CHAR))
    folder = found.runs[0].directory.path
    results = json.loads((folder / "results.json").read_text())
    del results["val/bits_per_byte"]
    write(folder / "results.json", results)
    assert "--objective" not in said(compare([folder.parent]))["Not comparable"]


def test_nothing_else_is_proposed_for_different_data(two: Any) -> None:
    assert "--objective" not in said(two(val=("v", "w")))["Not comparable"]


def test_a_loss_of_classes_does_not_depend_on_the_tokenizer(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for i, tokenizer in enumerate([BYTE, CHAR]):
        make_run(f"r{i}", configuration(tokenizer=tokenizer), end=2.0 + i)
    assert "Not comparable" not in said(compare([tmp_path]))
