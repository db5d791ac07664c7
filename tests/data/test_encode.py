import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from truesweep.data import encode as module
from truesweep.data.encode import Encoder, encode, encode_inputs
from truesweep.data.frames import Frame, input_frame, separator, target_frame
from truesweep.data.texts import pieces
from truesweep.data.tokenizers import Bpe, Byte, Char, Pretrained, TokenizerConfig, Word
from truesweep.errors import ConfigError

TEXT = "".join(f"line {i}, and more    spaces\n" + "\n" * (i % 4) for i in range(40))
WORDS = "It's one, two;  3.14 \u4e2d\u6587\u3002 na\u00efve <eos>\tend! "
TEXTS = {
    "LF": TEXT,
    "CRLF": TEXT.replace("\n", "\r\n"),
    "no line ends": WORDS * 40,
    "blank lines": (WORDS + "\n\n \r\n") * 30,
}
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3 = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
PREFIXED = pre_tokenizers.ByteLevel(add_prefix_space=True)
METASPACE = pre_tokenizers.Metaspace()
BERT = pre_tokenizers.BertPreTokenizer()


def shorten_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("encode", "texts"):
        monkeypatch.setattr(f"truesweep.data.{place}.PIECE", 100)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("config", [Char(), Byte(), Bpe(vocab_size=400), Word()])
def test_long_texts_are_encoded_in_pieces(
    config: TokenizerConfig, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = config.build([text])
    texts = ["short <eos>", "", text, "no end of a line " * 20, "last"]
    whole = [tokenizer.encode(text) for text in texts]
    shorten_pieces(monkeypatch)
    assert len(list(pieces(text))) > 5
    assert "".join(pieces(text)) == text
    assert [row.tolist() for row in encode(tokenizer, texts)] == whole
    assert len(list(Encoder(tokenizer)._pieces(text))) > 5


def test_characters_may_be_cut_where_there_is_no_white_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "ACGT" * 1000
    shorten_pieces(monkeypatch)
    for config, most in ((Char(), 101), (Byte(), 101), (Bpe(vocab_size=300), 4000)):
        tokenizer = config.build([text])
        assert max(map(len, Encoder(tokenizer)._pieces(text))) <= most
        assert next(encode(tokenizer, [text])).tolist() == tokenizer.encode(text)


@pytest.mark.parametrize("words", [["x" * 70_000], ["ab", "x" * 7000, "c", "y" * 30_000, "d e"]])
def test_what_has_no_white_space_is_cut_anywhere_in_the_end(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(words)
    shorten_pieces(monkeypatch)
    assert max(map(len, pieces(text))) >= min(30_000, len(text))  # as long as that is bearable
    cut = list(pieces(text, longest=1000))
    assert "".join(cut) == text
    assert max(map(len, cut)) <= 1200
    assert len(cut) < len(text) / 500


def test_a_place_to_cut_is_found_however_long_ago_the_last_one_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten_pieces(monkeypatch)
    for seam in module._SEAMS:
        for length in range(290, 310):  # the place is around the end of what is read at once
            assert next(pieces("x" * length + " y" + "z" * 300, seam)) == "x" * length


def test_each_character_is_looked_at_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    class Nowhere:
        def finditer(self, text: str, start: int) -> Iterator[re.Match[str]]:
            nonlocal looked
            looked += len(text) - start
            return iter(())

    shorten_pieces(monkeypatch)
    text = "x" * 100_000
    assert "".join(pieces(text, cast(Any, Nowhere()))) == text
    assert len(text) / 2 < looked < 4 * len(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("splits", "seam"),
    [(GPT2, 0), (BERT, 0), (LLAMA3, 1), (PREFIXED, 2), (METASPACE, 2)],
    ids=["GPT-2", "BERT", "Llama 3", "prefix", "metaspace"],
)
def test_long_texts_are_cut_where_a_pretrained_tokenizer_cuts(
    splits: Any, seam: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = trained(splits, text)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    shorten_pieces(monkeypatch)
    encoder = Encoder(tokenizer)
    assert len(list(encoder._pieces(text))) > 5
    assert encoder.seam("") is module._SEAMS[seam]
    assert next(encode(tokenizer, [text])).tolist() == whole


@pytest.mark.parametrize("joined", ["no pre-tokenizer", "an added token"])
def test_long_texts_stay_whole_where_a_tokenizer_joins_across_white_space(
    joined: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = trained(None if joined == "no pre-tokenizer" else GPT2, TEXT)
    if joined == "an added token":
        tokenizer.add_tokens(AddedToken("spaces\n", normalized=False))
    whole = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    shorten_pieces(monkeypatch)
    assert list(Encoder(tokenizer)._pieces(TEXT)) == [TEXT]
    assert not caplog.messages
    monkeypatch.setattr(module, "WHOLE", 100)
    assert list(Encoder(tokenizer)._pieces(TEXT)) == [TEXT]
    assert "joins text across white space" in caplog.text
    assert next(encode(tokenizer, [TEXT])).tolist() == whole


def trained(splits: Any, text: str) -> PreTrainedTokenizerFast:
    """A tokenizer of others, which splits text like that."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if splits is None:
        backend.normalizer = normalizers.Replace(" ", "\u2581")
    else:
        backend.pre_tokenizer = splits
    trainer = trainers.BpeTrainer(
        vocab_size=600, min_frequency=1, special_tokens=["<unk>"], show_progress=False
    )
    backend.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_ours_are_framed_by_kind() -> None:
    tokenizer = Char().build(["ab"])
    assert input_frame(tokenizer, "text") == Frame((1,), (2,))
    assert input_frame(tokenizer, "labelled") == Frame((1,), (2,))
    assert input_frame(tokenizer, "pairs") == target_frame(tokenizer) == Frame((), (2,))
    assert separator(tokenizer) == (2,)


@pytest.mark.parametrize(
    ("template", "text", "target"),
    [
        ("$A", Frame(), Frame((), (1,))),  # as GPT-2
        ("<s> $A", Frame((0,)), Frame((0,), (1,))),  # as Llama
        ("$A </s>", Frame((), (1,)), Frame((), (1,))),  # as T5
        ("<s> $A </s>", Frame((0,), (1,)), Frame((0,), (1,))),  # as BART
    ],
)
def test_pretrained_are_framed_as_they_frame_themselves(
    pretrained: Callable[..., Path], template: str, text: Frame, target: Frame
) -> None:
    folder = pretrained(template, bos_token="<s>", eos_token="</s>")
    tokenizer = Pretrained(name_or_path=str(folder)).build([])
    assert input_frame(tokenizer, "text") == input_frame(tokenizer, "labelled") == text
    assert input_frame(tokenizer, "pairs") == target_frame(tokenizer) == target


def test_a_translation_has_to_end(pretrained: Callable[..., Path]) -> None:
    folder = pretrained("<s> $A", bos_token="<s>", pad_token="<pad>")
    tokenizer = Pretrained(name_or_path=str(folder)).build([])
    with pytest.raises(ConfigError, match="end-of-sequence"):
        target_frame(tokenizer)


def test_new_texts_are_encoded_as_in_training() -> None:
    tokenizer = Char().build(["abc"])
    assert encode_inputs(tokenizer, "pairs", ["abc"], 3) == [[4, 5, 2]]
    assert encode_inputs(tokenizer, "labelled", ["abc"], 4) == [[1, 4, 5, 2]]
    assert encode_inputs(tokenizer, "text", ["abc", ""], 9) == [[1, 4, 5, 6], [1]]
    assert encode_inputs(tokenizer, "text", ["abc", ""], 2, packing=True) == [[5, 6], [2]]
