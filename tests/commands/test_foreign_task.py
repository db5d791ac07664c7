"""A task of somebody else's package: one file, and every command knows what to do with it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from tests.commands.conftest import SMALL, assert_ranked_by, truesweep

TASK = '''
import torch

from truesweep.data.encode import encode_inputs
from truesweep.data.kinds import LABELLED
from truesweep.figures import Figure
from truesweep.metrics.likelihood import NegativeLogLikelihood, nll_by_row
from truesweep.metrics.sums import SumMetric
from truesweep.tasks import Task
from truesweep.tasks.base import score_once
from truesweep.tasks.training import losses


class Hits(SumMetric):
    """The mean probability of the right class, in percent."""

    figures = (Figure("hits", higher_is_better=True, digits=3, samples=("hit", "asked")),)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("hit", "asked"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities, labels):
        self.hit += 100 * probabilities.gather(-1, labels[:, None]).sum()
        self.asked += len(labels)

    def compute(self):
        return self.hit / self.asked


class Guess(Task):
    """Which class a text is of.

    Args:
        model: Returns logits [batch, classes].
        tokenizer: The model's tokenizer.
        labels: Names of the classes.
        recipe: How to train.
        sharpness: What logits are multiplied by.
        metrics: Further metrics.
    """

    declares = Hits.figures
    head = "classifier"
    kind = LABELLED
    tag = "guess"
    pipeline = "text-classification"
    options = {"temperature": "sharpness"}

    def __init__(self, *, model, tokenizer, labels: list[str], recipe=None,
                 sharpness: float = 1.0, metrics: dict | None = None):
        super().__init__(model=model, tokenizer=tokenizer, recipe=recipe, metrics=metrics)
        self.labels, self.sharpness = labels, sharpness

    def logits(self, batch):
        out = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return out.logits * self.sharpness

    def loss(self, batch):
        return losses(self.logits(batch), batch["labels"])

    def make_metrics(self):
        return {"loss": NegativeLogLikelihood(), "hits": Hits()}

    def evaluate(self, batch, split_name):
        logits, labels = self.logits(batch), batch["labels"]
        nll, count = nll_by_row(logits, labels)
        self.metrics["loss"].update_sums(nll.sum(), count.sum())
        index = batch["index"]
        probabilities, labels = logits.softmax(-1)[: len(index)], labels[: len(index)]
        self.metrics["hits"].update(probabilities, labels)
        hit = 100 * probabilities.gather(-1, labels[:, None])[:, 0]
        self.scores.add(index, nll=nll, count=count, hit=hit, asked=torch.ones_like(hit))

    def answer(self, text, packing):
        ids = torch.tensor(encode_inputs(self.tokenizer, "labelled", [text], 32))
        with torch.inference_mode():
            logits = self.logits({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        return f"surely {self.labels[int(logits.argmax())]}"

    def baseline(self, prepared, split_name):
        counts = torch.from_numpy(prepared.datasets[split_name].target_counts(len(self.labels)))
        gold = torch.arange(len(counts)).repeat_interleave(counts)
        frequent = torch.from_numpy(prepared.target_counts) / prepared.target_counts.sum()
        return score_once("hits", Hits(), frequent.repeat(len(gold), 1), gold)


class Mute(Guess):
    """One that answers nothing."""

    answer = Task.answer


class Headless(Guess):
    head = "classification"


class Kindless(Guess):
    kind = "labelled"


class Silent(Guess):
    def make_metrics(self):
        return {}


class Empty(Task):
    head, kind = "classifier", LABELLED
'''


@pytest.fixture
def asked(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A small training of a task that stands in one file of a package called `elsewhere`."""
    package = workplace / "packages" / "elsewhere"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    named = [word for word in data["classification"] if not word.startswith("task=")]
    named += ["task._target_=elsewhere.Guess", "allowed_packages=[elsewhere]"]
    return [*named, "model=bert", "tokenizer=word", *SMALL]


def load(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_foreign_task_is_trained_scored_asked_and_exported(
    asked: list[str], workplace: Path
) -> None:
    done = truesweep("train", *asked, "logger=wandb", "name=x", cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/x").iterdir()
    results = load(run / "results.json")
    assert f"val/hits {results['val/hits']:#.3g}\n" in done.out
    row = next(line for line in done.out.splitlines() if line.startswith("│ hits"))
    for key in ("val/hits", "test/hits", "baseline/test/hits"):
        assert f"{results[key]:.3g}" in row
    assert results["test/hits_standard_error"] > 0
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary"]
    shown = subprocess.run([*leet, run / "wandb"], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["summary"]["val/hits"] == results["val/hits"]

    again = truesweep("evaluate", str(run), "--json", cwd=workplace)
    assert json.loads(again.out)["test/hits"] == pytest.approx(results["test/hits"])
    compared = truesweep("compare", str(run), cwd=workplace)
    assert f"│ hits {results['test/hits']:#.3g} ± " in compared.out
    said = truesweep("generate", str(run), "--prompt", "old cold", cwd=workplace)
    assert said.out in ("surely False\n", "surely True\n")
    assert truesweep("export", str(run), "exported", cwd=workplace).code == 0
    assert "pipeline_tag: text-classification\n" in (workplace / "exported/README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(workplace / "exported")
    assert set(model.config.label2id) == {"False", "True"}


def test_a_sweep_ranks_a_foreign_task_by_its_figure(asked: list[str], workplace: Path) -> None:
    sweep = ["optimizer.lr=1e-6,2e-2", "trainer.max_steps=30", "sweeps.objective=val/hits"]
    done = truesweep("train", "-m", *asked, *sweep, "name=s", cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert_ranked_by("val/hits", workplace / "outputs/sweeps/s")
    assert re.search(r"best job: .* val/hits \d\d\.\d\n", done.out)  # three digits, as declared


def test_nothing_is_to_be_generated_where_a_task_has_no_answer(
    asked: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = truesweep("train", *asked, "task._target_=elsewhere.Mute", "name=x", cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert "truesweep generate" not in done.out
    (run,) = (workplace / "outputs/x").iterdir()
    assert "next        truesweep evaluate" in done.out
    said = truesweep("generate", str(run), "--prompt", "old cold", cwd=workplace)
    assert (said.code, said.err) == (2, "error: Mute generates nothing: it has no method answer\n")
    monkeypatch.delenv("PYTHONPATH")
    shown = truesweep("resume", str(run), cwd=workplace)
    assert (shown.code, shown.err) == (0, "")
    assert "next        truesweep evaluate" in shown.out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Headless", "has head='classification'; set it to one of causal, masked, seq2seq, class"),
        ("Kindless", "has kind='labelled'; set it to one of truesweep.data.kinds, such as TEXT"),
        ("Empty", "has no evaluate, loss, make_metrics; see"),
        ("Silent", "callbacks.checkpoint.monitor=val/loss is no metric of a validation here. It h"),
    ],
)
def test_a_task_that_does_not_say_what_it_is_is_refused(
    asked: list[str], workplace: Path, name: str, said: str
) -> None:
    named = f"task._target_=elsewhere.{name}"
    done = truesweep("train", *asked, named, "--dry-run", cwd=workplace)
    assert done.code == 2, done.out + done.err
    assert said in done.err
