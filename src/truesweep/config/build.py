"""Build objects from the nodes of a checked configuration."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from truesweep.config.redact import scrub
from truesweep.config.schema import TARGET, holds_node
from truesweep.config.secrets import is_reference, reveal
from truesweep.config.targets import resolve
from truesweep.config.types import schema_of
from truesweep.errors import ConfigError, UserError

__all__ = ["instantiate", "resolve"]


def instantiate(
    node: Any, key: str = "", allowed_packages: Collection[str] = (), /, **supplied: Any
) -> Any:
    """Build what a node describes, the nodes inside it first.

    Secrets are read from the environment here and nowhere earlier; lists become tuples and text
    paths where the target's annotation asks for it.

    Args:
        node: A node with a `_target_`, a mapping or list of such nodes, or null, which stays None.
        key: The node's dotted key, for messages.
        allowed_packages: As `config["allowed_packages"]`.
        **supplied: Further arguments for this node's target, passed as they are.

    Raises:
        ConfigError: A target is not allowed, a secret is missing, or a constructor failed.
    """
    if isinstance(node, list):
        return [
            instantiate(item, f"{key}[{index}]", allowed_packages)
            for index, item in enumerate(node)
        ]
    if not isinstance(node, Mapping):
        return reveal(node, key)
    built = {
        name: instantiate(item, f"{key}.{name}".lstrip("."), allowed_packages)
        for name, item in node.items()
        if name != TARGET
    }
    if TARGET not in node:
        return built
    name = key or str(node[TARGET])
    try:
        target = resolve(node[TARGET], allowed_packages)
        return target(**_converted(target, node, built), **supplied)
    except UserError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        reason = scrub(f"{type(error).__name__}: {error}", node)
        raise ConfigError(f"{name}: {node[TARGET]} cannot be built ({reason})") from error


def _converted(
    target: Callable[..., Any], node: Mapping[str, Any], built: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments with plain values as the annotations want them.

    Raises:
        ConfigError: A value does not fit.
    """
    schema = schema_of(target)
    plain = {
        name: node[name]
        for name in built.keys() & schema.parameters.keys()
        if not (holds_node(node[name]) or is_reference(node[name]))
        and node[name] != schema.parameters[name].default
    }
    fit = schema.fit(plain)
    if fit.wrong:
        raise ConfigError("; ".join(f"{name}: {text}" for name, text in fit.wrong.items()))
    return {**built, **fit.values}
