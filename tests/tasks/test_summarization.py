"""ROUGE, and texts to summarise that are installed anyway."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.text import ROUGEScore

from tests.tasks.on_ranks import parts_of, validate, write_samples
from truesweep.analysis.uncertainty import standard_errors
from truesweep.data import Embedded, Pair
from truesweep.data.docstrings import SUMMARIES
from truesweep.data.leakage import leaked
from truesweep.data.samples import Splits
from truesweep.tasks.summarization import KEYS, Rouge, Summarization

SUMMED_UP = [
    ("Open a file for reading.", "Opens the file for reading and writing"),
    ("Return the size", "Return the size of a file."),
    ("nothing alike", "Close it."),
    ("", "An empty answer scores nothing."),
]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return SUMMARIES.load(Embedded())


def test_rouge_is_that_of_torchmetrics_however_texts_are_shared_out() -> None:
    predictions, references = map(list, zip(*SUMMED_UP, strict=True))
    theirs = ROUGEScore(rouge_keys=KEYS)
    theirs.update(predictions, references)
    whole, halves = Rouge(), Rouge()
    whole.update(predictions, references)
    for half in (slice(0, 1), slice(1, 4)):
        halves.update(predictions[half], references[half])
    for key, value in theirs.compute().items():
        if key.endswith("_fmeasure"):
            ours = [m.compute()[key.removesuffix("_fmeasure")] for m in (whole, halves)]
            assert ours == [pytest.approx(float(value), rel=1e-6)] * 2
    assert 0 < float(whole.compute()["rouge2"]) < float(whole.compute()["rougeL"]) < 1
    assert math.isnan(Rouge().compute()["rouge1"])


@pytest.mark.parametrize("text", ["今天天气很好。", "Сегодня хорошо", "हिन्दी में", "schön für"])
def test_rouge_finds_the_words_of_any_language(text: str) -> None:
    metric = Rouge("any")
    metric.update([text], [text])
    assert metric.compute() == dict.fromkeys(KEYS, pytest.approx(1))
    half = Rouge("any")
    half.update(["今天天", "für", "हिन्दी"], ["今天好", "fur", "हिन्दू"])
    assert float(half.compute()["rouge1"]) == pytest.approx(2 / 9)  # no letters within words


def test_rouge_of_english_is_the_same_in_any_language() -> None:
    of_english, of_any = Rouge(), Rouge("any")
    for metric in (of_english, of_any):
        metric.update(*map(list, zip(*SUMMED_UP, strict=True)))
    assert of_any.compute() == of_english.compute()


@pytest.mark.parametrize(
    ("text", "share"),
    [("Opens a file, and the café.", 0), ("今天天气很好", 100), ("für den größten Teil der", 40)],
)
def test_words_that_rouge_does_not_know_are_said(text: str, share: int) -> None:
    answers = [text, *["and so on"] * 20 * (share == 0)]
    asked = SimpleNamespace(rouge_words="english")
    said = [*Summarization.warnings(asked, answers)]  # type: ignore[arg-type]
    assert [f"{share} % of the references' words" in one for one in said] == [True] * bool(share)
    asked.rouge_words = "any"
    assert not [*Summarization.warnings(asked, answers)]  # type: ignore[arg-type]


def test_rouge_has_a_standard_error() -> None:
    metric = Rouge()
    counts = metric.statistics(*zip(*SUMMED_UP, strict=True))
    scores = {name: column.numpy() for name, column in metric.by_sample(counts).items()}
    errors = standard_errors(scores, "test", Rouge.figures)
    expected = counts.std(0) / math.sqrt(len(counts))
    assert list(errors) == [f"test/{key}_standard_error" for key in KEYS]
    assert list(errors.values()) == pytest.approx(expected.tolist())


def test_the_trivial_summary_is_the_first_sentence() -> None:
    text = "Values of e.g.5 are kept. Others are\nnot.\n\nThe rest."
    assert Summarization.trivial(None, text) == "Values of e.g.5 are kept."  # type: ignore[arg-type]
    assert Summarization.trivial(None, "No end\n\nhere.") == "No end"  # type: ignore[arg-type]


def test_docstrings_are_divided_without_leakage(splits: Splits) -> None:
    samples = {"train": splits.train, "val": splits.val, "test": splits.test}
    assert len(splits.train) > 3000
    assert min(len(splits.val), len(splits.test)) >= SUMMARIES.needed
    assert all(leak.exact == leak.near == 0 for leak in leaked("pairs", samples))
    packages = splits.origin["version"]
    assert torch.__version__ in packages


def test_a_docstring_is_its_first_line_and_the_rest(splits: Splits) -> None:
    found = {s.source: s.target for s in splits.train if isinstance(s, Pair)}
    for text, summary in found.items():
        assert "\n" not in summary
        assert len(text) <= 402
    (spelled,) = (s for t, s in found.items() if t.startswith("Returned value is a named tuple"))
    assert spelled == "Return disk usage statistics about the given path."


def test_a_translation_may_be_measured_so_too(workplace: Path) -> None:
    write_samples(workplace)
    added = "task.metrics.rouge._target_=truesweep.tasks.summarization.Rouge"
    parts = parts_of("translation", "n5", "n5", added)
    parts.task.generate_texts = lambda ids, mask: list(  # type: ignore[assignment]
        parts.task.tokenizer.batch_decode(ids, skip_special_tokens=True)
    )
    validate(parts)
    figures, scores = parts.task.evaluations["val"], parts.task.sample_scores["val"]
    assert 0 < figures["val/rouge2"] < figures["val/rouge1"] < 1
    assert figures["val/rouge1"] == pytest.approx(scores["rouge1"].mean())
    errors = standard_errors(scores, "val", parts.task.declared.values())
    assert errors["val/rouge1_standard_error"] > 0
