"""Tokenizers by name: characters, bytes, words, byte-level BPE, or a pretrained one.

All of them are Hugging Face tokenizers, so that an exported folder works anywhere. Encoding adds no
special token by itself here; which tokens stand around a sample is decided in `frames`.
"""

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from truesweep.errors import ConfigError

# In the order of their ids, which are 0 to 3 in every tokenizer that we make ourselves.
SPECIALS = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
}

# Kept in tokenizer_config.json: a tokenizer of ours is framed the same when it comes back as a
# pretrained one, from an export or from a run's directory.
FRAMING_KEY, FRAMING = "framing", "bos_eos"


class TokenizerConfig(ABC):
    """What a tokenizer is made from."""

    @abstractmethod
    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Make the tokenizer, from the texts of the training split where it learns from any."""

    def identity(self) -> dict[str, Any]:
        """What decides the tokens besides the training texts, as JSON values."""
        return {"class": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]


@dataclass(kw_only=True)
class Char(TokenizerConfig):
    """One token for each character that the training split has; others become `<unk>`."""

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Collect the characters of `texts`; ids follow their code points."""
        characters = sorted(set().union(*texts))
        vocabulary = {token: i for i, token in enumerate([*SPECIALS.values(), *characters])}
        # BPE without merges splits into characters several times faster than a regular expression.
        backend = Tokenizer(models.BPE(vocabulary, [], unk_token=SPECIALS["unk_token"]))
        backend.decoder = decoders.Fuse()
        return _fast(backend)


@dataclass(kw_only=True)
class Byte(TokenizerConfig):
    """One token for each of the 256 bytes of UTF-8 text; the id is the byte plus 4."""

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Make the tokenizer, which needs no texts."""
        alphabet = [_byte_token(byte) for byte in range(256)]
        vocabulary = {token: i for i, token in enumerate([*SPECIALS.values(), *alphabet])}
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        return _fast(backend)


@dataclass(kw_only=True)
class Bpe(TokenizerConfig):
    """Byte-level byte-pair encoding, learned from the training split.

    Args:
        vocab_size: Tokens at most, with the 256 bytes and the 4 special tokens.
        min_frequency: How often a pair must occur to be merged.
    """

    vocab_size: Annotated[int, Ge(260)] = 4000
    min_frequency: Annotated[int, Ge(1)] = 2

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Learn the merges from `texts`, splitting words as GPT-2 does."""
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIALS.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return _fast(backend)


@dataclass(kw_only=True)
class Word(TokenizerConfig):
    """One token for each word between spaces that the training split repeats; others are `<unk>`.

    For classifying short texts: the pieces of a rare word carry associations that are none of its
    own, and `<unk>` carries none. Decoding puts one space between words.

    Args:
        vocab_size: Words at most, with the 4 special tokens.
        min_frequency: How often a word must occur to be kept.
        lowercase: Take upper and lower case for the same.
    """

    vocab_size: Annotated[int, Ge(5)] = 30_000
    min_frequency: Annotated[int, Ge(1)] = 2
    lowercase: bool = False

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Count the words of `texts`."""
        backend = Tokenizer(models.WordLevel(unk_token=SPECIALS["unk_token"]))
        if self.lowercase:
            backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIALS.values()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return _fast(backend)


@dataclass(kw_only=True)
class Pretrained(TokenizerConfig):
    """A tokenizer from a folder or from the Hugging Face hub.

    Args:
        name_or_path: Folder with the tokenizer's files, or name of a repository on the hub.
    """

    name_or_path: str

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Load the tokenizer; one without a pad token pads with its end-of-sequence token.

        Raises:
            ConfigError: There is no such tokenizer, or nothing in it can be used for padding.
        """
        tokenizer = load(self.name_or_path)
        if tokenizer.pad_token is None:
            # Harmless: labels are masked by position, never by the id of the pad token.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ConfigError(
                f"tokenizer.name_or_path={self.name_or_path}: this tokenizer has no pad, "
                "end-of-sequence or unknown token to fill short rows with; name another one"
            )
        return tokenizer

    def identity(self) -> dict[str, Any]:
        """A hash of the tokenizer's files, since what a name stands for can change."""
        with tempfile.TemporaryDirectory() as folder:
            self.build(()).save_pretrained(folder)
            digest = hashlib.sha256()
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return {"class": type(self).__name__, "sha256": digest.hexdigest()}


def load(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub.

    Raises:
        ConfigError: It is not there or cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(  # type: ignore[no-any-return]
            str(name_or_path), clean_up_tokenization_spaces=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"tokenizer.name_or_path={name_or_path}: no tokenizer could be loaded from there; name "
            "a folder that holds tokenizer.json, or a repository of the Hugging Face hub "
            f"({type(error).__name__}: {error})"
        ) from error


def _fast(backend: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **SPECIALS,
        **{FRAMING_KEY: FRAMING},
        clean_up_tokenization_spaces=False,
        # A text that contains "<eos>" has five characters there, not the end of the text.
        split_special_tokens=True,
    )


def _byte_token(byte: int) -> str:
    """The printable character that stands for a byte in byte-level tokenizers.

    GPT-2's table: printable Latin-1 stands for itself, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + [b for b in range(256) if b not in printable].index(byte))
