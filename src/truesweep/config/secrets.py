"""Secrets: which names hold them, how they stay in the environment, how texts lose them.

A configuration holds the name of a variable in a secret's place.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from omegaconf import Node, OmegaConf
from omegaconf.resolvers import oc

from truesweep.compat import full_key, replace_resolver
from truesweep.dotted import map_leaves
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


PREFIX = "TRUESWEEP_SECRET_"

REFERENCE = re.compile(r"\$\{oc\.env:([^,{}]+)\}")
# Stands for a reference while OmegaConf resolves the rest; it cannot occur in YAML.
_MARK = re.compile("\0([^\0]+)\0")
_ABSENT = object()


def is_reference(value: object) -> bool:
    """Whether a value stands for a secret, so that its own type is not known yet."""
    return isinstance(value, str) and REFERENCE.search(value) is not None


def resolve_keeping_secrets(config: dict[str, Any]) -> dict[str, Any]:
    """Resolve OmegaConf's interpolations, except that secrets become `${oc.env:NAME}`.

    A secret that is written out is moved into this process's environment, as
    `TRUESWEEP_SECRET_<KEY>`, which the processes of a job inherit.
    """
    hidden = map_leaves(config, _hide_literal)
    with _marking_secrets():
        resolved = OmegaConf.to_container(OmegaConf.create(hidden), resolve=True)
    plain = map_leaves(resolved, lambda _key, value: _unmark(value))
    result = map_leaves(plain, _hide_rest)
    assert isinstance(result, dict)
    return result


def reveal(value: Any, key: str = "") -> Any:
    """Replace every `${oc.env:NAME}` inside a plain value by the environment's text.

    Raises:
        ConfigError: A variable is not set.
    """

    def change(inner: str, leaf: Any) -> Any:
        return _reveal(inner, leaf) if isinstance(leaf, str) else leaf

    return map_leaves(value, change, key)


def _hide_literal(key: str, value: Any) -> Any:
    literal = isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)
    if not literal or isinstance(value, bool) or value in ("", "???") or not is_secret(key):
        return value
    return _stash(key, str(value))


def _hide_rest(key: str, value: Any) -> Any:
    """Hide what only became a literal by interpolation, as in `Bearer ${oc.env:TOKEN}`."""
    if not isinstance(value, str) or not is_secret(key) or REFERENCE.fullmatch(value):
        return value
    return _stash(key, _reveal(key, value)) if value else value


def _stash(key: str, secret: str) -> str:
    name = PREFIX + re.sub(r"\W+", "_", key).strip("_").upper()
    os.environ[name] = secret
    return f"${{oc.env:{name}}}"


def _reveal(key: str, text: str) -> str:
    def substitute(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in os.environ:
            raise ConfigError(f"{key}: needs the environment variable {name}, which is not set")
        return os.environ[name]

    return REFERENCE.sub(substitute, text)


def _unmark(value: Any) -> Any:
    return _MARK.sub(r"${oc.env:\1}", value) if isinstance(value, str) else value


@contextmanager
def _marking_secrets() -> Iterator[None]:
    """Let `oc.env` answer with a mark where the key or the variable's name is secret.

    OmegaConf's resolvers are global, and so is this for as long as it lasts.
    """

    def env(name: str, default: Any = _ABSENT, *, _node_: Node) -> Any:
        if not (is_secret(name) or is_secret(full_key(_node_))):
            return oc.env(name) if default is _ABSENT else oc.env(name, default)
        if name in os.environ or default is _ABSENT:
            return f"\0{name}\0"
        return REFERENCE.sub("\0\\1\0", _stash(name, str(default))) if default else default

    replace_resolver("oc.env", env)
    try:
        yield
    finally:
        replace_resolver("oc.env", oc.env)


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
    """A command line without the secrets in its overrides and options (`--token X` included)."""
    redacted = redact_overrides(argv)
    for index, word in enumerate(argv[:-1]):
        if word.startswith("--") and "=" not in word and is_secret(word.lstrip("-")):
            redacted[index + 1] = REDACTED
    return redacted


def scrub(text: str, value: Any = None) -> str:
    """Take secrets out of a text, such as an error message.

    Those are the environment's, by the names of its variables, and those to which a plain value
    refers.
    """
    names = {name for name in os.environ if is_secret(name)}
    map_leaves(value, lambda _key, leaf: names.update(REFERENCE.findall(str(leaf))))
    for secret in (os.environ.get(name, "") for name in names):
        # Shorter ones stand in any text by chance.
        text = text.replace(secret, REDACTED) if len(secret) >= 4 else text
    return text
