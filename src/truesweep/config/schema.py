"""Check a configuration against the signatures of the targets it names.

A target's parameter names are the keys of its node, its annotations their types and ranges, its
defaults their defaults. All problems are found in one pass and reported together.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from truesweep.config.origin import Origins
from truesweep.config.secrets import is_reference
from truesweep.config.signature import REQUIRED, Parameter, plain_default, signature
from truesweep.config.targets import resolve
from truesweep.config.unknown import hint
from truesweep.config.values import Mismatch, plain
from truesweep.errors import ConfigError

TARGET = "_target_"
GROUPS = (
    "data",
    "tokenizer",
    "model",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
    "callbacks",
    "task",
)
"""The groups with a node of their own; experiments and debug presets only change theirs."""
ROOT: dict[str, Any] = {
    "seed": Annotated[int, Ge(0), Lt(2**32)],
    "name": str | None,
    "allowed_packages": list[str],
}
"""The keys outside all groups."""

Supplied = Mapping[str, Collection[str]]


def check(
    config: Mapping[str, Any],
    *,
    supplied: Supplied | None = None,
    allowed_packages: Collection[str] = (),
    origin: Origins | None = None,
) -> dict[str, Any]:
    """Check a composed configuration, and fill in the defaults of its targets.

    Args:
        config: Plain and resolved. A group is null, a node with a `_target_`, or a mapping of
            names to such nodes or null.
        supplied: Per group (or dotted key of a node), the parameters that the program itself
            passes to the target; they are no keys.
        allowed_packages: Packages whose classes may be named besides those that are always
            allowed and those in `config["allowed_packages"]`.
        origin: Tells where a dotted key came from and where it would belong, for the messages.

    Returns:
        A new configuration, complete: numbers converted, nodes in the order of their signatures.

    Raises:
        ConfigError: With one line for each problem.
    """
    named = config.get("allowed_packages")
    allowed = {*allowed_packages, *(named if isinstance(named, list) else ())}
    checker = _Checker(allowed, supplied or {}, origin.roots if origin else ())
    result = checker.root(config)
    problems = checker.all_problems()
    if problems:
        raise ConfigError("\n".join(_line(key, text, origin) for key, text in problems))
    return result


def check_settings(
    target: Callable[..., Any],
    node: Mapping[str, Any],
    key: str,
    origin: Origins | None = None,
) -> Any:
    """Build what a node without a `_target_` describes, checked against a target's signature.

    Args:
        target: What is built.
        node: Plain and resolved.
        key: The node's dotted key, for the messages.
        origin: As in `check`.

    Raises:
        ConfigError: With one line for each problem.
    """
    checker = _Checker((), {}, origin.roots if origin else ())
    values = checker.fill(key, target, {k: v for k, v in node.items() if k != TARGET})
    problems = checker.all_problems()
    if problems:
        raise ConfigError("\n".join(_line(name, text, origin) for name, text in problems))
    return target(**values)


def _line(key: str, text: str, origin: Origins | None) -> str:
    where = origin(key) if origin else None
    return f"{key}: {text}" + (f" ({where})" if where else "")


class _Checker:
    """One pass over a configuration; collects problems and the keys that exist."""

    def __init__(self, allowed: Collection[str], supplied: Supplied, roots: Sequence[Path]) -> None:
        self._allowed = allowed
        self._supplied = supplied
        self._roots = roots
        self._problems: list[tuple[str, str]] = []
        self._unknown: list[str] = []
        self._known: list[str] = [*ROOT, *GROUPS]

    def all_problems(self) -> list[tuple[str, str]]:
        """The problems, now that all real keys are known for the unknown ones' hints."""
        unknown = [
            (key, hint(key, self._known, self._roots, self._allowed)) for key in self._unknown
        ]
        return [*self._problems, *unknown]

    def root(self, config: Mapping[str, Any]) -> dict[str, Any]:
        result = {}
        for key, value in config.items():
            if key in ROOT:
                result[key] = self._value(key, Parameter(ROOT[key], REQUIRED), value)
            elif key in GROUPS:
                result[key] = self._group(key, value)
            else:
                self._add_unknown(key, value)
        return result

    def _group(self, key: str, node: Any) -> Any:
        if node is None:
            return None
        if not isinstance(node, Mapping):
            self._problems.append((key, f"expected a node with a {TARGET}, found {node!r}"))
            return node
        if TARGET in node:
            return self._node(key, node)
        if not all(item is None or isinstance(item, Mapping) for item in node.values()):
            keys = ", ".join(node)
            self._problems.append((key, f"has no {TARGET}: nothing is chosen that has {keys}"))
            return node
        return {name: self._group(f"{key}.{name}", item) for name, item in node.items()}

    def _node(self, key: str, node: Mapping[str, Any]) -> dict[str, Any]:
        try:
            target = resolve(node[TARGET], self._allowed)
        except ConfigError as error:
            self._problems.append((f"{key}.{TARGET}", str(error)))
            return dict(node)
        return {TARGET: node[TARGET], **self.fill(key, target, node)}

    def fill(self, key: str, target: Any, node: Mapping[str, Any]) -> dict[str, Any]:
        """A target's parameters, from its node or by default."""
        found = signature(target)
        supplied = self._supplied_to(key)
        parameters = {name: item for name, item in found.parameters.items() if name not in supplied}
        self._known += [f"{key}.{name}" for name in parameters]
        result: dict[str, Any] = {}
        for name, parameter in parameters.items():
            self._parameter(key, name, parameter, node, result)
        for name in [name for name in node if name not in parameters and name != TARGET]:
            if name in supplied:
                self._problems.append((f"{key}.{name}", "is set by the program; remove it"))
            elif found.open and not target.__module__.startswith("truesweep."):
                result[name] = self._nested(f"{key}.{name}", node[name])
            else:
                self._add_unknown(f"{key}.{name}", node[name])
        return result

    def _parameter(
        self,
        key: str,
        name: str,
        parameter: Parameter,
        node: Mapping[str, Any],
        result: dict[str, Any],
    ) -> None:
        """Put a parameter's value, or its default, into a node's result."""
        if name in node:
            result[name] = self._value(f"{key}.{name}", parameter, node[name])
        elif parameter.default is REQUIRED:
            self._problems.append((f"{key}.{name}", f"is required; give it as {key}.{name}=VALUE"))
        else:
            writable, value = plain_default(parameter.default)
            if writable:
                result[name] = value

    def _value(self, key: str, parameter: Parameter, value: Any) -> Any:
        if holds_node(value):
            return self._nested(key, value)
        if is_reference(value) or _is_default(parameter, value):
            return value
        try:
            return plain(parameter.annotation, value)
        except Mismatch as error:
            self._problems.append((key, str(error)))
            return value

    def _nested(self, key: str, value: Any) -> Any:
        """Check the nodes inside a value that is not one itself."""
        if isinstance(value, Mapping):
            if TARGET in value:
                return self._node(key, value)
            return {name: self._nested(f"{key}.{name}", item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._nested(f"{key}[{index}]", item) for index, item in enumerate(value)]
        return value

    def _supplied_to(self, key: str) -> set[str]:
        group = key.partition(".")[0]
        return {*self._supplied.get(key, ()), *self._supplied.get(group, ())}

    def _add_unknown(self, key: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                self._add_unknown(f"{key}.{name}", item)
        else:
            self._unknown.append(key)


def _is_default(parameter: Parameter, value: Any) -> bool:
    writable, default = plain_default(parameter.default)
    return writable and type(value) is type(default) and bool(value == default)


def holds_node(value: Any) -> bool:
    """Whether a value is, or contains, a node with a `_target_`."""
    if isinstance(value, Mapping):
        return TARGET in value or any(holds_node(item) for item in value.values())
    return isinstance(value, list) and any(holds_node(item) for item in value)
