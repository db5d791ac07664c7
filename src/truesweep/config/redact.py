"""Take secrets out of overrides, command lines and messages before they are written anywhere."""

import os
import re
from collections.abc import Sequence
from typing import Any

from truesweep.config.secret_names import is_secret
from truesweep.config.secrets import REFERENCE
from truesweep.dotted import map_leaves

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
