"""Runs and sweeps that version 0.1.0 made resume, evaluate, generate, export and compare.

`tests/fixtures/runs-0.1.0.tar.xz` holds them with their data: a finished run of each task, one
stopped half-way, a finished grid, a finished search, and a sweep stopped during its second job.
`expected/` holds what 0.1.0 itself made of the stopped run.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.commands.conftest import SMALL, Finished, truesweep
from truesweep.record.rows import read

TASKS = ["lm", "translation", "classification"]


@pytest.fixture
def old(archive: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    folder = shutil.copytree(archive, tmp_path / "old")
    for file in (*folder.rglob("provenance.json"), *folder.rglob("sweep.yaml")):
        file.write_text(file.read_text().replace(str(archive), str(folder)))
    return folder


def the_run(folder: Path, name: str) -> Path:
    (run,) = (folder / "outputs" / name).iterdir()
    return run


def succeed(*arguments: str | Path, cwd: Path) -> Finished:
    done = truesweep(*map(str, arguments), cwd=cwd)
    assert done.code == 0, done.out + done.err
    return done


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_evaluated_to_the_figures_it_had(old: Path, task: str) -> None:
    run = the_run(old, task)
    succeed("evaluate", run, cwd=old)
    first, again = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    figures = {key for key, value in first.items() if key.startswith("test/")}
    assert {"test/loss", "test/samples"} <= figures
    for key in figures:
        wanted = first[key] if isinstance(first[key], str) else pytest.approx(first[key], rel=1e-5)
        assert again[key] == wanted, key
    assert again["fingerprint"] == first["fingerprint"]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_answers(old: Path, task: str) -> None:
    assert succeed("generate", the_run(old, task), "--prompt", "red green", cwd=old).out.strip()


def test_a_run_is_exported(old: Path) -> None:
    succeed("export", the_run(old, "lm"), "exported", cwd=old)
    model = AutoModelForCausalLM.from_pretrained(old / "exported")
    tokenizer = AutoTokenizer.from_pretrained(old / "exported")
    assert model.config.vocab_size >= len(tokenizer)


def test_the_same_question_has_the_same_id(old: Path) -> None:
    small = "model.depth=1 model.width=16 trainer.max_steps=6 trainer.val_check_interval=3"
    asked = [*SMALL, *small.split(), "task=lm", "data=files", "data.train=text.txt", "name=lm"]
    done = truesweep("train", *asked, "logger=wandb", "logger.mode=offline", cwd=old)
    assert done.code == 2
    assert f"outputs/lm/{the_run(old, 'lm').name} exists (completed)" in done.err


def test_a_stopped_run_goes_on_as_it_would_have(old: Path) -> None:
    run = the_run(old, "stopped")
    before = read(run / "metrics.jsonl")
    succeed("resume", run, cwd=old)
    rows, wanted = read(run / "metrics.jsonl"), read(old / "expected" / "stopped_metrics.jsonl")
    assert rows[: len(before)] == before
    for key in ("step", "tokens", "lr"):
        assert [row.get(key) for row in rows] == [row.get(key) for row in wanted]
    pairs = [pair for pair in zip(rows, wanted, strict=True) if "train/loss" in pair[0]]
    losses = [(ours["train/loss"], theirs["train/loss"]) for ours, theirs in pairs]
    # The next rows to the last digits; later ones as far as rounding, which differs by processor,
    # has grown.
    assert all(a == pytest.approx(b, rel=1e-5) for a, b in losses[: len(before) + 1])
    assert all(a == pytest.approx(b, rel=0.05) for a, b in losses)
    expected = load(old / "expected" / "stopped_results.json")
    assert load(run / "results.json")["train/steps"] == expected["train/steps"]


def test_a_stopped_sweep_is_read_and_goes_on(old: Path) -> None:
    sweep = old / "outputs" / "sweeps" / "unfinished"
    jobs = {path.parent.name for path in sweep.glob("*/config.yaml")}
    finished = load(sweep / "83c71c65" / "results.json")
    assert "1 completed, 1 preempted, 1 queued" in succeed("status", sweep, cwd=old).out
    succeed("resume", sweep, cwd=old)
    assert "3 jobs: 3 completed" in succeed("status", sweep, cwd=old).out
    assert {path.parent.name for path in sweep.glob("*/config.yaml")} == jobs
    assert load(sweep / "83c71c65" / "results.json") == finished
    assert (sweep / "report.html").exists()


@pytest.mark.parametrize(("name", "best"), [("rates", "45105b6d"), ("search", "c929b4a8")])
def test_a_finished_sweep_is_compared(old: Path, name: str, best: str) -> None:
    sweep = old / "outputs" / "sweeps" / name
    ranking = json.loads(succeed("compare", sweep, "--json", cwd=old).out)
    results = {path.parent.name: load(path) for path in sweep.glob("*/results.json")}
    assert {row["id"]: row["val/loss"] for row in ranking} == {
        job: pytest.approx(figures["val/loss"]) for job, figures in results.items()
    }
    assert ranking[0]["id"] == best
    assert "4 jobs: 4 completed" in succeed("status", sweep, cwd=old).out


def test_two_jobs_are_told_apart(old: Path) -> None:
    sweep = old / "outputs" / "sweeps" / "rates"
    done = succeed("diff", sweep / "0953fcd6", sweep / "45105b6d", "--json", cwd=old)
    differences = json.loads(done.out)["configuration"]
    assert differences == {"optimizer.lr": {"a": 0.01, "b": 0.02}}
