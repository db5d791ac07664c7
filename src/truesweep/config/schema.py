"""Check a configuration against the signatures of the targets it names.

All problems are found in one pass and reported together.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from truesweep.config.messages import hint
from truesweep.config.origin import Origins
from truesweep.config.overrides import as_text
from truesweep.config.targets import MAKE, NODES, TARGET, holds_node, resolve
from truesweep.config.types import (
    REQUIRED,
    Parameter,
    Schema,
    as_found,
    is_default,
    plain_defaults,
    schema_of,
    settings,
)
from truesweep.errors import ConfigError
from truesweep.secrets import is_reference

GROUPS = (
    "data",
    "tokenizer",
    "model",
    "adapter",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
    "callbacks",
    "task",
)
"""The groups with a node of their own; experiments and debug presets only change theirs."""
ROOT = Schema(
    {
        "seed": Parameter(Annotated[int, Ge(0), Lt(2**32)], default=0),
        "name": Parameter(str | None, default=None),
        "allowed_packages": Parameter(list[str], default=[]),
        **{group: Parameter(Any, default=None) for group in GROUPS},
    }
)
"""The keys outside all groups, and the groups."""

Supplied = Mapping[str, Collection[str]]


def check(
    config: Mapping[str, Any],
    *,
    supplied: Supplied | None = None,
    offered: Supplied | None = None,
    allowed_packages: Collection[str] = (),
    origin: Origins | None = None,
) -> dict[str, Any]:
    """Check a composed configuration, and fill in the defaults of its targets.

    Args:
        config: Plain and resolved. A group is null, a node with a `_target_`, or a mapping of
            names to such nodes or null.
        supplied: Per group (or dotted key of a node), the parameters that the program itself
            passes to the target; they are no keys.
        offered: Likewise, those that the program passes where the configuration does not; they are
            keys, and not required.
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
    checker = _Checker(allowed, supplied or {}, origin.roots if origin else (), offered or {})
    result = checker.root(config)
    checker.refuse(origin)
    return result


def check_settings(target: Callable[..., Any], node: Mapping[str, Any], key: str) -> Any:
    """Build what a node without a `_target_` describes, checked against a target's signature.

    Args:
        target: What is built.
        node: Plain and resolved.
        key: The node's dotted key, for the messages.

    Raises:
        ConfigError: With one line for each problem.
    """
    checker = _Checker((), {}, ())
    values = checker.fill(key, target, {k: v for k, v in node.items() if k != TARGET})
    checker.refuse()
    return target(**values)


