from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from truesweep.data.ragged import Ragged, RaggedWriter
from truesweep.data.samples import Labelled, Pair
from truesweep.data.tokenizers import Bpe, Byte, Char, Pretrained, fingerprint
from truesweep.errors import DataError
from truesweep.models.tokens import token_fields


def entries(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "tokens").iterdir())


def test_an_entry_serves_every_way_of_cutting(
    prepared: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(["abcdefgh", "ij"])
    written = entries(tmp_path)

    def forbidden(*args: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr("truesweep.data.token_cache.Encoder", forbidden)
    for keys in ({"max_length": 3}, {"packing": False}, {"batch_size": 2, "max_length": 2}):
        prepared(["abcdefgh", "ij"], **keys)
    assert entries(tmp_path) == written
    with pytest.raises(AssertionError, match="again"):
        prepared(["abcdefgh", "iJ"])


def test_other_data_tokenizers_and_kinds_have_entries_of_their_own(
    prepared: Callable[..., Any], tmp_path: Path
) -> None:
    prepared(["abab"])
    prepared(["abab"], Byte())
    prepared(["abab"], Bpe(vocab_size=261))
    prepared(["abab"], Bpe(vocab_size=262))
    prepared(["abab"], val=["ba"])
    prepared([Labelled("ab", "ab")])
    prepared([Pair("ab", "ab")])
    assert len(entries(tmp_path)) == 7


def test_a_vocabulary_with_a_gap_has_a_place_for_its_last_token(
    prepared: Callable[..., Any], tmp_path: Path
) -> None:
    backend = Tokenizer(WordLevel({"a": 0, "b": 1, "<pad>": 2, "c": 258}, unk_token="<pad>"))
    backend.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path / "gap")
    data, _ = prepared(["a b c c"], Pretrained(name_or_path=str(tmp_path / "gap")))
    assert data.train.stream[:4].tolist() == [0, 1, 258, 258]
    assert data.classes == token_fields(data.tokenizer)["vocab_size"] == 259


def test_a_damaged_entry_is_encoded_again(prepared: Callable[..., Any], tmp_path: Path) -> None:
    before, _ = prepared(["abcdefgh"])
    (entry,) = entries(tmp_path)
    file = tmp_path / "cache" / "tokens" / entry / "train.text.tokens.bin"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    damaged.replace(file)
    after, _ = prepared(["abcdefgh"])
    assert (after.train.stream == before.train.stream).all()


def test_tokens_stay_on_disk(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abcdefgh"])
    array = data.train.stream
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)
    assert data.train.stream.dtype == np.uint16


def test_tokens_are_counted_without_being_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("truesweep.data.ragged._AT_ONCE", 3)
        patched.delattr("truesweep.data.ragged._mapped")
        with RaggedWriter(tmp_path, "text", 9, (8,)) as writer:
            writer.add(0, np.array([1, 2, 2, 5]))
            writer.add(2, np.array([1]))
            writer.finish(3)
    assert Ragged.load(tmp_path, "text").counts.tolist() == [0, 2, 2, 0, 0, 1, 0, 0, 3]


def test_what_was_encoded_before_a_kill_is_kept(
    prepared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"line {i} of a text\n" * (i + 1) for i in range(40)]
    whole, _ = prepared(texts, Bpe(vocab_size=300))
    monkeypatch.setattr("truesweep.data.texts.PIECE", 60)
    monkeypatch.setattr("truesweep.data.encode.BATCH", 200)
    monkeypatch.setattr("truesweep.data.token_cache.PART", 2)
    monkeypatch.setattr("truesweep.data.token_cache.VERSION", 0)  # an entry of its own
    written: list[int] = []
    built: list[Bpe] = []
    add, build = RaggedWriter.add, Bpe.build

    def killed_after(most: int) -> Callable[..., None]:
        def adding(writer: RaggedWriter, row: int, tokens: Any) -> None:
            if sum(written) > most:
                raise KeyboardInterrupt
            written.append(len(tokens))
            add(writer, row, tokens)

        return adding

    def counted(config: Bpe, texts: Any) -> Any:
        built.append(config)
        return build(config, texts)

    monkeypatch.setattr(Bpe, "build", counted)
    tokens = sum(stats["tokens"] for stats in whole.stats.values())
    for share in (0.2, 0.5, 0.9):
        monkeypatch.setattr(RaggedWriter, "add", killed_after(int(share * tokens)))
        with pytest.raises(KeyboardInterrupt):
            prepared(texts, Bpe(vocab_size=300))
    monkeypatch.setattr(RaggedWriter, "add", killed_after(10 * tokens))
    data, _ = prepared(texts, Bpe(vocab_size=300))
    for split in ("train", "val", "test"):
        assert (data.datasets[split].stream == whole.datasets[split].stream).all()
    assert len(built) == 1
    part = 2 * 300  # characters
    assert tokens < sum(written) < tokens + 3 * part


def test_how_far_the_tokens_are_is_said_now_and_then(
    prepared: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("truesweep.data.encode.BATCH", 100)
    monkeypatch.setattr("truesweep.data.token_cache.BATCH", 100)
    prepared(["a" * 50] * 10)
    assert not capsys.readouterr().err
    monkeypatch.setattr("truesweep.data.token_cache.SECONDS_UNTOLD", -1.0)
    prepared(["b" * 50] * 10)
    told = capsys.readouterr().err.splitlines()
    assert told[:5] == [f"tokenizing train: {n} %" for n in (20, 40, 60, 80, 100)]
    assert "tokenizing val: 20 %" in told


def test_what_a_run_records(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["äbc", "d"], max_length=2)
    assert data.stats["train"] == {
        "samples": 2,
        "rows": 2,
        "tokens": 4,
        "unknown": 0,
        "bytes": 5,
        "longest": 2,
        "truncated": 0,
        "cut": 0,
        "without_target": 0,
    }
    assert data.origin == {
        "from": "memory",
        "fingerprint": data.fingerprint,
        "tokenizer": fingerprint(data.tokenizer),
    }
    assert len(data.fingerprint) == 64
    assert set(data.bytes_per_target) == set(data.datasets) == {"train", "val", "test"}
    assert data.classes == len(data.tokenizer) == 8


def test_a_run_s_tokenizer_encodes_other_data_the_same(
    prepared: Callable[..., Any], tmp_path: Path
) -> None:
    first, _ = prepared(["abc"], packing=False)
    first.tokenizer.save_pretrained(tmp_path / "run")
    again = Pretrained(name_or_path=str(tmp_path / "run"))
    second, _ = prepared(["cab"], again, packing=False)
    assert second.train.collate([0])["labels"].tolist() == [[6, 4, 5, 2]]


def test_classes_that_a_trained_model_does_not_know_are_named(prepared: Callable[..., Any]) -> None:
    with pytest.raises(
        DataError, match=r"model does not know: 'w' \(1 times\); it knows 'x', 'y'\. .*labels"
    ):
        prepared([Labelled("a", "w")], labels=["x", "y"])


def test_the_labels_of_a_trained_model_stay(prepared: Callable[..., Any]) -> None:
    data, _ = prepared([Labelled("a", "y")], labels=["x", "y", "z"])
    assert data.labels == ["x", "y", "z"]
    assert data.train.collate([0])["labels"].tolist() == [1]
    assert data.target_counts.tolist() == [0, 1, 0]


def test_labels_that_read_alike_are_told(prepared: Callable[..., Any]) -> None:
    names = ["pos", "Pos", "caf\u00e9", "cafe\u0301", "\u200bneg", "neg", "other"]
    data, _ = prepared([Labelled("a", name) for name in names])
    assert [note.partition(" differ in case")[0] for note in data.notes] == [
        "the labels 'Pos', 'pos'",
        r"the labels 'cafe\u0301', 'caf\xe9'",
        r"the labels 'neg', '\u200bneg'",  # U+200B does not show
    ]


def test_fewer_windows_than_a_batch(prepared: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"2 windows of data\.max_length=4.*data\.batch_size=3"):
        prepared(["abcdefgh"], max_length=4, batch_size=3)


def test_fewer_samples_than_a_batch(prepared: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"2 samples.*data\.batch_size=3; set a smaller"):
        prepared([Labelled("a", "x"), Labelled("b", "y")], batch_size=3)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("packing", [True, False])
def test_an_empty_split(prepared: Callable[..., Any], split: str, packing: bool) -> None:
    with pytest.raises(DataError, match=rf"the {split} split is empty"):
        prepared(["abc"], Char(), packing=packing, **{split: []})


def test_a_split_in_which_nothing_is_predicted(prepared: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="the val split is empty"):
        prepared(["abc"], val=["a"])


def test_a_class_that_training_does_not_have(prepared: Callable[..., Any]) -> None:
    train = [Labelled("a", "x"), Labelled("b", "y")]
    with pytest.raises(DataError, match=r"the test split .*'new' \(2 times\).*known are 'x', 'y'"):
        prepared(train, test=[Labelled("a", "new"), Labelled("c", "new"), train[0]])
