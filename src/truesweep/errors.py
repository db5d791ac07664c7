"""Errors that a user can cause and can mend; every command turns them into one message."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says what to change.

    Raised before anything is started, it ends a command with exit code 2.
    """


class ConfigError(UserError):
    """A key, a type, a value or a combination of values in the configuration is wrong."""


class DataError(UserError):
    """A data file is missing, malformed or contradicts another; names the file and the line."""
