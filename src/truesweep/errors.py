"""Errors that a user can cause and can mend; every command turns them into one message."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


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

    Two or three that begin with the name are all of them meant: `bf16` is `bf16-mixed` or
    `bf16-true`.
    """
    words = [str(choice) for choice in choices]
    longer = [word for word in words if name and word.startswith(name)]
    return longer if 1 < len(longer) < 4 else get_close_matches(name, words, n=most, cutoff=0.6)


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
