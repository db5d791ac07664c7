import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from truesweep.data.left_out import describe_left_out, left_out
from truesweep.data.samples import Labelled, Pair
from truesweep.data.tokenizers import Bpe, Byte, Char, Pretrained, Word
from truesweep.text import percent


@pytest.mark.parametrize(
    ("samples", "keys", "figures"),
    [
        # A frame of two tokens stands around a text, and the first of its row is no target.
        (["abcdef", "ab"], {"packing": False, "max_length": 4}, (1, 3 / 8)),
        ([Labelled("abcdef", "x"), Labelled("ab", "y")], {"max_length": 4}, (1, 4 / 8)),
        # One token ends each side; of the pair the longer side is cut.
        ([Pair("abcdef", "ab"), Pair("ab", "ab")], {"max_length": 4}, (1, 3 / 12)),
    ],
    ids=["text", "labelled", "pairs"],
)
def test_what_is_cut_is_counted(
    prepared: Callable[..., Any], samples: list[Any], keys: Any, figures: tuple[int, float]
) -> None:
    data, _ = prepared(samples, Byte(), **keys)
    found = left_out(data, "train")
    assert found == {"train/truncated": figures[0], "train/truncated_share": figures[1]}
    rows = len(data.train)
    (sentence,) = describe_left_out(found | {"train/samples": rows}, ["train"], 4)
    assert f"1 of {rows} train samples are longer than data.max_length=4" in sentence
    assert f"{percent(figures[1])} of the split's tokens" in sentence


def test_nothing_is_said_of_what_is_whole(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abcdef"] * 3, packing=False, max_length=8)
    assert left_out(data, "test") == {}
    packed, _ = prepared(["abcdef"] * 3, max_length=2)
    assert left_out(packed, "train") == {}


@pytest.mark.parametrize("tokenizer", [Char(), Word(), Word(lowercase=True)])
def test_a_split_with_unknown_tokens_has_no_bits_per_byte(
    prepared: Callable[..., Any], tokenizer: Any
) -> None:
    # Hexadecimal words of training never come again: all of val would be one unknown token.
    text = "\n".join(f"{i * 2654435761 % 2**32:x}" for i in range(200))
    data, _ = prepared([text], tokenizer, val=["XYZ XYZ"], test=["QRS QRS QRS"])
    assert left_out(data, "val")["val/unknown_share"] > 0.5
    assert "val" not in data.bytes_per_target
    assert any("unknown" in s for s in describe_left_out(left_out(data, "val"), ["val"]))


@pytest.mark.parametrize("tokenizer", [Char(), Byte(), Bpe(vocab_size=270)])
def test_a_tokenizer_that_keeps_the_text_has_bits_per_byte(
    prepared: Callable[..., Any], tokenizer: Any
) -> None:
    data, _ = prepared(["Ab, cd.  ef\n\tgh"] * 3, tokenizer)
    assert all(math.isfinite(data.bytes_per_target[split]) for split in ("train", "val", "test"))


@pytest.mark.parametrize(
    "tokenizer", [Word(min_frequency=1), Word(min_frequency=1, lowercase=True)]
)
def test_words_do_not_hold_the_space_between_them(
    prepared: Callable[..., Any], tokenizer: Any
) -> None:
    data, _ = prepared(["Ab cd\tef"] * 3, tokenizer)
    assert data.stats["val"]["unknown"] == 0
    assert data.bytes_per_target == {}


def saved(backend: Tokenizer, folder: Path, **special: str) -> Pretrained:
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", **special)
    fast.save_pretrained(folder)
    return Pretrained(name_or_path=str(folder))


@pytest.mark.parametrize(
    ("text", "held"),
    [("red blue, red " * 99, True), ("red blue\n\n    red " * 99, False), ("red  blue", False)],
)
def test_white_space_that_a_tokenizer_drops_is_not_held(
    prepared: Callable[..., Any], tmp_path: Path, text: str, held: bool
) -> None:
    pieces = {t: i for i, t in enumerate(["[UNK]", "<pad>", "red", "blue", ",", "."])}
    backend = Tokenizer(WordPiece(pieces, unk_token="[UNK]"))
    backend.pre_tokenizer = BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    data, _ = prepared([text] * 3, saved(backend, tmp_path, unk_token="[UNK]"))
    assert data.stats["val"]["unknown"] == 0
    assert ("val" in data.bytes_per_target) is held


def test_what_is_cut_takes_its_spaces_along(prepared: Callable[..., Any], tmp_path: Path) -> None:
    backend = Tokenizer(WordPiece({t: i for i, t in enumerate(["[UNK]", "<pad>", "red", "blue"])}))
    backend.pre_tokenizer = BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    tokenizer = saved(backend, tmp_path, unk_token="[UNK]")
    data, _ = prepared(["red blue " * 500] * 3, tokenizer, packing=False, max_length=8)
    assert data.bytes_per_target["val"] == pytest.approx(4.5)


def test_characters_that_a_tokenizer_drops_far_behind_are_not_held(
    prepared: Callable[..., Any], tmp_path: Path
) -> None:
    backend = Tokenizer(BPE({c: i for i, c in enumerate(["<pad>", *"abc "])}, []))
    backend.decoder = decoders.Fuse()
    tokenizer = saved(backend, tmp_path)
    data, _ = prepared(["abc " * 5000 + "de" * 9000] * 3, tokenizer)
    assert "val" not in data.bytes_per_target
    data, _ = prepared(["abc " * 5000] * 3, tokenizer)
    assert "val" in data.bytes_per_target


def test_only_texts_are_held_whole(prepared: Callable[..., Any]) -> None:
    text, _ = prepared(["Ab cd"] * 3)
    pairs, _ = prepared([Pair("ab", "ab")] * 3, Byte())
    assert text.lossless == {"train", "val", "test"}
    assert pairs.lossless == set()


def test_what_is_measured_twice_is_said_and_can_be_taken_out(prepared: Callable[..., Any]) -> None:
    rows = [Labelled(f"this is number {i} of all the questions", "ab"[i % 2]) for i in range(20)]
    keys = {"val": rows[:5], "test": [Labelled("another question altogether", "a")]}
    data, _ = prepared(rows, Byte(), decontaminate="warn", **keys)
    assert left_out(data, "val") == {"val/leaked_share": 1.0}
    assert left_out(data, "test") == {}
    (sentence,) = describe_left_out(left_out(data, "val"), ["val"])
    assert sentence.startswith("100 % of val stands in train too")
    swapped = [Labelled(row.text, "ba"[i % 2]) for i, row in enumerate(rows[:2])]
    partly = {**keys, "val": [*rows[5:8], *swapped]}  # memory of another label is no help
    data, _ = prepared(rows, Byte(), decontaminate="warn", **partly)
    assert left_out(data, "val") == {"val/leaked_share": 0.6}
    data, _ = prepared(rows, Byte(), decontaminate="drop", **keys)
    assert left_out(data, "val") == {}
    assert left_out(data, "train") == {"train/dropped": 5}
