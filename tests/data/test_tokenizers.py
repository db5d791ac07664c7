import json
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from truesweep.data.causal import token_bytes
from truesweep.data.encode import encode
from truesweep.data.frames import is_ours
from truesweep.data.tokenizers import Bpe, Byte, Char, Pretrained, TokenizerConfig, Word, load, save
from truesweep.errors import ConfigError

TEXTS = [
    "Hello , world !  It 's two  spaces\n\n\tand don 't join .\r\n",
    "Grüße, 日本語, naïve 🦜🏽 e\u0301 \u2581 ▁word ##ing Ġ",
    "<eos> and <pad><bos> are text here, <unk> too",
    " leading and trailing ",
    "",
]
OURS: list[TokenizerConfig] = [Char(), Byte(), Bpe(vocab_size=300)]


@pytest.mark.parametrize("config", OURS, ids=lambda config: type(config).__name__)
def test_decoding_gives_the_text_back_before_and_after_saving(
    config: TokenizerConfig, tmp_path: Path
) -> None:
    tokenizer = config.build(TEXTS)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert is_ours(loaded)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (0, 1)
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id) == (2, 3)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert not {0, 1, 2, 3} & set(ids)
        assert tokenizer.decode(ids) == text
        assert loaded.encode(text) == ids
        assert loaded.decode(ids) == text
        assert loaded.decode([1, *ids, 2, 0], skip_special_tokens=True) == text


def test_characters_of_the_training_texts_only() -> None:
    tokenizer = Char().build(["bca", "cab"])
    assert len(tokenizer) == 4 + 3
    assert tokenizer.encode("abcX") == [4, 5, 6, 3]


def test_a_tokenizer_that_can_read_known_letters_only(tmp_path: Path) -> None:
    backend = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"WordLevel error: Missing \[UNK\] token"):
        load(tmp_path)


def test_bytes_are_their_own_ids() -> None:
    tokenizer = Byte().build([])
    assert len(tokenizer) == 4 + 256
    assert tokenizer.encode("aß🦜") == [4 + byte for byte in "aß🦜".encode()]
    everything = "".join(map(chr, range(0x250)))
    assert tokenizer.encode(everything) == [4 + byte for byte in everything.encode()]


def test_bpe_learns_what_is_frequent_up_to_its_size() -> None:
    texts = ["low lower lowest newer"] * 5
    assert len(Bpe(vocab_size=260).build(texts)) == 260
    learned = Bpe(vocab_size=270).build(texts)
    assert len(learned) == 270
    assert len(learned.encode("lower")) < 5
    assert len(Bpe(vocab_size=270, min_frequency=100).build(texts)) == 260


@pytest.mark.parametrize("lowercase", [False, True])
def test_words_that_occur_once_are_unknown(lowercase: bool, tmp_path: Path) -> None:
    tokenizer = Word(lowercase=lowercase).build(["red The blue", "red the blue rare"])
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    unknown = tokenizer.unk_token_id
    (row,) = encode(loaded, ["blue The rare red"])
    assert row.tolist() == tokenizer.encode("blue The rare red")
    known = [token != unknown for token in row.tolist()]
    assert known == [True, lowercase, False, True]
    assert is_ours(loaded)
    assert loaded.decode(tokenizer.encode("blue  red")) == "blue red"


def test_bpe_is_the_same_however_the_texts_are_cut() -> None:
    text = "one two three\nfour two one\n" * 3
    whole, lines = (Bpe(vocab_size=280).build(t) for t in ([text], text.splitlines(keepends=True)))
    assert whole.get_vocab() == lines.get_vocab()


@pytest.mark.parametrize("config", OURS, ids=lambda config: type(config).__name__)
def test_bytes_of_tokens_are_those_of_the_text(config: TokenizerConfig) -> None:
    tokenizer = config.build(TEXTS)
    for text in TEXTS:
        ids = np.array(tokenizer.encode(text), dtype=np.int32)
        assert token_bytes(tokenizer, ids) == len(text.encode())


def test_pretrained_pads_with_its_end_of_sequence(pretrained: Callable[..., Path]) -> None:
    folder = pretrained("<s> $A", bos_token="<s>", eos_token="</s>")
    tokenizer = Pretrained(name_or_path=str(folder)).build([])
    assert tokenizer.pad_token == "</s>"
    assert not is_ours(tokenizer)
    assert not tokenizer.clean_up_tokenization_spaces
    assert tokenizer.decode(tokenizer.encode("a , b ."), skip_special_tokens=True) == "a , b ."


