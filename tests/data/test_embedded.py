import sysconfig
import time
from typing import Any

import pytest

from truesweep.data import Embedded, Kind, Labelled, Pair, python_text
from truesweep.errors import ConfigError, DataError

KINDS: list[Kind] = ["text", "pairs", "labelled"]


@pytest.mark.parametrize("kind", KINDS)
def test_loading_is_quick_and_always_gives_the_same(kind: Kind) -> None:
    first = Embedded().load(kind)
    start = time.process_time()
    second = Embedded().load(kind)
    assert time.process_time() - start < 2
    assert first == second
    assert first.origin["version"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_sample_is_in_two_splits_or_twice_in_one(kind: Kind) -> None:
    splits = Embedded().load(kind)
    samples = [*splits.train, *splits.val, *splits.test]
    assert len(set(samples)) == len(samples)


def test_text_is_of_a_size_that_a_minute_can_learn_and_evaluate() -> None:
    splits = Embedded().load("text")
    train, val, test = ("".join(map(str, part)) for part in (splits.train, splits.val, splits.test))
    assert 1_000_000 < len(train) < 4_000_000
    assert 60_000 < len(val) < 120_000
    assert 60_000 < len(test) < 120_000
    assert train.isascii()
    assert set(val + test) <= set(train)  # a character tokenizer knows them all


def test_text_holds_documentation_and_source() -> None:
    text = "".join(map(str, Embedded().load("text").train))
    assert 'The "if" statement' in text
    assert "import os" in text


def test_nested_topics_of_the_documentation_are_kept_once() -> None:
    text = "".join(python_text.documents())
    assert text.count('The "while" statement is used for repeated execution') == 1


def test_no_long_passage_of_text_is_in_two_splits() -> None:
    splits = Embedded().load("text")
    train, val, test = (
        {line.strip() for text in part for line in str(text).split("\n\n") if len(line) > 200}
        for part in (splits.train, splits.val, splits.test)
    )
    assert min(map(len, (train, val, test))) > 50
    assert train & val == train & test == val & test == set()


def test_documents_with_a_passage_in_common_are_a_family() -> None:
    shared = "def walk(path):\n    # A passage that is long enough not to be alike by chance.\n"
    a, b, c, d = f"a\n\n{shared}", f"b\n\n  {shared}\nmore of b, {'b' * 60}\n", "c\n\nx", "d\n\nx"
    e = f"e\n\nmore  of b, {'b' * 60}"
    assert python_text.families([a, c, b, d, e]) == [[a, b, e], [c], [d]]


@pytest.mark.parametrize(("topics", "modules"), [(False, True), (True, False)])
def test_a_python_without_one_of_them_gives_the_other(
    topics: bool, modules: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    _remove(monkeypatch, tmp_path, topics=not topics, modules=not modules)
    splits = Embedded().load("text")
    text = "".join(map(str, splits.train))
    assert ("import os" in text) == modules
    assert ('The "if" statement' in text) == topics


def test_a_python_without_either_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    _remove(monkeypatch, tmp_path, topics=True, modules=True)
    with pytest.raises(DataError, match="data=files"):
        Embedded().load("text")


def _remove(monkeypatch: pytest.MonkeyPatch, empty: Any, *, topics: bool, modules: bool) -> None:
    if topics:
        monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    if modules:
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(empty))


def test_pairs_are_many_and_right() -> None:
    splits = Embedded().load("pairs")
    assert 5_000 < len(splits.train) < 15_000
    assert 350 < len(splits.test) < 700
    pairs = {pair.source: pair.target for pair in splits.train if isinstance(pair, Pair)}
    assert len(pairs) == len(splits.train)
    months = {german: english for german, english in pairs.items() if german.startswith("März ")}
    assert months
    assert all(english == f"March {german[5:]}" for german, english in months.items())
    assert pairs["Deutschland"] == "Germany"


def test_other_languages_can_be_paired() -> None:
    pairs = Embedded(source="fr", target="pt-BR").load("pairs").train
    assert Pair("Allemagne", "Alemanha") in pairs


def test_no_labelled_text_is_in_two_languages() -> None:
    splits = Embedded().load("labelled")
    samples = [s for s in [*splits.train, *splits.val, *splits.test] if isinstance(s, Labelled)]
    assert len({sample.text for sample in samples}) == len(samples)
    assert Labelled("Germania", "it") in samples
    assert "Angola" not in {sample.text for sample in samples}


def test_every_language_is_in_every_split() -> None:
    splits = Embedded(languages=("de", "en", "fi")).load("labelled")
    for part in (splits.train, splits.val, splits.test):
        labels = [sample.label for sample in part if isinstance(sample, Labelled)]
        assert set(labels) == {"de", "en", "fi"}
        assert max(map(labels.count, ("de", "en", "fi"))) < 0.5 * len(labels)


@pytest.mark.parametrize(
    ("kind", "keys", "words"),
    [
        ("pairs", {"source": "en"}, "both 'en'"),
        ("pairs", {"target": "qq"}, "'qq' is none that Babel knows"),
        ("pairs", {"target": "pt-BRR"}, "Use a code such as .*pt_BR"),
        ("labelled", {"languages": ("de", "?")}, "'[?]' is none that Babel knows"),
        ("text", {"val_fraction": 0.5, "test_fraction": 0.5}, "under 1"),
    ],
)
def test_unfit_keys_are_refused(kind: Kind, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Embedded(**keys).load(kind)
