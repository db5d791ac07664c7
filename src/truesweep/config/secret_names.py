"""Which keys and environment variables hold secrets, by their names."""

import re
from itertools import pairwise

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