def test_pretrained_without_anything_to_pad_with(pretrained: Callable[..., Path]) -> None:
    folder = pretrained("<s> $A", bos_token="<s>")
    with pytest.raises(ConfigError, match="no pad"):
        Pretrained(name_or_path=str(folder)).build([])


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.name_or_path=.*tokenizer\.json"):
        Pretrained(name_or_path=str(tmp_path)).build([])


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_no_tokenizer_is_made_up_from_a_models_type(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(ConfigError, match=r"loaded from there: it holds no vocabulary\. Name a"):
        Pretrained(name_or_path=str(tmp_path)).build(())


def test_identity_follows_the_files_not_the_name(pretrained: Callable[..., Path]) -> None:
    config = Pretrained(name_or_path=str(pretrained("<s> $A", bos_token="<s>", pad_token="<p>")))
    before = config.identity()
    assert config.identity() == before
    pretrained("$A <s>", bos_token="<s>", pad_token="<p>")
    assert config.identity() != before


def test_no_word_about_the_length_of_a_text(
    pretrained: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = pretrained("<s> $A", bos_token="<s>", eos_token="</s>")
    tokenizer = Pretrained(name_or_path=str(folder)).build([])
    tokenizer.model_max_length = 4
    logging.getLogger("transformers").propagate = True
    assert [len(row) for row in encode(tokenizer, ["much too long"])] == [13]
    assert not caplog.records


@pytest.mark.parametrize("kind", [Char, Word, Bpe, Byte])
@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "qwen3_5", "qwen3_5_moe", "phi3", "gpt2", "modernbert"]
)
def test_a_tokenizer_comes_back_whatever_model_it_was_saved_beside(
    kind: type[TokenizerConfig], model_type: str, tmp_path: Path
) -> None:
    texts = ["Say: don't  split 12,345\n\twörds!", "naïve cafés, ½ ﬁt"] * 3
    tokenizer = kind().build(texts)
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    note = save(tokenizer, tmp_path)
    loaded = load(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    as_auto = [auto(text)["input_ids"] == tokenizer(text)["input_ids"] for text in texts]
    assert [loaded(text)["input_ids"] for text in texts] == [
        tokenizer(text)["input_ids"] for text in texts
    ]
    assert loaded.pad_token_id == tokenizer.pad_token_id
    # AutoTokenizer takes the class that belongs to such models, and whoever exports is told.
    assert all(as_auto) or note is not None
    if note is not None:
        assert "load it by transformers.TokenizersBackend.from_pretrained" in note


def test_a_tokenizer_of_version_0_1_0_is_not_taken_for_that_of_the_models_type(
    tmp_path: Path,
) -> None:
    tokenizer = Char().build(["abc def"])
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path)("a b c")["input_ids"] == tokenizer("a b c")["input_ids"]


def test_a_tokenizer_that_cannot_be_had_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Char().build(["xyz"])
    monkeypatch.setattr("truesweep.data.tokenizers.load", lambda folder: other)
    with pytest.raises(ConfigError, match="is another one when it is loaded again"):
        save(Char().build(["abc"]), tmp_path)


def sentencepiece_folder(folder: Path, kind: str, tokenizer_class: str) -> Any:
    """A folder with nothing but SentencePiece's own model, and that model."""
    library = import_module("sentencepiece")
    folder.mkdir()
    library.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the quick brown fox", "jumps over", "the lazy dogs, the foxes"]),
        model_prefix=str(folder / "tokenizer"),
        model_type=kind,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    LlamaConfig(vocab_size=300).save_pretrained(folder)
    named = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, "unk_token": "<unk>"}))
    return library.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_a_sentencepiece_model_makes_its_own_tokens(tmp_path: Path) -> None:
    processor = sentencepiece_folder(tmp_path / "found", "bpe", "LlamaTokenizer")
    tokenizer = load(tmp_path / "found")
    save(tokenizer, tmp_path)
    again = load(tmp_path)
    for text in ("the foxes", "two  spaces\tand\n\nlines ", "na\u00efve \U0001f642 \u4e2d\u6587"):
        ids = processor.Encode(text)
        for one in (tokenizer, again):
            assert one(text, add_special_tokens=False)["input_ids"] == ids
            assert one.decode(ids) == processor.Decode(ids)


def test_a_sentencepiece_model_of_another_class_is_refused(tmp_path: Path) -> None:
    sentencepiece_folder(tmp_path / "found", "unigram", "LlamaTokenizer")
    with pytest.raises(ConfigError, match=r"for a LlamaTokenizer and makes .* sentencepiece makes"):
        load(tmp_path / "found")
