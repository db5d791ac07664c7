"""Tokenizers by name: characters, bytes, words, byte-level BPE, or a pretrained one.

All of them are Hugging Face tokenizers, so that an exported folder works anywhere. Encoding adds no
special token by itself here; which tokens stand around a sample is decided in `frames`.
"""

import hashlib
import importlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import transformers
from annotated_types import Ge
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from truesweep.errors import ConfigError, did_you_mean, in_short, refusing
from truesweep.models.folders import adapter_base, gguf_file

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
CLASS_KEY = "truesweep_class"
"""What `save` notes the tokenizer's class under."""
TOKENIZER_CONFIG = "tokenizer_config.json"
SAMPLE = 1 << 30
HARD = (
    "Hello, world! It's 12,345 dogs' 3.5 %.",
    "don't  stop\n\nnow\t ok ",
    "na\u00efve caf\u00e9, \uff21\uff22, \ufb01t, \u4e2d\u6587 <eos> [CLS]",
)
"""Texts that tokenizers split in different ways."""
PLAIN, UNUSUAL = "The quick brown fox jumps over the lazy dog.", "caf\u00e9 \u4e2d\u6587 \U0001f642"
"""What all ways of reading a SentencePiece model agree on, the latter if it falls back to bytes."""


@dataclass(kw_only=True)
class TokenizerConfig(ABC):
    """What a tokenizer is made from.

    Args:
        chat_template: How the tokenizer writes conversations: a Jinja template, or the file that
            holds one. None: as it does by itself.

    Attributes:
        sample: UTF-8 bytes of the training texts that it learns from at most, evenly spread pieces
            of them where there are more; None: all. What is counted of them is held in memory.
        learns: Whether it follows from the training texts.
    """

    sample: ClassVar[int | None] = None
    learns: ClassVar[bool] = True
    chat_template: str | None = None

    @abstractmethod
    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Make the tokenizer, from the texts of the training split where it learns from any."""

    def identity(self) -> dict[str, Any]:
        """What decides the tokens besides the training texts, as JSON values."""
        settings = {**asdict(self), "chat_template": template_of(self)}
        return {"class": type(self).__name__, **_asked(settings)}


@dataclass(kw_only=True)
class Char(TokenizerConfig):
    """One token for each character that the training split has; others become `<unk>`."""

    def build(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Collect the characters of `texts`; ids follow their code points."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        named = [*SPECIALS.values(), *sorted(characters)]
        vocabulary = {token: i for i, token in enumerate(named)}
        # BPE without merges splits into characters several times faster than a regular expression.
        backend = Tokenizer(models.BPE(vocabulary, [], unk_token=SPECIALS["unk_token"]))
        backend.decoder = decoders.Fuse()
        return _fast(backend)


@dataclass(kw_only=True)
class Byte(TokenizerConfig):
    """One token for each of the 256 bytes of UTF-8 text; the id is the byte plus 4."""

    learns = False

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

    sample = SAMPLE

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

    sample = SAMPLE

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
        name_or_path: Folder with the tokenizer's files, a GGUF file, or name of a repository on the
            hub.
        source_language: How a tokenizer of many languages, such as NLLB's, marks the texts that are
            translated: `deu_Latn`. None: as it does by itself.
        target_language: The same for translations.
    """

    learns = False

    name_or_path: str
    source_language: str | None = None
    target_language: str | None = None

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
        self._name_language(tokenizer, "source_language", "src_lang", "text")
        self._name_language(tokenizer, "target_language", "tgt_lang", "text_target")
        return tokenizer

    def _name_language(
        self, tokenizer: PreTrainedTokenizerBase, key: str, attribute: str, argument: str
    ) -> None:
        """Set how the tokenizer marks the texts of one side, where that is asked."""
        language = getattr(self, key)
        if language is None:
            return
        if not hasattr(tokenizer, attribute):
            raise ConfigError(f"tokenizer.{key}={language}: this tokenizer marks no languages")
        with refusing(lambda reason: f"tokenizer.{key}={language}: {reason}"):
            setattr(tokenizer, attribute, language)
            marked = tokenizer(**{argument: "a"})["input_ids"]
        unknown = tokenizer.unk_token_id
        if (
            unknown in marked
            and unknown not in tokenizer("a", add_special_tokens=False)["input_ids"]
        ):
            raise ConfigError(
                f"tokenizer.{key}={language}: the tokenizer has no such language"
                f"{did_you_mean(language, tokenizer.all_special_tokens)}"
            )

    def identity(self) -> dict[str, Any]:
        """A hash of the tokenizer's files, since what a name stands for can change."""
        with tempfile.TemporaryDirectory() as folder:
            self.build(()).save_pretrained(folder)
            digest = hashlib.sha256()
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    digest.update(file.name.encode() + b"\0" + file.read_bytes())
        files = {"sha256": digest.hexdigest(), "chat_template": template_of(self)}
        return {"class": type(self).__name__, **_asked(files)}


