"""A metric of somebody else's package: one file, and it is shown and ranked like our own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics import Metric

from tests import processes
from tests.commands.conftest import SMALL, Finished, assert_ranked_by, truesweep
from truesweep.errors import ConfigError
from truesweep.figures import Figure, compute, of_metric

METRIC = """
import torch
from truesweep.figures import Figure
from truesweep.metrics.sums import SumMetric


class Sureness(SumMetric):
    figures = (Figure("sureness", higher_is_better=True),)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("sum", "all"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits, labels):
        self.sum += logits.softmax(-1).amax(-1).sum()
        self.all += len(labels)

    def compute(self):
        return self.sum / self.all
"""
TAKEN = ["allowed_packages=[elsewhere]", "task.metrics.sureness._target_=elsewhere.Sureness"]


@pytest.fixture
def asked(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A classification that is judged by a metric of a package called `elsewhere`."""
    package = workplace / "packages" / "elsewhere"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(METRIC)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return [*data["classification"], *SMALL, *TAKEN]


def load(file: Path) -> Any:
    return json.loads(file.read_text())


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_foreign_metric_is_shown_and_summed_up(asked: list[str], workplace: Path) -> None:
    done = truesweep("train", *asked, "logger=wandb", "name=x", cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/x").iterdir()
    results = load(run / "results.json")
    validations = [row["val/sureness"] for row in rows(run) if "val/sureness" in row]
    assert results["val/sureness"] in validations
    assert 0.5 <= results["test/sureness"] <= 1
    assert any(line.startswith("│ sureness") for line in done.out.splitlines())
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary"]
    shown = subprocess.run([*leet, run / "wandb"], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["summary"]["val/sureness"] == results["val/sureness"]
    again = truesweep("evaluate", str(run), "--json", cwd=workplace)
    assert json.loads(again.out)["test/sureness"] == pytest.approx(results["test/sureness"])
    assert truesweep("generate", str(run), "--prompt", "red", cwd=workplace).code == 0


def test_a_sweep_looks_for_the_most_of_a_foreign_figure(asked: list[str], workplace: Path) -> None:
    sweep = ["optimizer.lr=1e-6,2e-2", "trainer.max_steps=30", "sweeps.objective=val/sureness"]
    done = truesweep("train", "-m", *asked, *sweep, "name=s", cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert_ranked_by("val/sureness", workplace / "outputs/sweeps/s")


def test_a_figure_without_a_direction_asks_for_one(asked: list[str], workplace: Path) -> None:
    undeclared = [line.replace("sureness", "mean") for line in asked]
    undeclared[-1] = "task.metrics.mean._target_=torchmetrics.MeanMetric"
    sweep = ["optimizer.lr=1e-3,2e-2", "sweeps.objective=val/mean", "--dry-run"]
    arguments = ["-m", "truesweep", "train", "-m", *undeclared, *sweep]
    done = processes.run(arguments, cwd=workplace)
    assert done.returncode == 2
    assert "sweeps.objective=val/mean: nothing declares" in done.stderr
    assert "sweeps.direction=" in done.stderr
    single = ["callbacks.checkpoint.monitor=val/mean", "--dry-run"]
    done = processes.run(["-m", "truesweep", "train", *undeclared, *single], cwd=workplace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: callbacks.checkpoint.monitor=val/mean: nothing declares")
    assert "callbacks.checkpoint.mode=" in done.stderr
    stopping = ["callbacks.early_stopping.monitor=val/mean", "callbacks.early_stopping.patience=2"]
    done = processes.run(["-m", "truesweep", "train", *undeclared, *stopping], cwd=workplace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: callbacks.early_stopping.monitor=val/mean: nothing")


def test_a_duel_goes_by_what_chooses_the_checkpoint(asked: list[str], workplace: Path) -> None:
    undeclared = [line.replace("sureness", "mean") for line in asked]
    undeclared[-1] = "task.metrics.mean._target_=torchmetrics.MeanMetric"
    monitored = " ".join([*undeclared, "callbacks.checkpoint.monitor=val/mean"])

    def duel(*more: str) -> Finished:
        contenders = [" ".join([monitored, *more, f"optimizer.lr={lr}"]) for lr in (1e-3, 2e-2)]
        return truesweep("duel", *contenders, "--dry-run", cwd=workplace)

    assert duel("callbacks.checkpoint.mode=max").code == 0
    assert "--objective=val/mean: nothing declares" in duel().err


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            "accuracy._target_=torchmetrics.MeanMetric",
            "task.metrics.accuracy: accuracy is reported",
        ),
        ("odd._target_=torch.nn.Identity", "error: task.metrics.odd: is no torchmetrics metric"),
    ],
)
def test_what_cannot_be_added_is_refused(
    asked: list[str], workplace: Path, metric: str, said: str
) -> None:
    done = truesweep("train", *asked[:-1], f"task.metrics.{metric}", "--dry-run", cwd=workplace)
    assert done.code == 2
    assert said in done.err


class Computes(Metric):
    """Whatever it is given."""

    figures: Any = None

    def __init__(self, value: Any, *names: str) -> None:
        super().__init__()
        self.value = value
        if names:
            self.figures = tuple(map(Figure, names))

    def update(self) -> None: ...

    def compute(self) -> Any:
        return self.value


@pytest.mark.parametrize("declared", ["m", (), ("m",), Figure("m")])
def test_what_is_no_declaration_is_refused(declared: Any) -> None:
    metric = Computes(1.0)
    metric.figures = declared
    with pytest.raises(ConfigError, match=r"^task\.metrics\.m: figures is .*, where a tuple of"):
        of_metric("m", metric)


def test_a_metric_computes_what_it_declares() -> None:
    one, two = Computes(torch.tensor(0.5)), Computes({"a": 1, "b": 2}, "b", "a")
    for metric in (one, two):
        metric.update()
    assert compute("one", one) == {"one": 0.5}
    assert compute("two", two) == {"b": 2.0, "a": 1.0}


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (Computes({"a": 1, "b": 2}), "computes a, b, and not m; have it declare its figures"),
        (Computes({"a": 1}, "a", "b"), "computes a, and not b;"),
        (Computes(torch.ones(2)), r"computes tensor.*, where one number is wanted for each of m"),
        (Computes(None), "computes None, where one number is wanted"),
    ],
)
def test_what_a_metric_computes_otherwise_is_named(metric: Metric, said: str) -> None:
    metric.update()
    with pytest.raises(ConfigError, match=rf"^task\.metrics\.m: {said}"):
        compute("m", metric)
