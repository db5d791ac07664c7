"""Cleaning: what each rule takes and leaves, that nothing happens unasked, and what is told."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import Memory
from truesweep.data import rules, splitting, texts
from truesweep.data.chats import CHATS
from truesweep.data.clean import cleaned, cleaned_together
from truesweep.data.files import Files
from truesweep.data.kinds import LABELLED, PAIRS, TEXT
from truesweep.data.leakage import leaked
from truesweep.data.mixture import Mixture, Part
from truesweep.data.rules import Clean, c4, c4_lines, gopher, gopher_repetition
from truesweep.data.samples import Account, Chat, Kind, Labelled, Pair, Sample, Splits
from truesweep.data.texts import Texts, TextsWriter
from truesweep.errors import ConfigError, DataError
from truesweep.record.frozen import ADDED_SINCE

FOX = "the quick brown fox jumps over the lazy dog near the river bank"
NEAR = FOX.replace("lazy", "lazzy")
ENGLISH = "Two young men are standing outside of the house near many bushes."
GERMAN = "Zwei junge Männer stehen draußen vor dem Haus in der Nähe vieler Büsche."
GOOD = "Good samples have several sentences. " * 3


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(tmp_path / "cache"))


def splits(train: Sequence[Sample], judge: Sequence[Sample] | None = None) -> Splits:
    kinds: dict[type, Kind] = {str: "text", Pair: "pairs", Labelled: "labelled"}
    judge = judge or [train[0]]
    return Splits.of(kinds.get(type(train[0]), "chats"), train, judge, judge, {"from": "memory"})


def left(train: Sequence[Sample], **keys: Any) -> list[Sample]:
    return list(cleaned(splits(train), Clean(**keys)).train)


def labelled(*rows: str) -> list[Sample]:
    return [Labelled(*row.split("|")) for row in rows]


def test_nothing_is_cleaned_by_default() -> None:
    before = splits([FOX, FOX])
    assert cleaned(before, Clean()) is before


def test_each_key_is_the_question_that_there_was_without_it() -> None:
    defaults = {f"data.clean.{k}": v for k, v in vars(Clean()).items()}
    neutral = {k: v for k, v in ADDED_SINCE.items() if k.startswith("data.clean.")}
    assert json.dumps(defaults) == json.dumps(neutral)


@pytest.mark.parametrize(
    ("train", "keys", "kept"),
    [
        ([FOX, f" {FOX.upper()}", NEAR], {"duplicates": True}, [FOX, NEAR]),
        ([NEAR, FOX, "else", FOX], {"near_duplicates": True}, [NEAR, "else"]),
        (
            ["Who wrote Hamlet ?", "Who worte  hamlet?"],
            {"near_duplicates": True},
            ["Who wrote Hamlet ?"],
        ),
        ([f"{FOX} 12", f"{FOX} 13"], {"near_duplicates": True}, [f"{FOX} 12", f"{FOX} 13"]),
        ([FOX, "a b", "中文字"], {"min_words": 3, "max_words": 9}, ["中文字"]),
        ([FOX, "@@ ## a %"], {"max_symbols": 0.2}, [FOX]),
        (["schÃ¶n", "“schön”", "a\r\nb"], {"unicode": True}, ["schön", "“schön”", "a\r\nb"]),
        ([ENGLISH, GERMAN], {"languages": ("de",)}, [GERMAN]),
        ([Pair(FOX, FOX), Pair("a", "b")], {"copies": True}, [Pair("a", "b")]),
        ([Pair(FOX, "a"), Pair("a", "b c")], {"length_ratio": 2.0}, [Pair("a", "b c")]),
        (
            [Pair(GERMAN, ENGLISH), Pair(ENGLISH, GERMAN)],
            {"languages": ("de", "en")},
            [Pair(GERMAN, ENGLISH)],
        ),
        (labelled("x|a", "X|b", "x|a", "y|a", "Y|b"), {"conflicts": True}, labelled("x|a", "x|a")),
        (labelled("x|a", "y|a", "z|b"), {"min_per_label": 2}, labelled("x|a", "y|a")),
        (
            labelled(f"{FOX}|a", f"{NEAR}|b", f"{FOX}!|a"),
            {"near_duplicates": True, "duplicates": True},
            labelled(f"{FOX}|a", f"{NEAR}|b"),
        ),
        ([GOOD, "Lorem ipsum. Dolor sit. Amet now."], {"c4": True}, [GOOD]),
    ],
)
def test_what_a_rule_takes(train: list[Sample], keys: dict[str, Any], kept: list[Sample]) -> None:
    assert left(train, **keys) == kept


def test_at_most_so_many_of_a_label_stay_whatever_their_order() -> None:
    train = labelled(*(f"text {i}|a" for i in range(9)), "rare|b")
    kept = left(train, max_per_label=4)
    assert len(kept) == 5
    assert set(map(str, kept)) == set(map(str, left(train[::-1], max_per_label=4)))


def test_a_label_that_nothing_else_speaks_for_is_found() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn (pip install scikit-learn)")
    rows = [f"who is the man {i}|person" for i in range(150)]
    rows += [f"where is the town {i}|place" for i in range(150)]
    train = [*labelled(*rows), *labelled("who is the man x|place")]
    assert left(train, label_errors=True) == train[:-1]


def test_a_conversation_is_mended_within_its_messages() -> None:
    messages = [{"role": "user", "content": "schÃ¶n"}, {"role": "assistant", "content": "ja"}]
    train: list[Sample] = [Chat.of(messages)]
    (chat,) = left(train, unicode=True)
    assert chat.source == "schön"  # type: ignore[union-attr]


def test_of_a_conversation_only_what_is_said_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_repairing", lambda: str.upper)
    asked = [{"type": "text", "text": "a"}, {"type": "image", "url": "b"}]
    call = {"id": "c", "function": {"name": "d", "arguments": {"e": "f"}}}
    messages = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "g", "reasoning_content": "h", "tool_calls": [call]},
    ]
    tools = [{"type": "function", "function": {"name": "d", "description": "i"}}]
    (chat,) = left([Chat.of(messages, tools, messages)], unicode=True)
    asked[0]["text"] = "A"
    messages[1] |= {"content": "G", "reasoning_content": "H"}
    assert chat == Chat.of(messages, tools, messages)


def test_paragraphs_of_a_long_text_go_and_the_rest_stays_verbatim() -> None:
    blocks = [f"Paragraph {i} says its own {i * 7} things of {FOX}.\n\n" for i in range(1500)]
    text = "".join([*blocks, "Short.\n\n", blocks[7], "Short.\n\n"])
    found = cleaned(splits([text], [blocks[3]]), Clean(duplicates=True), decontaminate=True)
    assert found.train == ["".join([*blocks[:3], *blocks[4:], "Short.\n\n", "Short.\n\n"])]
    account = found.cleaned["train"]
    assert account.dropped == {"duplicates": 1, "decontaminate": 1}
    assert (account.samples, account.unit) == (1503, "paragraphs")


def test_passages_of_a_text_are_the_same_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(f"word {i}\n" * (i % 3 + 1) for i in range(500))
    with TextsWriter(tmp_path, "t") as writer:
        writer.add([text.encode()])
    monkeypatch.setattr(texts, "BLOCK", 64)
    (stored,) = Texts(tmp_path, "t").stored()
    assert list(splitting.passages(stored)) == splitting.paragraphs(text)
    assert "".join(splitting.passages("a\nb\nc")) == "a\nb\nc"


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (lambda t: t, [FOX, "something else that nobody has ever said before in this way"]),
        (lambda t: Pair(t, "x"), []),
        (lambda t: Labelled(t, "x"), []),
    ],
)
def test_training_data_are_freed_of_what_judges(
    make: Callable[[str], Sample], others: list[str]
) -> None:
    other = "something else that nobody has ever said before in this way"
    before = splits([make(FOX), make(NEAR), make(other)], [make(FOX.title())])
    after = cleaned(before, Clean(), decontaminate=True)
    assert list(after.train) == [make(other)]
    assert after.val == before.val
    assert after.cleaned["train"].dropped == {"decontaminate": 2}
    assert after.fingerprint != before.fingerprint


def mixture(tmp_path: Path, sources: dict[str, list[str]], **keys: Any) -> dict[str, Splits]:
    """The splits of sources of texts, each a line; `val` of the first is English."""
    parts = {}
    for (name, lines), own in zip(sources.items(), (ENGLISH, GERMAN, GOOD), strict=True):
        for split, of in (("train", lines), ("val", [own]), ("test", ["the test"])):
            rows = (json.dumps({"text": line}) for line in of)
            (tmp_path / f"{name}.{split}.jsonl").write_text("\n".join(rows))
        files: Any = {s: str(tmp_path / f"{name}.{s}.jsonl") for s in ("train", "val", "test")}
        parts[name] = Part(make=partial(Files, **files))
    return TEXT.load_each(Mixture(sources=parts, batch_size=1, **keys))


def test_what_two_sources_have_stays_in_the_first(tmp_path: Path) -> None:
    sources = {"a": [FOX, FOX, "a"], "b": ["b"], "c": [NEAR, ENGLISH, FOX.upper(), "c"]}
    rules = Clean(duplicates=True, near_duplicates=True)
    apart = mixture(tmp_path, sources, clean=rules, decontaminate="drop")
    assert [list(s.train) for s in apart.values()] == [[FOX, "a"], ["b"], [NEAR, "c"]]
    assert apart["c"].cleaned["train"].dropped == {"near_duplicates": 1, "decontaminate": 1}
    together = mixture(
        tmp_path, sources, clean=replace(rules, across_sources=True), decontaminate="drop"
    )
    assert [list(s.train) for s in together.values()] == [[FOX, "a"], ["b"], ["c"]]
    left = together["c"].train
    assert isinstance(left, Texts)
    assert left.size == len("c")  # bytes of this source alone
    assert together["a"].fingerprint == apart["a"].fingerprint
    account = together["c"].cleaned["train"]
    assert (account.samples, account.dropped) == (4, {"near_duplicates": 2, "decontaminate": 1})
    assert together["c"].origin["notes"] == [f"train: {account}"]
    assert list(together["a"].val) == [ENGLISH]


def test_samples_of_several_sources_are_told_apart() -> None:
    rows = {
        "a": labelled(f"{FOX}|a", "x|a"),
        "b": labelled("y|b", f"{FOX}|a"),
        "c": labelled("z|b", "x|a", "w|a"),
    }
    sources = {name: splits(train, labelled("t|a")) for name, train in rows.items()}
    found = cleaned_together(sources, Clean(duplicates=True, across_sources=True))
    assert [list(s.train) for s in found.values()] == [
        rows["a"],
        labelled("y|b"),
        labelled("z|b", "w|a"),
    ]
    assert found["a"] is sources["a"]
    assert found["c"].cleaned["train"].dropped == {"duplicates": 1}
    assert cleaned_together(sources, Clean(duplicates=True)) == sources
    with pytest.raises(DataError, match=r"data.sources.b: .*nothing is left of train"):
        cleaned_together(
            {"a": sources["a"], "b": splits(rows["a"])}, Clean(duplicates=True, across_sources=True)
        )


def test_brief_texts_that_judge_are_taken_out_as_they_are_looked_for() -> None:
    train = ["KING:\nYes, my lord.", "KING:\nNo.", f"KING:\n{FOX}\nNo.", "Never!"]
    before = splits(train, ["KING:\nNo.", "KING:\nOh?", "never!"])
    found = cleaned(before, Clean(), decontaminate=True)
    assert list(found.train) == [train[0], train[2]]
    leaks = leaked("text", {"train": found.train, "val": before.val, "test": before.test})
    assert [(leak.passages, leak.exact) for leak in leaks if leak.other == "train"] == [(3, 0)] * 2
    assert leaked("text", {"train": train, "val": before.val, "test": before.test})[0].exact == 2


def test_what_was_done_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Memory(
        samples=labelled("x|a", "x|a", "schÃ¶n|b"), clean=Clean(duplicates=True, unicode=True)
    )
    first = LABELLED.load(source)
    assert first.origin["notes"] == [
        "train: 1 of 3 samples are left out (1 by duplicates), 1 are changed (1 by unicode)"
    ]
    assert first.origin["cleaned"]["train"]["dropped"] == {"duplicates": 1}
    assert first.cleaned["train"].examples == {"unicode": ["schÃ¶n → b"], "duplicates": ["x → a"]}
    monkeypatch.setattr(Clean, "mended", None)  # it is not cleaned again
    assert LABELLED.load(source) == first


def test_a_cleaning_that_finds_nothing_is_nothing_to_warn_of() -> None:
    found = LABELLED.load(Memory(samples=labelled("x|a", "y|b"), clean=Clean(duplicates=True)))
    assert "notes" not in found.origin
    assert found.cleaned["train"] == Account(2)


def test_what_lies_on_the_disk_stays_there(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        rows = [{"text": f"{name} says {FOX} {i % 3}"} for i in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    files: dict[str, Any] = {
        name: str(tmp_path / f"{name}.jsonl") for name in ("train", "val", "test")
    }
    found = TEXT.load(Files(**files, clean=Clean(duplicates=True)))
    assert isinstance(found.train, Texts)
    assert (len(found.train), len(found.val)) == (3, 5)
    both = TEXT.load(Files(**files, clean=Clean(duplicates=True, splits=("train", "val"))))
    assert len(both.val) == 3


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (TEXT, {"copies": True}, "data.clean.copies is for pairs"),
        (PAIRS, {"conflicts": True}, "data.clean.conflicts is for texts with labels"),
        (PAIRS, {"c4": True}, "data.clean.c4 takes lines out of a text, and .* pairs"),
        (CHATS, {"c4": True}, "data.clean.c4 takes lines out of a text, and .* conversations"),
        (PAIRS, {"languages": ("de",)}, r"give that of the source and that of the target"),
        (PAIRS, {"languages": ("de", "eng")}, r"'eng' is no language .*; did you mean en\?"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(kind: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind.load(Memory(samples=[Pair("a", "b")], clean=Clean(**keys)))


def test_a_missing_package_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"clean.unicode .* pip install truesweep\[clean\]"):
        TEXT.load(Files(train="no such file", clean=Clean(unicode=True)))


def test_a_split_of_which_nothing_is_left_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing is left of train: 1 of 1 texts are left out"):
        left(["a b"], min_words=3)


TWICE = "this long line stands here two times and says it once again"


def _page() -> Iterator[str]:
    words = [*re.findall(r"\w+", "that the river was of a kind to have and to be seen with names")]
    for i in range(12):
        yield " ".join([f"Line{chr(97 + i)}", *words[i:], *words[:i]]) + "."


PAGE = "\n".join(_page())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PAGE, None),
        ("the of " * 20, "words"),
        ("a " * 60, "word_length"),
        (PAGE + " #x" * 30, "hash_signs"),
        (PAGE + " and..." * 30, "ellipses"),
        (PAGE.replace("Line", "- Line"), "bullets"),
        (PAGE.replace(".\n", "…\n"), "ellipsis_lines"),
        (PAGE + " 12345" * 60, "letters"),
        ("Wasser Straße gehen laufen " * 20, "stop_words"),
    ],
)
def test_gophers_rules_of_quality(text: str, fault: str | None) -> None:
    assert gopher(text) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Nothing here is said more than once, or so it seems.", None),
        ("one line\n" * 4, "lines"),
        ("\n".join([*"abcdefgh", TWICE, TWICE]), "lines_characters"),
        (" ".join(f"spam egg w{i}" for i in range(20)), "top_2_gram"),
        (" ".join([TWICE, *(f"filler{i}" for i in range(26)), TWICE]), "repeated_5_grams"),
    ],
)
def test_gophers_rules_against_repetition(text: str, fault: str | None) -> None:
    assert gopher_repetition(text) == fault


def test_c4s_rules() -> None:
    rest = "This line has none at all\nToo short.\nEnable Javascript now please do.\n"
    page = f"This line has a full stop.\n{rest}"
    assert c4_lines(page) == "This line has a full stop.\n"
    assert c4("One. Two! Three?") is None
    assert [c4("One. Two."), c4("f() { a. b. c. }")] == ["sentences", "curly_bracket"]
