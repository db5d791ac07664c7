"""What is said of a wrong configuration: which key was meant, where it belongs, what to do."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from truesweep.config.interpolation import RESOLVERS, VARS
from truesweep.config.origin import Origins
from truesweep.config.roots import groups, is_group, options, shown
from truesweep.config.targets import resolve
from truesweep.config.types import signature
from truesweep.dotted import nearest_key
from truesweep.errors import ConfigError, UserError, did_you_mean
from truesweep.secrets import redact_override


def hint(
    key: str,
    known: Collection[str],
    roots: Sequence[Path] = (),
    allowed_packages: Collection[str] = (),
) -> str:
    """Describe an unknown dotted key.

    Args:
        key: The key.
        known: All dotted keys that exist.
        roots: The folders in which groups are looked up.
        allowed_packages: As in `targets.resolve`.
    """
    group = key.partition(".")[0]
    if group in ("experiment", "debug"):  # a file of `sweeps` may be the node itself
        return (
            f"no such key; the {group}'s file lacks `# @package _global_` in its very first line, "
            "without a byte-order mark before it"
        )
    found = owners(key, roots, allowed_packages)
    if found:
        return f"no such key here; it belongs to {' or '.join(f'{group}={o}' for o in found)}"
    parent = key.rpartition(".")[0]
    # What is chosen from, but has no node of its own.
    choices = [] if parent else [VARS, *(name for name in groups(roots) if "/" not in name)]
    guess = did_you_mean(key, dict.fromkeys([*known, *choices]), nearest_key)
    if guess:
        return f"no such key{guess}"
    siblings = [leaf for stem, _, leaf in (k.rpartition(".") for k in known) if stem == parent]
    siblings += [choice for choice in choices if choice not in siblings]
    return f"no such key; {parent or 'the root'} has {', '.join(siblings) or 'no keys'}"


def owners(key: str, roots: Sequence[Path], allowed_packages: Collection[str] = ()) -> list[str]:
    """The options whose targets have a dotted key, such as `files` for `data.train`."""
    group, _, name = key.partition(".")
    return sorted(
        {
            option
            for option, target in _targets(group, roots)
            if _has_key(target, name, allowed_packages)
        }
    )


def _targets(group: str, roots: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for root in roots:
        for path in (root / group).glob("*.yaml"):
            try:
                node = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, OSError, UnicodeDecodeError):
                continue  # Not chosen, so whatever is wrong with it does not matter now.
            if isinstance(node, dict):
                # Files of the global package hold the group's node under its name.
                node = node.get(group, node)
                yield path.stem, node.get("_target_") if isinstance(node, dict) else None


def _has_key(target: Any, name: str, allowed_packages: Collection[str]) -> bool:
    try:
        return name in signature(resolve(target, allowed_packages)).parameters
    except ConfigError:
        return False


# How lines begin that would not help here.
_NOISE = (
    *("See http", "To append to your", "Or add", "Config search path"),
    *("full_key:", "object_type=", "reference_type=", "\t"),
)


@contextmanager
def as_config_errors(
    overrides: Sequence[str], roots: Sequence[Path], origins: Origins | None = None
) -> Iterator[None]:
    """Turn what composing or resolving raises into a `ConfigError` without secrets.

    Args:
        overrides: The command line's.
        roots: The folders in which groups are looked up.
        origins: Tells where a key came from, if that is known yet.
    """
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
        message = explain(error, roots, origins)
        for override in overrides:
            message = message.replace(override, redact_override(override))
        raise ConfigError(message) from None


def explain(
    error: BaseException, roots: Sequence[Path] = (), origins: Origins | None = None
) -> str:
    """What is wrong, where, and what to do about it, on one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error.missing_cfg_file, error.options, roots)
    if isinstance(error, OmegaConfBaseException):
        return _explain_omegaconf(error, origins)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{shown(Path(mark.name))}:{mark.line + 1}: not valid YAML: {error.problem}"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException | yaml.YAMLError) and not str(error).strip():
        return explain(cause, roots, origins)
    if (found := _MERGED.match(str(error))) and isinstance(cause, OmegaConfBaseException):
        why = _UNREADABLE if isinstance(cause, GrammarParseError) else _plain(cause.msg or "")
        return f"{found[1]}: {why}"
    return _plain(str(error), roots)


_MERGED = re.compile(r"Error merging override \+*(.*)")
_UNREADABLE = (
    "an interpolation in it cannot be read; write ${KEY} or, say, ${oc.env:NAME}, and a backslash "
    "before a $ that is meant as it is"
)

PLUGINS = {
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "ray_aws": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
    },
    "hydra/sweeper": {
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
        "optuna": "hydra-optuna-sweeper",
    },
}
"""The packages that bring further options of Hydra's own groups."""


def _explain_missing(config: str, known: Sequence[str] | None, roots: Sequence[Path]) -> str:
    group, _, option = config.rpartition("/")
    names = known or options(group, roots)
    if package := PLUGINS.get(group, {}).get(option):
        return f"{group}={option} needs the package {package}: pip install {package}"
    hint = did_you_mean(option, names) or "."
    own = f" Those of your own are found by --config-dir DIR, for DIR/{group}/{option}.yaml."
    return f"{group}={option}: no such option{hint} Options: {', '.join(names) or 'none'}.{own}"


# The type of what a resolver has raised helps nobody who wrote its input.
_RAISED = re.compile(r"^\w+ (raised )?while resolving interpolation: ")
_UNSET = re.compile(r"\W*Environment variable '(.*)' not found\W*")


def _explain_omegaconf(error: OmegaConfBaseException, origins: Origins | None) -> str:
    key = error.full_key or ""
    where = origins(key) if origins and key else None
    text = _RAISED.sub("", _plain(error.msg or str(error)))
    if unset := _UNSET.fullmatch(text):
        text = (
            f"the environment variable {unset[1]} is not set; set it, or say what stands in its "
            f"place: ${{oc.env:{unset[1]},VALUE}}"
        )
    if type(error) is GrammarParseError:
        text = _UNREADABLE
    if "Recursive interpolation" in text:
        text = "refers to itself, directly or by what it refers to; give it a value of its own"
    if "Unsupported interpolation type" in text:
        text += f"; there are {', '.join(RESOLVERS)}, and ${{eval:'2 * ${{model.width}}'}} computes"
    return (f"{key}: " if key else "") + text + (f" ({where})" if where else "")


def _plain(message: str, roots: Sequence[Path] = ()) -> str:
    """The message's own lines, without what only Hydra's or OmegaConf's own users can act on."""
    kept = [line for line in message.splitlines() if not line.lstrip(" ").startswith(_NOISE)]
    text = " ".join(line.strip() for line in kept if line.strip())
    if text.startswith(("Multiple values for", "force-add of config groups")):
        text += " Write GROUP=OPTION without a leading +."
    if (found := re.match(r"Could not override '([^'@]+)'\.", text)) and text.endswith("."):
        group = found[1]
        text += (
            f" Nothing chooses from this group so far; write +{group}=OPTION."
            if is_group(group, roots)
            else f" There is no such group{did_you_mean(group, groups(roots))}"
        )
    return text or "the configuration cannot be composed"
