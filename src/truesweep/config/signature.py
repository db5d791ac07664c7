"""The signature of a target: its keys, their types and their defaults."""

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from typing import Any, get_type_hints

REQUIRED = inspect.Parameter.empty
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One key of a node.

    Args:
        annotation: Its type; `Any` where there is none, or none that can be evaluated.
        default: Its default; `REQUIRED` where there is none.
    """

    annotation: Any
    default: Any


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a target takes.

    Args:
        parameters: By name, in the target's own order.
        open: Whether it takes further keywords, which nothing can check.
    """

    parameters: dict[str, Parameter]
    open: bool


def signature(target: Callable[..., Any]) -> Signature:
    """Read the signature of a class or a function."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # Written in C, without a signature.
        return Signature({}, open=True)
    names = _globals(target)
    factories = _factories(target)
    parameters = {
        item.name: Parameter(_evaluate(item.annotation, names), _default(item, factories))
        for item in found
        if item.kind in _KEYWORD
    }
    return Signature(parameters, open=any(item.kind == item.VAR_KEYWORD for item in found))


def plain_default(value: Any) -> tuple[bool, Any]:
    """Whether a default can be written as YAML, and how: tuples as lists, paths as text."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return True, value
    if isinstance(value, PurePath):
        return True, str(value)
    if isinstance(value, list | tuple):
        items = [plain_default(item) for item in value]
        return all(ok for ok, _ in items), [item for _, item in items]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        entries = {key: plain_default(item) for key, item in value.items()}
        return all(ok for ok, _ in entries.values()), {k: v for k, (_, v) in entries.items()}
    return False, None


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception:  # Some names exist for type checkers only.
        return Any


def _globals(target: Callable[..., Any]) -> dict[str, Any]:
    """The names that the annotations of a target refer to."""
    if not isinstance(target, type):
        return getattr(inspect.unwrap(target), "__globals__", {})
    # A dataclass has an `__init__` that was made elsewhere; its fields are its module's.
    initializer = inspect.unwrap(target.__init__)  # type: ignore[misc]
    names = {} if dataclasses.is_dataclass(target) else getattr(initializer, "__globals__", {})
    return vars(sys.modules[target.__module__]) | names


def _factories(target: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
        return {}
    return {
        field.name: field.default_factory
        for field in dataclasses.fields(target)
        if field.default_factory is not dataclasses.MISSING
    }


def _default(item: inspect.Parameter, factories: dict[str, Callable[[], Any]]) -> Any:
    return factories[item.name]() if item.name in factories else item.default
