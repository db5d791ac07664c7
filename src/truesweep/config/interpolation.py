"""What `${…}` may refer to: every key, defaults included, helper values under `vars`, resolvers.

Secrets are kept out of what comes of it.
"""

import ast
import copy
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from omegaconf import Node, OmegaConf
from omegaconf.errors import InterpolationKeyError
from omegaconf.resolvers import oc

from truesweep import dotted
from truesweep.compat import full_key, replace_resolver
from truesweep.config.targets import TARGET, resolve
from truesweep.config.types import as_found, plain_defaults, signature
from truesweep.dotted import flatten, leaves, map_leaves, nearest_key
from truesweep.errors import ConfigError, did_you_mean
from truesweep.secrets import REFERENCE, is_secret, reveal

VARS = "vars"
"""The node of helper values; they exist for interpolations alone, and are no part of any job."""
RESOLVERS = ("eval", "now", "oc.env", "oc.select", "oc.decode", "oc.dict.keys", "oc.dict.values")

_PREFIX = "TRUESWEEP_SECRET_"
# Stands for a reference while OmegaConf resolves the rest; it cannot occur in YAML.
_MARK = re.compile("\0([^\0]+)\0")
_ABSENT = object()

_STARTED = datetime.now()
_MOST_BITS = 4096
_NOT_FOUND = re.compile(r"Interpolation key '(.+?)' not found")
_REFERENCE = re.compile(rf"\$\{{{VARS}\.([\w.]+)\}}")
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (min, max, round, int, float, abs)
}


def resolve_all(raw: dict[str, Any], replaced: Iterable[Any] = ()) -> dict[str, Any]:
    """A configuration with its interpolations resolved and its secrets kept out of it.

    Args:
        raw: As the files and the command line have it.
        replaced: Values of its files, of which something else may have taken the place; a helper
            value that one of them refers to is not misspelt.

    Raises:
        ConfigError: Nothing refers to one of the helper values.
    """
    _refuse_idle_variables(raw, replaced)
    config = _resolved(raw)
    config.pop(VARS, None)
    return config


