"""What a type annotation asks for, in words."""

import types
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen, MultipleOf

_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    None: "null",
    type(None): "null",
    Any: "anything",
}
_BOUNDS = {
    Gt: ("> ", "gt"),
    Ge: (">= ", "ge"),
    Lt: ("< ", "lt"),
    Le: ("<= ", "le"),
    MultipleOf: ("a multiple of ", "multiple_of"),
    MinLen: ("of length >= ", "min_length"),
    MaxLen: ("of length <= ", "max_length"),
}


def describe(annotation: Any) -> str:
    """Describe an annotation: `Annotated[float, Gt(0)] | None` is `a number > 0 or null`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Annotated:
        return _describe_bounds(args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"[{', '.join(describe(arg) for arg in args)}]"
    return _describe_class(origin or annotation, args)


def choices(annotation: Any) -> list[Any]:
    """The values that an annotation lists: those of `Literal`s and of enumerations."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for arg in get_args(annotation) for value in choices(arg)]


def _describe_bounds(args: tuple[Any, ...]) -> str:
    base, *constraints = args
    parts = [part for constraint in constraints for part in _bounds(constraint)]
    return f"{describe(base)} {' and '.join(parts)}".strip()


def _bounds(constraint: Any) -> list[str]:
    if isinstance(constraint, Interval | Len):
        return [part for single in constraint for part in _bounds(single)]
    for kind, (word, attribute) in _BOUNDS.items():
        if isinstance(constraint, kind):
            return [f"{word}{getattr(constraint, attribute)}"]
    return []


def _describe_class(cls: Any, args: tuple[Any, ...]) -> str:
    if not isinstance(cls, type):
        return str(cls)
    if issubclass(cls, Enum):
        return f"one of {', '.join(map(str, choices(cls)))}"
    if issubclass(cls, PurePath):
        return "a path"
    if issubclass(cls, Mapping):
        return "a mapping"
    if issubclass(cls, Sequence | Set):
        return f"a list, each {describe(args[0])}" if args else "a list"
    return cls.__name__
