import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from truesweep.data import Labelled, Pair, Splits
from truesweep.data.samples import Sample
from truesweep.data.splitting import (
    check_labels,
    complete,
    divide,
    divide_stored,
    lines,
    paragraphs,
    split_documents,
    split_off,
)
from truesweep.data.texts import Texts, TextsWriter
from truesweep.errors import DataError

BOTH = {"val": 0.1, "test": 0.2}
TEXTS: list[Sample] = [f"sample {i}" for i in range(2000)]


def test_each_split_takes_about_its_share_and_none_is_lost() -> None:
    parts = split_off(TEXTS, BOTH)
    assert sum(map(len, parts.values())) == 2000
    assert len(parts["val"]) == pytest.approx(200, abs=45)
    assert len(parts["test"]) == pytest.approx(400, abs=60)


def test_the_side_follows_from_content_alone() -> None:
    parts = split_off(TEXTS, BOTH)
    shuffled = random.Random(1).sample(TEXTS, 1000)
    for name, samples in split_off(shuffled, BOTH).items():
        assert set(samples) <= set(parts[name])
    assert parts["train"] == [text for text in TEXTS if text in set(parts["train"])]


def test_splits_do_not_depend_on_which_others_are_split_off() -> None:
    parts = split_off(TEXTS, BOTH)
    assert split_off(TEXTS, {"val": 0.1})["val"] == parts["val"]
    assert split_off(TEXTS, {"test": 0.2})["test"] == parts["test"]


def test_the_sides_are_the_same_on_every_machine() -> None:
    texts: list[Sample] = [f"{i}" for i in range(12)]
    # SHA-256 of "0" starts with 5f, of "1" with 6b, of "2" with d4, of "3" with 4e, …
    parts = split_off(texts, {"val": 0x60 / 256, "test": 0.25})
    assert parts["val"] == ["0", "3", "4", "8", "9", "10", "11"]
    assert parts["test"] == ["2", "5", "6"]


@pytest.mark.parametrize(
    "alike",
    [
        [Pair(f"{0}", f"translation {i}") for i in range(50)],
        [Labelled("question", f"class {i}") for i in range(50)],
        ["the same", " the same", "the same\n"],
    ],
)
def test_samples_that_read_alike_stay_on_one_side(alike: list[Sample]) -> None:
    parts = split_off(alike, {"val": 0.3, "test": 0.3})
    assert sorted(map(len, parts.values())) == [0, 0, len(alike)]


@pytest.mark.parametrize("text", ["", "a", "a\n\nb", "\n\n a\r\n \r\n\r\nb\n\n\t\nc\n", "a\nb\r\n"])
def test_blocks_joined_are_the_text(text: str) -> None:
    assert "".join(paragraphs(text)) == text
    assert "".join(lines(text)) == text


def test_paragraphs_end_with_their_blank_lines() -> None:
    assert paragraphs("a\nb\n\nc\r\n\r\n\r\nd") == ["a\nb\n\n", "c\r\n\r\n\r\n", "d"]


def test_documents_are_divided_each_on_its_own() -> None:
    documents = ["".join(f"{name} {i}\n\n" for i in range(100)) for name in "ab"]
    parts, unit = split_documents(documents, {"val": 0.3})
    assert unit == "paragraphs"
    assert [str(part)[0] for part in parts["val"]] == ["a", "b"]
    joined = [str(train) + str(val) for train, val in zip(*parts.values(), strict=True)]
    before = [sorted(paragraphs(text)) for text in documents]
    assert [sorted(paragraphs(text)) for text in joined] == before


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match="There is no sample for val"):
        complete("text", {"train": ["a"], "val": [], "test": ["b"]}, {})


def labelled(train: str, val: str, test: str) -> Splits:
    a, b, c = ([Labelled("text", label) for label in labels] for labels in (train, val, test))
    return Splits.of("labelled", a, b, c, {})


def test_labels_that_train_has_are_fine() -> None:
    check_labels(labelled("ab", "a", "b"), lambda name, label: "")


def test_the_first_label_that_train_lacks_is_located() -> None:
    with pytest.raises(DataError, match="test of d: label 'd' is in test and not in train"):
        check_labels(labelled("ab", "a", "bd"), lambda name, label: f"{name} of {label}")


FEW = {"val": 0.001, "test": 0.001}


def stored(texts: Iterable[str], folder: Path) -> Texts:
    with TextsWriter(folder, "all") as writer:
        for text in texts:
            writer.add([text.encode()])
    return Texts(folder, "all")


def test_a_split_that_no_sample_fell_into_takes_the_nearest(tmp_path: Path) -> None:
    texts = [f"{i}" for i in range(12)]
    parts, how, notes = divide([Pair(text, "same") for text in texts], FEW)
    # SHA-256 of "9" starts with 19, of "5" with ef: the ends of all twelve.
    assert [parts[name] for name in FEW] == [[Pair("9", "same")], [Pair("5", "same")]]
    assert len(parts["train"]) == 10
    assert [note.split(" fell into ")[1].split()[0] for note in notes] == ["val", "test"]

    divided, same, said = divide_stored(stored(texts, tmp_path), FEW, False, tmp_path)
    pairs = {name: [Pair(text, "same") for text in part] for name, part in divided.items()}
    assert pairs == parts
    assert (same, said) == (how, notes)


def test_of_a_class_that_a_split_takes_a_text_of_training_keeps_another() -> None:
    texts = [Labelled(f"{i}", "rare" if i in (5, 9) else "often") for i in range(12)]
    single = [Labelled(f"question {i}", f"class {i}") for i in range(40)]
    parts, _, _ = divide([*texts, *single], FEW)
    left = {sample.label for sample in parts["train"] if isinstance(sample, Labelled)}
    assert left == {sample.label for sample in [*texts, *single]}
    assert parts["val"] == [Labelled("9", "rare")]
    assert parts["test"] == [Labelled("6", "often")]  # "5" is what is left of its class


@pytest.mark.parametrize("alike", [["a"], ["a", " a"]])
def test_the_last_text_is_for_training(alike: list[str], tmp_path: Path) -> None:
    parts, _, notes = divide([Pair(text, text) for text in alike], FEW)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [len(alike), 0, 0]
    assert not notes
    if len(alike) > 1:
        divided, _, _ = divide_stored(stored(alike, tmp_path), FEW, False, tmp_path)
        assert len(divided["train"]) == len(alike)