def template_of(config: Any) -> str | None:
    """The chat template that a tokenizer's configuration asks for, as Jinja; None: it does not.

    Raises:
        ConfigError: There is no such file.
    """
    given: str | None = getattr(config, "chat_template", None)
    if given is None or "{" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"tokenizer.chat_template={given}: no Jinja template, which has {{{{ … }}}}, and no "
            f"file that could be read ({in_short(error)})"
        ) from None


_ANY = "a ꙮ"
"""A letter that all tokenizers know, and one that hardly any does."""


def load(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub; one that `save` has written, as it was.

    Raises:
        ConfigError: It is not there or cannot be read.
    """
    with refusing(
        lambda reason: (
            f"tokenizer.name_or_path={name_or_path}: no tokenizer could be loaded from there: "
            f"{_lacking(Path(name_or_path)) or reason} Name a folder that holds tokenizer.json, or "
            "a repository of the Hugging Face hub."
        )
    ):
        home = _home(name_or_path)
        kind, gguf = _saved_class(Path(home)) or AutoTokenizer, gguf_file(Path(home))
        loaded: PreTrainedTokenizerBase = kind.from_pretrained(
            str(gguf.parent if gguf else home),
            clean_up_tokenization_spaces=False,
            trust_remote_code=False,
            **({"gguf_file": gguf.name} if gguf else {}),
        )
        loaded.decode(loaded(_ANY)["input_ids"])  # some damage shows when it is used
        _check_pieces(loaded, Path(home))
        if kind is AutoTokenizer and not _words(loaded):  # made up from the model's type alone
            raise ValueError("it holds no vocabulary.")
    return loaded


def _words(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The tokens that stand for text."""
    marks = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), "▁"}
    return tokenizer.get_vocab().keys() - marks


def _home(name_or_path: str | Path) -> str | Path:
    """Where a tokenizer lies: with an adapter that was kept without one, it is its base's."""
    path = Path(name_or_path)
    base = adapter_base(path)
    return base if base and not (path / TOKENIZER_CONFIG).is_file() else name_or_path


def _lacking(folder: Path) -> str:
    """What a folder with nothing but a SentencePiece model needs, if that is not installed."""
    pieces = _pieces(folder)
    if pieces is None or find_spec("sentencepiece"):
        return ""
    return (
        f"{pieces.name} needs the package sentencepiece, which is not installed: "
        "pip install sentencepiece."
    )


def _pieces(folder: Path) -> Path | None:
    """The SentencePiece model that is all a folder has of a tokenizer; None of any other folder."""
    found = [*folder.glob("*.model"), *folder.glob("*.spm")]
    return found[0] if found and not (folder / "tokenizer.json").exists() else None


