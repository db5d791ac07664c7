"""Secrets: which names hold them, how they stay in the environment, how texts lose them.

A configuration holds the name of a variable in a secret's place.
"""

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from truesweep.dotted import leaves, map_leaves
from truesweep.errors import ConfigError

_WORDS = {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_WORDS |= {"apikey", "authorization"}
_KEYS_OF = {"api", "private", "access", "auth", "ssh", "encryption", "signing", "account"}
_TOKENS_OF = {"access", "auth", "hub", "hf", "bearer", "api", "refresh", "session"}
# What a token of text is called; any other `..._token` opens a door.
_TEXT_TOKENS = {"pad", "eos", "bos", "unk", "sep", "cls", "mask", "start", "end", "stop", "begin"}
_TEXT_TOKENS |= {"special", "image", "audio", "video", "next", "new", "first", "last", "current"}
_TEXT_TOKENS |= {"target", "source", "prefix", "suffix", "max", "min", "per", "num", "n", "of"}
_TEXT_TOKENS |= {"word", "blank", "delimiter"}


def is_secret(name: str) -> bool:
    """Whether a dotted key, or the name of an environment variable, names a secret."""
    return any(_is_secret_part(part) for part in re.split(r"[.\[\]/@]+", name))


def _is_secret_part(part: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower().replace("-", "_").split("_")
    if _WORDS.intersection(words):
        return True
    before, last = ["", *words][-2:]
    if last == "token":
        return before not in _TEXT_TOKENS
    if last == "tokens":
        return before in _TOKENS_OF
    pairs = pairwise(words)
    return any(second in ("key", "keys") and first in _KEYS_OF for first, second in pairs)


REFERENCE = re.compile(r"\$\{oc\.env:([^,{}]+)\}")


def is_reference(value: object) -> bool:
    """Whether a value stands for a secret, so that its own type is not known yet."""
    return isinstance(value, str) and REFERENCE.search(value) is not None


def reveal(value: Any, key: str = "") -> Any:
    """Replace every `${oc.env:NAME}` inside a plain value by the environment's text.

    Raises:
        ConfigError: A variable is not set.
    """

    def change(inner: str, leaf: Any) -> Any:
        return _reveal(inner, leaf) if isinstance(leaf, str) else leaf

    return map_leaves(value, change, key)


def _reveal(key: str, text: str) -> str:
    def substitute(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in os.environ:
            raise ConfigError(f"{key}: needs the environment variable {name}, which is not set")
        return os.environ[name]

    return REFERENCE.sub(substitute, text)


REDACTED = "<redacted>"

_REFERENCE_WITH_DEFAULT = re.compile(r"\$\{oc\.env:\s*([^,{}]+?)\s*,\s*([^{}]*)\}")


def redact_override(override: str) -> str:
    """An override without the secret it may carry; a mere reference to a variable stays."""
    key, equals, value = override.partition("=")
    inner = re.findall(r"[\w.-]+(?=['\"]?\s*:)", value)
    if REFERENCE.fullmatch(value.strip("'\"")) or not value:
        return override
    secret = is_secret(key.lstrip("+~ ")) or any(is_secret(name) for name in inner)
    default = any(is_secret(match[1]) for match in _REFERENCE_WITH_DEFAULT.finditer(value))
    return f"{key}{equals}{REDACTED}" if secret or default else override


def redact_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides without the secrets they may carry, for what is written to disk."""
    return [redact_override(override) for override in overrides]


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without the secrets in its overrides and options (`--token X` included).

    An argument in quotes may hold several overrides.
    """
    redacted = [_redact_words(word) for word in argv]
    for index, word in enumerate(argv[:-1]):
        if word.startswith("--") and "=" not in word and is_secret(word.lstrip("-")):
            redacted[index + 1] = REDACTED
    return redacted


def _redact_words(argument: str) -> str:
    """An argument that may hold several overrides, as one of a duel's contenders does."""
    redacted = redact_override(argument)
    with suppress(ValueError):  # no closing quotation: it is one override
        words = shlex.split(argument)
        if redacted == argument and redact_overrides(words) != words:
            return shlex.join(redact_overrides(words))
    return redacted


def scrub(text: str, value: Any = None) -> str:
    """Take secrets out of a text, such as an error message.

    Those are the environment's, by the names of its variables, and those to which a plain value
    refers.
    """
    names = {name for name in os.environ if is_secret(name)}
    names.update(name for _, leaf in leaves(value) for name in REFERENCE.findall(str(leaf)))
    for secret in (os.environ.get(name, "") for name in names):
        # Shorter ones stand in any text by chance.
        text = text.replace(secret, REDACTED) if len(secret) >= 4 else text
    return text
