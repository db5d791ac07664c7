"""An evaluation counts each sample once, whatever ranks, batches and types of logits there are."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tasks.on_ranks import SIZES, TASKS, Figures, figures, parts_of, validate, write_samples

pytestmark = pytest.mark.numbers

Found = dict[int, list[dict[str, Any]]]
EXPECTED = {
    "lm": {"loss", "perplexity", "samples"},
    "mlm": {"loss", "perplexity", "accuracy", "samples"},
    "translation": {"loss", "perplexity", "bleu", "chrf", "samples"},
    "classification": {"loss", "f1_macro", "f1_weighted", "accuracy", "samples"},
    "sft": {"loss", "perplexity", "accuracy", "exact_match", "rougeL", "samples"},
    "dpo": {"loss", "accuracy", "margin", "samples"},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Figures:
    """The figures of a single rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("alone"))
        write_samples(Path())
        return figures(ranks=1)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_give_the_figures_of_one(
    alone: Figures, found_by_ranks: Found, task: str, ranks: int
) -> None:
    for size in SIZES:
        values = found_by_ranks[ranks][0]["figures"][task][size]
        assert values.keys() >= EXPECTED[task]
        assert values["samples"] == alone[task][size]["samples"] == size
        assert values == pytest.approx(alone[task][size], rel=1e-6, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_all_ranks_hold_the_same_figures(found_by_ranks: Found, task: str) -> None:
    for found in found_by_ranks.values():
        assert all(rank["figures"][task] == found[0]["figures"][task] for rank in found)


def test_the_figures_would_show_a_sample_too_many(alone: Figures) -> None:
    assert all(len({alone[task][size]["loss"] for size in SIZES}) == len(SIZES) for task in TASKS)
    assert all(0 < alone["translation"][size]["bleu"] < 100 for size in SIZES)
    assert all(0 < alone["sft"][size]["rougeL"] < 1 for size in SIZES)


@pytest.mark.parametrize("packing", ["true", "false"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_perplexity_is_that_in_float64(packing: str, precision: str, workplace: Path) -> None:
    write_samples(workplace)
    asked = [f"data.packing={packing}", f"trainer.precision={precision}", "data.max_length=16"]
    parts = parts_of("lm", "n8", "n5", *asked)
    validate(parts)
    nll, count = 0.0, 0
    for batch in parts.data.val_dataloader():
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask") if key in batch}
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")
        with torch.inference_mode(), mixed:
            logits = parts.task.model.eval()(**inputs).logits
        labels = batch["labels"].flatten()
        nll += float(cross_entropy(logits.double().flatten(0, 1), labels, reduction="sum"))
        count += int((labels != -100).sum())
    perplexity = parts.task.evaluations["val"]["val/perplexity"]
    assert perplexity == pytest.approx(math.exp(nll / count), rel=1e-6)


@pytest.mark.parametrize(
    ("task", "asked"),
    [*((task, []) for task in TASKS), ("translation", ["task.val_generated=0"])],
)
def test_what_is_promised_is_reported(task: str, asked: list[str], workplace: Path) -> None:
    write_samples(workplace)
    parts = parts_of(task, "n3", "n3", *asked)
    promised = {f"val/{name}" for name in (*parts.task.reported("val"), "samples")}
    validate(parts)
    assert parts.task.evaluations["val"].keys() == promised


def test_a_translation_is_left_when_the_run_is_to_stop(workplace: Path) -> None:
    write_samples(workplace)
    task: Any = parts_of("translation", "n3", "n3").task
    calls = []
    task.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    ids = torch.tensor([[5, 6, 7], [6, 5, 7]])
    task.generate_texts(ids, torch.ones_like(ids))
    whole = len(calls)
    task.stop_requested = 15
    task.generate_texts(ids, torch.ones_like(ids))
    assert whole > 5
    assert len(calls) - whole <= 2


def test_the_first_sentences_of_an_overfitted_batch_are_translated(workplace: Path) -> None:
    write_samples(workplace)
    asked = ["trainer.overfit_batches=1", "task.val_generated=3"]
    parts = parts_of("translation", "n3", "n3", *asked)
    validate(parts)
    found = parts.task.evaluations["val"]
    assert found["val/bleu_samples"] == found["val/chrf_samples"] == 3 < found["val/samples"]
    assert found.keys() & {"val/loss_samples", "val/perplexity_samples"} == set()
    assert len(parts.task.sample_scores["val"]["bleu"]) == 3
    assert len(parts.task.sample_scores["val"]["nll"]) == parts.source.batch_size


def test_a_sample_that_is_not_counted_is_no_figure(workplace: Path) -> None:
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3")
    # The mechanism that is broken on purpose: nothing is counted.
    parts.task.samples.update = lambda count: None  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="val has 3 samples and 0 were counted"):
        validate(parts)
