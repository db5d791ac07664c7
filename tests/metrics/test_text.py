import math
import pickle
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU

from truesweep.errors import ConfigError
from truesweep.metrics.text import (
    CorpusBleu,
    CorpusChrF,
    bleu_tokenizer,
    written_without_spaces,
)

pytestmark = pytest.mark.numbers

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


CHINESE = ["我们在海边看到了一只很大的狗。", "他昨天买了两本新书，今天都读完了。"]
TRANSLATED = ["我们在海边看见了一只很大的狗。", "他昨天买了两本新书，今天读完了。"]


@pytest.mark.parametrize("language", ["zh", "zh_TW", "zh-Hans", "ZH", "zho_Hant", "cmn"])
def test_chinese_is_scored_as_sacrebleu_scores_chinese(language: str) -> None:
    metric = CorpusBleu(bleu_tokenizer(language))
    metric.update(TRANSLATED, CHINESE)
    theirs = BLEU(trg_lang="zh")
    assert float(metric.compute()) == theirs.corpus_score(TRANSLATED, [CHINESE]).score > 50
    assert metric.signature == str(theirs.get_signature())
    words = CorpusBleu()
    words.update(TRANSLATED, CHINESE)
    assert float(words.compute()) < 1


def test_languages_have_the_tokenizer_that_sacrebleu_gives_them() -> None:
    assert {code: bleu_tokenizer(code) for code in BLEU._TOKENIZER_MAP} == BLEU._TOKENIZER_MAP
    assert {bleu_tokenizer(code) for code in ("de", "en", "target", "", None)} == {"13a"}
    assert [bleu_tokenizer(code) for code in ("jpn_Jpan", "kor")] == ["ja-mecab", "ko-mecab"]
    # Written without spaces, too, but sacreBLEU has nothing for them: that is warned of.
    assert {bleu_tokenizer(code) for code in ("th", "tha_Thai", "lo", "lao_Laoo")} == {"13a"}


@pytest.mark.skipif(find_spec("MeCab") is not None, reason="needs MeCab not to be there")
def test_a_tokenizer_that_is_not_there_is_asked_for_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'sacrebleu\[ja\]'.*bleu_tokenize=char"):
        CorpusBleu("ja-mecab")


def test_scripts_without_spaces_are_known() -> None:
    for text in (CHINESE[0], "これは大きな犬です", "ฉันเห็นสุนัขตัวใหญ่", "ຂ້ອຍເຫັນໝາ", "ខ្ញុំឃើញឆ្កែធំ"):
        assert written_without_spaces([text, "ok"])
    assert not written_without_spaces(["한국어는 띄어쓰기를 한다", "Это собака", "a dog 狗"])
    assert not written_without_spaces([])
