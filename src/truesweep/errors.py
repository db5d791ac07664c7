"""Errors that a user can cause and can mend; every command turns them into one message."""

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

LONGEST = 1_000
"""Characters of an error that are shown and kept in `status.json`; the whole stands in a log."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says what to change.

    Raised before anything is started, it ends a command with exit code 2.
    """


class ConfigError(UserError):
    """A key, a type, a value or a combination of values in the configuration is wrong."""


class DataError(UserError):
    """A data file is missing, malformed or contradicts another; names the file and the line."""


def nearest(name: str, choices: Iterable[object], most: int = 1) -> list[str]:
    """The choices that are spelt most like a name, the nearest first; none where none is near.

    Up to three that begin with the name are all of them meant: `bf16` is `bf16-mixed` or
    `bf16-true`. One or two letters begin too much for a single one to be meant.
    """
    words = list(dict.fromkeys(map(str, choices)))
    longer = [word for word in words if name and word.startswith(name)]
    meant = (1 if len(name) > 2 else 2) <= len(longer) < 4
    return longer if meant else get_close_matches(name, words, n=most, cutoff=0.6)


def did_you_mean(
    name: str,
    choices: Iterable[object],
    near: Callable[[str, Iterable[str]], list[str]] = nearest,
) -> str:
    """`; did you mean lr?`, to end a sentence about a name that does not exist.

    Args:
        name: The name.
        choices: Those that do.
        near: Finds the nearest of them.

    Returns:
        Nothing where no choice is near.
    """
    found = near(name, [str(choice) for choice in choices])
    return f"; did you mean {' or '.join(found)}?" if found else ""


def missing_package(error: BaseException) -> str | None:
    """The package that an error misses, as pip takes it; None if that is not what it says."""
    asked = re.findall(r"pip install (?:-U )?'?([\w.-]+(?:\[\w+\])?)", str(error))
    if asked:
        return str(asked[-1])
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.partition(".")[0]
    return None


@contextmanager
def refusing(say: Callable[[str], str]) -> Iterator[None]:
    """Turn whatever other packages raise on a user's files and wishes into a `ConfigError`.

    They raise all kinds of errors, and those of a damaged file differ by the byte.

    Args:
        say: The message, given the reason on one line, which ends in a full stop.

    Raises:
        ConfigError: Something was raised that is no error of ours already.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(say(_reason(error))) from error


def _reason(error: Exception) -> str:
    """What an error says, on one line, and what to install if that is all it wants."""
    if package := missing_package(error):
        return f"it needs the package {package}, which is not installed: pip install {package}."
    reason = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError | RuntimeError) or not reason:
        reason = f"{type(error).__name__}: {reason}"
    return f"{reason[:300].rstrip(' .')}."


_REMEDIES = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "Use a folder that you may write to, or may read"
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room, or use another disk"),
    **dict.fromkeys((errno.EFBIG,), "Raise the limit (ulimit -f), or use another disk"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        "Something else stands where a file or a folder is wanted: move it, or name another place",
    ),
    errno.ENAMETOOLONG: "Give it a shorter name",
    errno.ENOENT: "It is needed; restore it, or name another one",
    errno.EIO: "The disk or the network that it lies on has failed",
}
"""What to do about what the operating system says of a file or of a whole disk."""


def describe_os_error(error: OSError) -> str | None:
    """What the operating system refuses, where, and what to do; None if it is of no file."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}. {remedy}."


def in_short(error: BaseException) -> str:
    """What a person reads of an error.

    What other packages raise may hold the output of whole programs.
    """
    text = str(error)
    if not isinstance(error, UserError | RuntimeError):
        text = f"{type(error).__name__}: {text}"
    return shorten(text)


def shorten(text: str) -> str:
    """A text of at most `LONGEST` characters; of a longer one, what tells most stands first."""
    text = text.strip()
    if len(text) <= LONGEST:
        return text
    first, *rest = (line.strip() for line in text.splitlines() if line.strip())
    cut = f"\n… (cut: {len(text):,} characters in all)"
    telling = _names_error(rest)
    told = "\n".join([f"{first}: {telling}" if telling else first, *rest])
    return told[: LONGEST - len(cut)] + cut


def telling_line(text: str) -> str:
    """The line of a program's output that says why it failed; empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _names_error(lines) or (lines[-1] if lines else "")


def _names_error(lines: Sequence[str]) -> str | None:
    """The line of a compiler's first error, from which others follow, or of Python's last."""
    compilers = (line for line in lines if re.search(r"\berror:", line))
    pythons = (line for line in reversed(lines) if re.search(r"\w(Error|Exception): ", line))
    return next(compilers, None) or next(pythons, None)
