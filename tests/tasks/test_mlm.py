"""Masked language modelling: which tokens are hidden, and what is made of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from tests.commands.conftest import SMALL, write_data
from tests.tasks.on_ranks import trainer_of, validate
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.generate import Options, generate
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.load import load_run
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import checked
from truesweep.models import flops_per_token
from truesweep.runs.run import Run
from truesweep.tasks.mlm import EVALUATION, MaskedLanguageModeling

IGNORED = -100
Build = Callable[..., Parts]


@pytest.fixture
def built(workplace: Path) -> Build:
    """A run on a small text in the current folder."""
    named = [*write_data(workplace)["lm"][1:], "task=mlm", "tokenizer=word", *SMALL]

    def make(*overrides: str) -> Parts:
        return build(checked([*named, *overrides]))

    return make


def validated(parts: Parts) -> dict[str, float]:
    validate(parts)
    return parts.task.evaluations["val"]


def hidden(parts: Parts, rows: slice = slice(None), step: int = 0, seed: int = 0) -> dict[str, Any]:
    """A batch of the first 40 training samples, or some of them, as a training step sees it."""
    task = parts.task
    assert isinstance(task, MaskedLanguageModeling)
    batch = parts.data.train.collate(list(range(40))[rows])
    return {**task.hide(batch, (seed, step, 1)), "given": batch}


@pytest.mark.parametrize("model", ["bert", "modernbert"])
def test_the_loss_is_that_of_the_hidden_tokens_alone(built: Build, model: str) -> None:
    parts = built(f"model={model}", "data.packing=false")
    batch = hidden(parts)
    task = parts.task.eval()
    with torch.inference_mode():
        total, nll, count = task.loss(batch)
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        logits = task.model(**inputs).logits
    chosen = batch["labels"] != IGNORED
    expected = cross_entropy(logits[chosen], batch["given"]["input_ids"][chosen], reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert float(total) == float(nll)
    assert int(count) == int(chosen.sum()) == int(task.targets(batch))
    later = batch["input_ids"].clone()
    later[:, -1] = later[:, 2]
    with torch.inference_mode():  # what stands behind a token tells of it, too
        other = task.model(input_ids=later, attention_mask=batch["attention_mask"]).logits
    assert not torch.allclose(other[:, 1], logits[:, 1])


@pytest.mark.parametrize(("rate", "masked", "random"), [(0.15, 0.8, 0.1), (0.4, 0.5, 0.5)])
def test_rates_are_those_asked_for(built: Build, rate: float, masked: float, random: float) -> None:
    asked = [f"task.mask_rate={rate}", f"task.masked={masked}", f"task.random={random}"]
    parts = built(*asked, "data.max_length=128")
    task, given = parts.task, parts.data.train.collate(range(len(parts.data.train)))
    assert isinstance(task, MaskedLanguageModeling)
    seen: list[Tensor] = []
    for step in range(30):
        batch = task.hide(given, (0, step, 1))
        chosen, kept = batch["labels"] != IGNORED, given["labels"]
        eligible = (kept != IGNORED).sum(1).double()
        assert torch.equal(chosen.sum(1), (eligible * rate).round().clamp(min=1).long())
        assert torch.equal(batch["input_ids"][~chosen], given["input_ids"][~chosen])
        seen.append(torch.stack([batch["input_ids"][chosen], kept[chosen]]))
    found, true = torch.cat(seen, 1)
    mask = found == task.tokenizer.mask_token_id
    special = torch.tensor(task.tokenizer.all_special_ids)
    assert not torch.isin(found[~mask], special).any()
    assert not torch.isin(true, special).any()
    total, vocabulary = len(found), len(task.tokenizer) - len(special)
    other = (~mask & (found != true)).float().mean() / (1 - 1 / vocabulary)
    assert float(mask.float().mean()) == pytest.approx(masked, abs=4 * 0.5 / total**0.5)
    assert float(other) == pytest.approx(random, abs=4 * 0.5 / total**0.5)


def test_what_is_hidden_depends_on_seed_step_and_sample_alone(built: Build) -> None:
    parts = built("data.packing=false")
    whole, one = hidden(parts), hidden(parts, slice(7, 8))
    width = one["labels"].shape[1]  # fewer columns: less padding
    assert torch.equal(whole["labels"][7, :width], one["labels"][0])
    assert torch.equal(whole["input_ids"][7, :width], one["input_ids"][0])
    for other in (hidden(parts, step=1), hidden(parts, seed=1)):
        assert (other["labels"] != whole["labels"]).any(1).float().mean() > 0.5
    task = built("seed=5", "data.packing=false").task
    assert isinstance(task, MaskedLanguageModeling)
    fixed = [t.hide(whole["given"], EVALUATION)["labels"] for t in (task, parts.task)]  # type: ignore[operator]
    assert torch.equal(*fixed)


def test_a_validation_is_the_same_each_time_and_measured_beside_a_baseline(built: Build) -> None:
    parts = built("data.packing=false", "data.eval_batch_size=3")
    task = parts.task
    first, again = (validated(parts) for _ in range(2))
    assert first == again
    assert first.keys() == {f"val/{n}" for n in ("loss", "perplexity", "accuracy", "samples")}
    whole = validated(built("data.packing=false", "data.eval_batch_size=50"))
    assert whole == pytest.approx(first, rel=1e-5)
    scores = task.sample_scores["val"]
    assert first["val/accuracy"] == scores["correct"].sum() / scores["count"].sum()
    assert len(scores["count"]) == first["val/samples"]
    assert scores["count"].min() >= 1
    train = parts.prepared.target_counts
    labels = task.hide(parts.data.val.collate(range(len(parts.data.val))), EVALUATION)["labels"]  # type: ignore[operator]
    gold = labels[labels != IGNORED].numpy()
    logs = np.log((train + 1) / (train + 1).sum())
    baseline = task.baselines(parts.prepared, "val")
    assert baseline["baseline/val/loss"] == pytest.approx(-logs[gold].mean())
    assert baseline["baseline/val/accuracy"] == (gold == train.argmax()).mean()


def test_windows_are_framed_and_hold_each_token_once(built: Build) -> None:
    parts = built()
    data, tokenizer = parts.data.train, parts.task.tokenizer
    batch = data.collate(range(len(data)))
    rows = [r[:n] for r, n in zip(batch["input_ids"].tolist(), batch["lengths"], strict=True)]
    assert {(row[0], row[-1]) for row in rows} == {(tokenizer.bos_token_id, tokenizer.eos_token_id)}
    assert max(map(len, rows)) == parts.source.max_length
    text = str(tokenizer.decode([token for row in rows for token in row[1:-1]]))
    assert parts.prepared.stats["train"]["tokens"] == sum(len(row) - 2 for row in rows)
    assert text.split()[:3] == Path("text.txt").read_text().split()[:3]


def test_more_than_all_cannot_be_replaced(built: Build) -> None:
    with pytest.raises(ConfigError, match=r"task.masked=0.8 and task.random=0.3"):
        built("task.random=0.3")


def test_a_resumed_training_has_the_same_weights(built: Build, workplace: Path) -> None:
    asked = ["model.dropout=0.1", "trainer.max_steps=8", "data.packing=false"]
    whole, first, rest = (built(*asked) for _ in range(3))
    trainer = trainer_of(first, steps=5)
    with quiet():
        trainer_of(whole).fit(whole.task, datamodule=whole.data)
        trainer.fit(first.task, datamodule=first.data)
        trainer.save_checkpoint(workplace / "last.ckpt")
        trainer_of(rest).fit(rest.task, datamodule=rest.data, ckpt_path=workplace / "last.ckpt")
    weights = dict(whole.task.named_parameters())
    for name, weight in rest.task.named_parameters():
        assert torch.equal(weight, weights[name]), name
    assert not torch.equal(weight, dict(first.task.named_parameters())[name])


def test_a_run_is_scored_filled_in_and_exported(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [*write_data(workplace)["lm"][1:], "task=mlm", "tokenizer.vocab_size=400", *SMALL]
    assert train([*named, "name=x"], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert evaluate([str(run)], "test", "best", []) == 0
    scored = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    for name in ("test/accuracy", "test/accuracy_standard_error", "baseline/test/loss"):
        assert scored[name] == pytest.approx(results[name])
    loaded = load_run(Run.open(run), "masked").model
    read = results["train/tokens"] / 0.15  # of 15 in a hundred tokens, all are read
    assert results["train/flops"] == round(flops_per_token(loaded, 32).per_token * read)
    capsys.readouterr()

    assert generate(run, "red [MASK] blue [MASK]", None, "best", Options()) == 0
    filled = capsys.readouterr().out.removesuffix("\n")
    assert "[MASK]" not in filled
    assert filled.startswith("red")
    assert " blue" in filled
    with pytest.raises(ConfigError, match="has no"):
        generate(run, "red blue", None, "best", Options())
    folder = workplace / "exported"
    assert export(run, folder, "best") == 0
    model = AutoModelForMaskedLM.from_pretrained(folder)
    fill = pipeline("fill-mask", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    assert len(fill("red [MASK] blue", top_k=3)) == 3
    capsys.readouterr()
    assert generate(folder, "red [MASK] blue [MASK]", None, "best", Options()) == 0
    assert capsys.readouterr().out.removesuffix("\n") == filled