class _Checker:
    """One pass over a configuration; collects problems and the keys that exist."""

    def __init__(
        self,
        allowed: Collection[str],
        supplied: Supplied,
        roots: Sequence[Path],
        offered: Supplied | None = None,
    ) -> None:
        self._allowed = allowed
        self._supplied = supplied
        self._offered = offered or {}
        self._roots = roots
        self._problems: list[tuple[str, str]] = []
        self._unknown: list[str] = []
        self._known: list[str] = [*ROOT.parameters]

    def refuse(self, origin: Origins | None = None) -> None:
        """Raise what was found, now that all real keys are known for the unknown ones' hints.

        Raises:
            ConfigError: There are problems.
        """
        unknown = [
            (key, hint(key, self._known, self._roots, self._allowed)) for key in self._unknown
        ]
        lines = []
        for key, text in [*self._problems, *unknown]:
            where = origin(key) if origin else None
            lines.append(f"{key}: {text}" + (f" ({where})" if where else ""))
        if lines:
            raise ConfigError("\n".join(lines))

    def root(self, config: Mapping[str, Any]) -> dict[str, Any]:
        config = _named(config)
        plain = {key: None if key in GROUPS else value for key, value in config.items()}
        return {
            key: self._group(key, config[key]) if key in GROUPS else value
            for key, value in self._fitted("", ROOT, plain).items()
        }

    def _group(self, key: str, node: Any) -> Any:
        if node is None:
            return None
        if not isinstance(node, Mapping):
            self._problems.append((key, f"expected a node with a {TARGET}, found {as_found(node)}"))
            return node
        node = _named(node)
        if TARGET in node:
            return self._node(key, node)
        astray = [n for n, item in node.items() if not (item is None or isinstance(item, Mapping))]
        names = [name for name, item in node.items() if isinstance(item, Mapping)]
        if astray and names:
            self._problems += [
                (
                    f"{key}.{name}",
                    f"of which one? Write {key}.{names[0]}.{name} ({key} has {', '.join(names)})",
                )
                for name in astray
            ]
            return node
        if astray:
            keys = ", ".join(node)
            problem = (
                f"has no {TARGET}: nothing is chosen that has {keys}. Choose an option of {key}; "
                "a file of your own names the one that it changes, as in `defaults: [default]`"
            )
            self._problems.append((key, problem))
            return node
        return {name: self._group(f"{key}.{name}", item) for name, item in node.items()}

    def _node(self, key: str, node: Mapping[str, Any]) -> dict[str, Any]:
        try:
            target = resolve(node[TARGET], self._allowed)
        except ConfigError as error:
            self._problems.append((f"{key}.{TARGET}", str(error)))
            return dict(node)
        return {TARGET: node[TARGET], **self.fill(key, target, node)}

    def fill(
        self, key: str, target: Any, node: Mapping[str, Any], supplied: Collection[str] = ()
    ) -> dict[str, Any]:
        """A target's parameters, from its node or by default.

        Args:
            key: The node's dotted key.
            target: What it describes.
            node: What is given of it.
            supplied: Parameters that are none of the node's, besides those of its group.
        """
        node = _named(node)
        group = key.partition(".")[0]
        supplied = {*supplied, *self._supplied.get(key, ()), *self._supplied.get(group, ())}
        for name in [name for name in node if name in supplied]:
            self._problems.append((f"{key}.{name}", "is set by the program; remove it"))
        schema = schema_of(target, frozenset(supplied))
        self._known += [f"{key}.{name}" for name in schema.parameters]
        given = {k: v for k, v in node.items() if k != TARGET and k not in supplied}
        nodes = getattr(target, NODES, {})
        fitted = self._fitted(f"{key}.", schema, given, nodes)
        whole = plain_defaults(schema.parameters) | fitted
        return {name: whole[name] for name in (*schema.parameters, *fitted) if name in whole}

    def _fitted(
        self,
        prefix: str,
        schema: Schema,
        given: Mapping[str, Any],
        nodes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The given values, numbers converted, the nodes inside them checked."""
        within = {
            name: self.fill(prefix + name, target, value)
            for name, value in given.items()
            if isinstance(value, Mapping)
            and name in schema.parameters
            and (target := settings(schema.parameters[name]))
        }
        given = {**given, **within}
        aside = {name: v for name, v in given.items() if name in within or _stands(schema, name, v)}
        fit = schema.fit({name: value for name, value in given.items() if name not in aside})
        for name in (*schema.parameters, *fit.unknown):
            key = prefix + name
            if name in fit.wrong:
                self._problems.append((key, fit.wrong[name]))
            elif name not in given and self._is_required(schema, prefix, name):
                self._problems.append((key, f"is required; give it as {key}=VALUE"))
            elif name in fit.unknown and "." in name:
                *above, last = key.split(".")
                way = f"keys of a file are nested: write {last} below {'.'.join(above)}:"
                self._problems.append((key, f"has a dot in it; {way}"))
            elif name in fit.unknown:
                self._add_unknown(key, given[name])
        fitted: dict[str, Any] = {}
        for name, value in given.items():
            if type(number := fit.values.get(name)) in (int, float):
                fitted[name] = number
            elif nodes and name in nodes and isinstance(value, Mapping):
                fitted[name] = self._owned(prefix + name, value, nodes[name])
            else:
                fitted[name] = self._nested(prefix + name, value)
        return fitted

    def _owned(self, key: str, nodes: Mapping[str, Any], part: Any) -> dict[str, Any]:
        """Nodes by name that are also of what their owner makes of them; see `targets.NODES`."""
        own, filled = schema_of(part, frozenset({MAKE})).parameters, {}
        for name, node in _named(nodes).items():
            inside = f"{key}.{name}"
            if not isinstance(node, Mapping):
                self._problems.append((inside, f"expected a node, found {as_found(node)}"))
                continue
            try:
                target = resolve(node.get(TARGET, part.TARGET), self._allowed)
            except ConfigError as error:
                self._problems.append((f"{inside}.{TARGET}", str(error)))
                continue
            owner = key.rpartition(".")[0]
            node = _named(node)
            for shared in [name for name in node if name in part.SHARED]:
                self._problems.append(
                    (f"{inside}.{shared}", f"is the same for all; set {owner}.{shared}")
                )
            rest = {k: v for k, v in node.items() if k not in own and k not in part.SHARED}
            filled[name] = {
                TARGET: node.get(TARGET, part.TARGET),
                **self.fill(inside, part, {k: v for k, v in node.items() if k in own}, {MAKE}),
                **self.fill(inside, target, rest, part.SHARED),
            }
        return filled

    def _nested(self, key: str, value: Any) -> Any:
        """Check the nodes inside a value that is not one itself."""
        if isinstance(value, Mapping):
            if TARGET in value:
                return self._node(key, value)
            return {name: self._nested(f"{key}.{name}", item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._nested(f"{key}[{index}]", item) for index, item in enumerate(value)]
        return value

    def _is_required(self, schema: Schema, prefix: str, name: str) -> bool:
        group = prefix.partition(".")[0]
        required = schema.parameters[name].default is REQUIRED
        return required and name not in self._offered.get(group, ())

    def _add_unknown(self, key: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                self._add_unknown(f"{key}.{name}", item)
        else:
            self._unknown.append(key)


def _named(node: Mapping[Any, Any]) -> dict[str, Any]:
    """A node by the names of its keys, where YAML reads `3` as a number and `on` as true."""
    return {key if isinstance(key, str) else as_text(key): value for key, value in node.items()}


def _stands(schema: Schema, name: str, value: Any) -> bool:
    """Whether a value needs no check of its type: a default, a secret, a node to be built."""
    parameter = schema.parameters.get(name)
    if parameter is None:
        return False
    return holds_node(value) or is_reference(value) or is_default(parameter, value)
