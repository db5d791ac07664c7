"""Errors of Hydra, OmegaConf and YAML as one short message with the remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from truesweep.config.origin import Origins
from truesweep.config.redact import redact_override
from truesweep.config.roots import shown
from truesweep.errors import ConfigError, UserError, did_you_mean

# How lines begin that would not help here.
_NOISE = (
    *("See http", "To append to your", "Or add", "Config search path"),
    *("full_key:", "object_type=", "reference_type=", "\t"),
)


@contextmanager
def as_config_errors(overrides: Sequence[str], origins: Origins | None = None) -> Iterator[None]:
    """Turn what composing or resolving raises into a `ConfigError` without secrets."""
    try:
        yield
    except UserError:
        raise
    except (
        HydraException,
        OmegaConfBaseException,
        yaml.YAMLError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        message = explain(error, origins)
        for override in overrides:
            message = message.replace(override, redact_override(override))
        raise ConfigError(message) from None


def explain(error: BaseException, origins: Origins | None = None) -> str:
    """What is wrong, where, and what to do about it, on one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error.missing_cfg_file, error.options or ())
    if isinstance(error, OmegaConfBaseException):
        return _explain_omegaconf(error, origins)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{shown(Path(mark.name))}:{mark.line + 1}: not valid YAML: {error.problem}"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException | yaml.YAMLError) and not str(error).strip():
        return explain(cause, origins)
    return _plain(str(error))


def _explain_missing(config: str, options: Sequence[str]) -> str:
    group, _, option = config.rpartition("/")
    hint = did_you_mean(option, options) or "."
    own = f" Those of your own are found by --config-dir DIR, for DIR/{group}/{option}.yaml."
    return f"{group}={option}: no such option{hint} Options: {', '.join(options) or 'none'}.{own}"


def _explain_omegaconf(error: OmegaConfBaseException, origins: Origins | None) -> str:
    key = error.full_key or ""
    where = origins(key) if origins and key else None
    text = _plain(error.msg or str(error))
    return (f"{key}: " if key else "") + text + (f" ({where})" if where else "")


def _plain(message: str) -> str:
    """The message's own lines, without what only Hydra's or OmegaConf's own users can act on."""
    kept = [line for line in message.splitlines() if not line.lstrip(" ").startswith(_NOISE)]
    text = " ".join(line.strip() for line in kept if line.strip())
    if text.startswith(("Multiple values for", "force-add of config groups")):
        text += " Write GROUP=OPTION without a leading +."
    if text.startswith("Could not override") and text.endswith("."):
        text += " There is no such group."
    return text or "the configuration cannot be composed"
