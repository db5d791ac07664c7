import math
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from truesweep.metrics.text import CorpusBleu, CorpusChrF

TEXT = """der die ein Hund läuft, schnell. (alt) U.S. 3,5 % it's Zug – nicht "so" & weiß 你 好"""
BLEU_SETTINGS: list[dict[str, Any]] = [
    {},
    {"lowercase": True},
    {"tokenize": "intl"},
    {"tokenize": "char"},
    {"tokenize": "zh"},
    {"tokenize": "none"},
]


def corpus(size: int = 60) -> tuple[list[str], list[str]]:
    """Predictions that share words with their references; some empty, some with a line end."""
    draw = random.Random(0)
    references = [" ".join(draw.choices(TEXT.split(), k=draw.randint(1, 15))) for _ in range(size)]
    predictions = []
    for reference in references:
        words = [word.upper() if draw.random() < 0.1 else word for word in reference.split()]
        predictions.append(" ".join(word for word in words if draw.random() < 0.9))
    predictions[3], predictions[5] = "", predictions[5] + " \n"
    return predictions, references


def in_batches(metric: CorpusBleu | CorpusChrF, size: int) -> float:
    predictions, references = corpus()
    for start in range(0, len(predictions), size):
        metric.update(predictions[start : start + size], references[start : start + size])
    return metric.compute().item()


@pytest.mark.parametrize("settings", BLEU_SETTINGS)
@pytest.mark.parametrize("size", [1, 7, 60])
def test_bleu_is_sacrebleus_however_it_is_batched(settings: dict[str, Any], size: int) -> None:
    predictions, references = corpus()
    reference = sacrebleu.BLEU(**settings)
    expected = reference.corpus_score(predictions, [references]).score
    assert 20 < expected < 95
    metric = CorpusBleu(**settings)
    assert in_batches(metric, size) == pytest.approx(expected, abs=1e-10)
    assert metric.signature == str(reference.get_signature())
    assert metric.count.item() == 60


@pytest.mark.parametrize("settings", [{}, {"word_order": 2}, {"lowercase": True}])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_chrf_is_sacrebleus_however_it_is_batched(settings: dict[str, Any], size: int) -> None:
    predictions, references = corpus()
    reference = sacrebleu.CHRF(**settings)
    expected = reference.corpus_score(predictions, [references]).score
    metric = CorpusChrF(**settings)
    assert in_batches(metric, size) == pytest.approx(expected, abs=1e-10)
    assert metric.signature == str(reference.get_signature())


def test_both_are_what_the_command_prints(tmp_path: Path) -> None:
    predictions, references = corpus()
    for name, lines in (("hypothesis", predictions), ("reference", references)):
        (tmp_path / name).write_text("".join(f"{line.rstrip()}\n" for line in lines))
    options = ["-i", "hypothesis", "-m", "bleu", "chrf", "--score-only", "--width", "6"]
    command = [sys.executable, "-m", "sacrebleu", "reference", *options]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    printed = [
        float(word)
        for word in done.stdout.replace("[", " ").replace("]", " ").replace(",", " ").split()
    ]
    assert printed == [
        pytest.approx(in_batches(CorpusBleu(), 7), abs=1e-4),
        pytest.approx(in_batches(CorpusChrF(), 7), abs=1e-4),
    ]


def test_tokenised_looking_text_is_scored_without_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    CorpusBleu().update(["Nein ."] * 100, ["Nein ."] * 100)
    assert caplog.records == []


@pytest.mark.parametrize("metric", [CorpusBleu(), CorpusChrF()])
def test_nothing_scores_nothing(metric: CorpusBleu | CorpusChrF) -> None:
    assert math.isnan(metric.compute().item())
    metric.update([], [])
    assert math.isnan(metric.compute().item())
    assert metric.count.item() == 0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        CorpusBleu().update(["a", "b"], ["a"])


def test_states_survive_saving_copying_and_resetting() -> None:
    metric = CorpusBleu(lowercase=True)
    metric.persistent(True)
    value = in_batches(metric, 60)
    loaded = CorpusBleu(lowercase=True)
    loaded.persistent(True)
    loaded.load_state_dict(metric.state_dict())
    assert loaded.compute().item() == value
    assert pickle.loads(pickle.dumps(metric)).compute().item() == value
    metric.reset()
    assert math.isnan(metric.compute().item())