def resolve_node(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """One node of a configuration as `resolve_all` resolves it; the others may be unfinished."""
    return _resolved(raw, name).get(name) or {}


def _resolved(raw: dict[str, Any], only: str | None = None) -> dict[str, Any]:
    wanted = raw if only is None else {only: raw.get(only)}
    refers = any(isinstance(leaf, str) and "${" in leaf for _, leaf in leaves(wanted))
    seen = _with_defaults(raw, raw.get("allowed_packages") or ()) if refers else wanted
    replace_resolver("eval", _taking("eval:'2 * (1 + 3)'", evaluate))
    replace_resolver("now", _taking("now:%Y-%m-%d", started))
    with saying_what_is_there(seen):
        return _only(_keeping_secrets(seen, only), wanted)  # type: ignore[no-any-return]


@contextmanager
def saying_what_is_there(seen: Mapping[str, Any]) -> Iterator[None]:
    """Have the error of a reference to a key that is not there say what to do about it.

    Args:
        seen: All that references may lead to.
    """
    try:
        yield
    except InterpolationKeyError as error:
        text = error.msg or str(error)
        error.msg = _NOT_FOUND.sub(lambda found: found[0] + _remedy(found[1], seen), text)
        raise


def _remedy(key: str, seen: Mapping[str, Any]) -> str:
    """What to do about a reference to a key that is not there."""
    if key in RESOLVERS:
        return f"; it takes an argument: ${{{key}:…}}"
    if guess := did_you_mean(key, flatten(seen), nearest_key):
        return guess
    parent = key.rpartition(".")[0]
    there = dotted.get(seen, parent) if parent else None
    if isinstance(there, Mapping) and there:
        return f"; {parent} has {', '.join(name for name in there if name != TARGET)}"
    return f"; truesweep show lists the keys, and {VARS}.NAME=VALUE adds one of your own"


def is_written(key: str, leaf: Any) -> bool:
    """Whether a leaf is a helper value, or stands for another value; a secret's is never told."""
    refers = isinstance(leaf, str) and "${" in leaf
    return (refers or key.startswith(f"{VARS}.")) and not is_secret(key)


def _taking(usage: str, resolver: Callable[[Any], Any]) -> Callable[..., Any]:
    """A resolver of one argument that says how it is used where it is given none or several."""

    def checked(*arguments: Any) -> Any:
        if len(arguments) != 1:
            raise ValueError(
                f"{usage.partition(':')[0]}: takes one argument, in quotes if it has a comma, "
                f"as in ${{{usage}}}"
            )
        return resolver(arguments[0])

    return checked


def started(form: object) -> str:
    """When this process began, in a form such as `%Y-%m-%d`.

    Raises:
        ValueError: The form has something that is no part of a time, or nothing that is.
    """
    codes = re.findall(r"%[-_0^#]?(.)", str(form))
    text = _STARTED.strftime(str(form))
    if not codes or re.search(r"%[-_0^#]?\w", text):
        raise ValueError(
            f"now: {form!r} names no time; write parts of it as in ${{now:%Y-%m-%d_%H-%M-%S}}"
        )
    return text


def evaluate(text: object) -> Any:
    """The value of arithmetic such as `2 * (64 + 1)` or `max(1, 3 // 2)`; runs no code.

    Raises:
        ValueError: It is something else.
    """
    try:
        return _value(ast.parse(str(text).strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"eval: {text!r} is no arithmetic: numbers, + - * / // % ** ( ) and "
            f"{', '.join(_FUNCTIONS)} ({error})"
        ) from None


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right):
            return _operate(op, _value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS[name](*map(_value, arguments))
    raise TypeError(f"{ast.unparse(node)} is not allowed")


def _operate(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Pow) and abs(right) * max(1, int(abs(left)).bit_length()) > _MOST_BITS:
        raise TypeError("the power is too large")
    return _OPERATORS[type(op)](left, right)


def _refuse_idle_variables(raw: Mapping[str, Any], replaced: Iterable[Any]) -> None:
    """A misspelt helper value would leave all as it was."""
    given = raw.get(VARS) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{VARS}: expected a mapping of names to values, found {as_found(given)}")
    text = "\n".join(str(leaf) for leaf in (*(leaf for _, leaf in leaves(raw)), *replaced))
    lacking = [name for name in _REFERENCE.findall(text) if dotted.get(given, name, ...) is ...]
    if lacking:
        known = did_you_mean(lacking[0], flatten(given)) or f"; there is {', '.join(given)}"
        remedy = known if given else f"; {VARS}.{lacking[0]}=VALUE sets it"
        raise ConfigError(f"${{{VARS}.{lacking[0]}}}: there is no {VARS}.{lacking[0]}{remedy}")
    idle = [key for key in flatten(given) if f"{VARS}.{key.partition('.')[0]}" not in text]
    if idle:
        used = [key for key in flatten(given) if key not in idle]
        hint = did_you_mean(idle[0], used)
        raise ConfigError(
            f"{VARS}.{idle[0]}: nothing refers to it, as ${{{VARS}.{idle[0]}}} would{hint}"
        )


def _with_defaults(value: Any, allowed: Collection[str]) -> Any:
    """The same with the defaults of its targets, where they can be written."""
    if isinstance(value, list):
        return [_with_defaults(item, allowed) for item in value]
    if not isinstance(value, Mapping):
        return value
    filled = {name: _with_defaults(item, allowed) for name, item in value.items()}
    return {**_defaults(value.get(TARGET), allowed), **filled}


def _defaults(target: Any, allowed: Collection[str]) -> dict[str, Any]:
    try:
        parameters = signature(resolve(target, allowed)).parameters if target else {}
    except ConfigError:  # said when the configuration is checked
        return {}
    return copy.deepcopy(plain_defaults(parameters))


def _only(value: Any, wanted: Any) -> Any:
    """What was there before the defaults were."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return {name: _only(value[name], wanted[name]) for name in wanted if name in value}
    if isinstance(value, list) and isinstance(wanted, list):
        return [_only(*pair) for pair in zip(value, wanted, strict=True)]
    return value


def _keeping_secrets(config: dict[str, Any], only: str | None = None) -> dict[str, Any]:
    """Resolve OmegaConf's interpolations, except that secrets become `${oc.env:NAME}`.

    A secret that is written out is moved into this process's environment, as
    `TRUESWEEP_SECRET_<KEY>`, which the processes of a job inherit.

    Args:
        config: A plain nested dict.
        only: The one of its nodes that is wanted, by itself in what is returned.
    """
    tree = OmegaConf.create(map_leaves(config, _hide_literal))
    with _marking_secrets():
        if only is None:
            resolved = OmegaConf.to_container(tree, resolve=True)
        else:
            node = tree[only]
            composed = OmegaConf.is_config(node)
            resolved = {only: OmegaConf.to_container(node, resolve=True) if composed else node}
    result = map_leaves(resolved, _refer)
    assert isinstance(result, dict)
    return result


def _hide_literal(key: str, value: Any) -> Any:
    literal = isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)
    if not literal or isinstance(value, bool) or value in ("", "???") or not is_secret(key):
        return value
    return _stash(key, str(value))


def _refer(key: str, value: Any) -> Any:
    """References in the place of marks, and of what only became a literal by interpolation.

    As `Bearer ${oc.env:TOKEN}` does.
    """
    if not isinstance(value, str):
        return value
    value = _MARK.sub(r"${oc.env:\1}", value)
    if not value or not is_secret(key) or REFERENCE.fullmatch(value):
        return value
    return _stash(key, reveal(value, key))


def _stash(key: str, secret: str) -> str:
    name = _PREFIX + re.sub(r"\W+", "_", key).strip("_").upper()
    os.environ[name] = secret
    return f"${{oc.env:{name}}}"


@contextmanager
def _marking_secrets() -> Iterator[None]:
    """Let `oc.env` answer with a mark where the key or the variable's name is secret.

    OmegaConf's resolvers are global, and so is this for as long as it lasts.
    """

    def env(*arguments: Any, _node_: Node) -> Any:
        if len(arguments) not in (1, 2):
            raise ValueError(
                "oc.env: takes the name of an environment variable and, behind a comma, what "
                "stands in its place where it is not set: ${oc.env:NAME,VALUE}"
            )
        name, default = str(arguments[0]), arguments[1] if len(arguments) == 2 else _ABSENT
        if not (is_secret(name) or is_secret(full_key(_node_))):
            return oc.env(name) if default is _ABSENT else oc.env(name, default)
        if name in os.environ or default is _ABSENT:
            return f"\0{name}\0"
        return REFERENCE.sub("\0\\1\0", _stash(name, str(default))) if default else default

    replace_resolver("oc.env", env)
    try:
        yield
    finally:
        replace_resolver("oc.env", oc.env)
