from collections.abc import Callable
from pathlib import Path

import pytest

from truesweep.data import encode as module
from truesweep.data.encode import encode, encode_inputs, pieces
from truesweep.data.frames import Frame, input_frame, separator, target_frame
from truesweep.data.tokenizers import Bpe, Byte, Char, Pretrained, TokenizerConfig
from truesweep.errors import ConfigError

TEXT = "".join(f"line {i}, and more    spaces\n" + "\n" * (i % 4) for i in range(40))


@pytest.mark.parametrize("config", [Char(), Byte(), Bpe(vocab_size=400)])
def test_long_texts_are_encoded_in_pieces(
    config: TokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = config.build([TEXT])
    texts = ["short <eos>", "", TEXT, "no end of a line " * 20, "last"]
    whole = [tokenizer.encode(text) for text in texts]
    monkeypatch.setattr(module, "PIECE", 100)
    assert len(list(pieces(TEXT))) > 5
    assert "".join(pieces(TEXT)) == TEXT
    assert [row.tolist() for row in encode(tokenizer, texts)] == whole


def test_pretrained_tokenizers_get_whole_texts(
    pretrained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Pretrained(name_or_path=str(pretrained("$A", eos_token="</s>"))).build([])
    monkeypatch.setattr(module, "PIECE", 100)
    monkeypatch.setattr(module, "pieces", None)  # not to be called
    assert [len(row) for row in encode(tokenizer, [TEXT, "b"])] == [len(TEXT), 1]


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