def _check_pieces(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """See that transformers, which translates SentencePiece models, makes the same tokens of text.

    It translates by the class that a folder names, which may be another one than the model's.

    Raises:
        ConfigError: It makes others.
    """
    pieces = _pieces(folder)
    if pieces is None or not find_spec("sentencepiece"):
        return
    # By name, as it is no dependency.
    processor = importlib.import_module("sentencepiece").SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(pieces))
    except (OSError, RuntimeError):  # of another library, such as tiktoken
        return
    falls_back = any(processor.IsByte(i) for i in range(processor.GetPieceSize()))
    for text in (PLAIN, UNUSUAL) if falls_back else (PLAIN,):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        own, theirs = processor.EncodeAsPieces(text), tokenizer.convert_ids_to_tokens(ids)
        if own != theirs:
            raise ConfigError(
                f"tokenizer.name_or_path: transformers takes {pieces} for a "
                f"{type(tokenizer).__name__} and makes {' '.join(theirs[:5])} … of {text!r}, where "
                f"sentencepiece makes {' '.join(own[:5])} …. Name the class that it is of "
                f"(tokenizer_class in {TOKENIZER_CONFIG}), or a folder with tokenizer.json"
            )


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str | None:
    """Save a tokenizer so that `load` gives the same one, beside whatever model.

    `AutoTokenizer` lets the model's type overrule the class that a folder names: beside a `qwen2`
    it takes any tokenizer for Qwen's and splits text as that does.

    Returns:
        A sentence for those who will load it by `AutoTokenizer` and get another one; None where
        they get the same.

    Raises:
        ConfigError: What `load` gives makes other tokens, so that no figure would hold.
    """
    tokenizer.save_pretrained(folder)
    path = folder / TOKENIZER_CONFIG
    written = json.loads(path.read_text(encoding="utf-8"))
    name = type(tokenizer).__name__
    dump = json.dumps({**written, CLASS_KEY: name}, indent=2, ensure_ascii=False)
    path.write_text(dump + "\n", encoding="utf-8")
    with refusing(lambda reason: f"the tokenizer, a {name}, cannot be used: {reason}"):
        same = _alike(tokenizer, load(folder))
    if not same:
        raise ConfigError(
            f"the tokenizer, a {name}, is another one when it is loaded again: no figure of this "
            "run would hold for what is kept of it. Choose another tokenizer"
        )
    try:
        other = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what others may raise is theirs
        return f"AutoTokenizer cannot load its tokenizer ({in_short(error)}); {name} can"
    if _alike(tokenizer, other):
        return None
    return (
        f"AutoTokenizer takes its tokenizer for a {type(other).__name__}, by the model's type, and "
        f"makes other tokens; load it by transformers.{name}.from_pretrained"
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a tokenizer's vocabulary and of what it makes of texts that are hard.

    It does not depend on how a version of the library writes a tokenizer down.
    """
    ids = [tokenizer(text)["input_ids"] for text in HARD]
    known = json.dumps([sorted(tokenizer.get_vocab().items()), ids])
    return hashlib.sha256(known.encode()).hexdigest()


def _saved_class(folder: Path) -> Any:
    """The class of a tokenizer that this program has saved; None of any other."""
    try:
        written = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = written.get("tokenizer_class") if FRAMING_KEY in written else None  # version 0.1.0
    return getattr(transformers, str(written.get(CLASS_KEY) or ours), None)


def _alike(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers make the same of texts that are hard, and of what they know."""
    if len(first) != len(second):
        return False
    known = first.decode(list(range(min(len(first), 500))))
    return all(first(text)["input_ids"] == second(text)["input_ids"] for text in (*HARD, known))


def _fast(backend: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **SPECIALS,
        **{FRAMING_KEY: FRAMING},
        clean_up_tokenization_spaces=False,
        # A text that contains "<eos>" has five characters there, not the end of the text.
        split_special_tokens=True,
    )


def _asked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without a chat template that is None, as they were before there was the key."""
    return {k: v for k, v in settings.items() if k != "chat_template" or v is not None}


def _byte_token(byte: int) -> str:
    """The printable character that stands for a byte in byte-level tokenizers.

    GPT-2's table: printable Latin-1 stands for itself, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + [b for b in range(256) if b not in printable].index(byte))
