"""What a target takes: its signature as a pydantic model, and its types in words.

A target's parameter names are the keys of its node, its annotations their types and ranges, its
defaults their defaults.
"""

import dataclasses
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen, MultipleOf
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)

from truesweep.config.overrides import as_text
from truesweep.errors import did_you_mean

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
        item.name: Parameter(
            _evaluate(item.annotation, names),
            factories[item.name]() if item.name in factories else item.default,
        )
        for item in found
        if item.kind in _KEYWORD
    }
    return Signature(parameters, open=any(item.kind == item.VAR_KEYWORD for item in found))


def plain_default(value: Any) -> tuple[bool, Any]:
    """Whether a default can be written as YAML, and how: tuples as lists, paths as text.

    A dataclass is written as a mapping of its fields.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return True, value
    if isinstance(value, PurePath):
        return True, str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        items = [plain_default(item) for item in value]
        return all(ok for ok, _ in items), [item for _, item in items]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        entries = {key: plain_default(item) for key, item in value.items()}
        return all(ok for ok, _ in entries.values()), {k: v for k, (_, v) in entries.items()}
    return False, None


def plain_defaults(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The defaults that can be written as YAML, as they are written there."""
    plain = {name: plain_default(item.default) for name, item in parameters.items()}
    return {name: value for name, (writable, value) in plain.items() if writable}


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


_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


@dataclasses.dataclass(frozen=True)
class Fit:
    """How values fit parameters.

    Args:
        values: Those that fit, as the annotations want them: lists as tuples, text as paths.
        wrong: What is wrong with the others, by name.
        unknown: Names that are no parameters.
    """

    values: dict[str, Any]
    wrong: dict[str, str]
    unknown: list[str]


class Schema:
    """Parameters as a pydantic model.

    Types are strict (text is no number, a boolean no integer), with three courtesies: an integer
    passes for a number, `1000.0` for an integer, and `1e-4`, which YAML 1.1 reads as text, for a
    number. Annotations with classes that have no plain form are not checked.

    Args:
        parameters: By name.
        open: Whether further names are let pass.
    """

    def __init__(self, parameters: Mapping[str, Parameter], open: bool = False) -> None:
        self.parameters = dict(parameters)
        fields: dict[str, Any] = {
            # pydantic has names of its own, such as `copy`, and none may begin with `_`.
            # None only stands for what was not given; defaults are the target's own.
            f"parameter_{name}": (plain_form(item.annotation), Field(None, alias=name))
            for name, item in parameters.items()
        }
        config = ConfigDict(extra="ignore" if open else "forbid", strict=True)
        self._model: type[BaseModel] = create_model("Node", __config__=config, **fields)

    def fit(self, given: Mapping[str, Any]) -> Fit:
        """Hold plain values against the parameters; what is wrong is told, not raised."""
        try:
            return self._fit(given)
        except ValidationError as error:
            doubtful = {entry["loc"][0] for entry in error.errors()}
        try:
            return self._fit({k: _courtesy(v) if k in doubtful else v for k, v in given.items()})
        except ValidationError as error:
            return self._misfit(error, given)

    def _fit(self, given: Mapping[str, Any]) -> Fit:
        # JSON's rules are YAML's: a list may become a tuple, text a path, and no more.
        checked = self._model.model_validate_json(json.dumps(given, default=str))
        values = {
            name: getattr(checked, f"parameter_{name}") for name in self.parameters if name in given
        }
        return Fit(values, {}, [])

    def _misfit(self, error: ValidationError, given: Mapping[str, Any]) -> Fit:
        kinds: dict[str, str] = {}
        for entry in error.errors():
            name, *inside = entry["loc"]
            kinds.setdefault(str(name), "" if inside else entry["type"])
        unknown = [name for name, kind in kinds.items() if kind == "extra_forbidden"]
        wrong = {
            name: mismatch(self.parameters[name].annotation, given[name])
            for name in kinds
            if name not in unknown
        }
        return Fit({}, wrong, unknown)


@cache
def schema_of(target: Callable[..., Any], supplied: frozenset[str] = frozenset()) -> Schema:
    """The schema of a target's node: its parameters but for those that the program supplies.

    Targets of other packages that take further keywords are open; nothing could check these.
    """
    found = signature(target)
    parameters = {name: item for name, item in found.parameters.items() if name not in supplied}
    return Schema(parameters, found.open and not target.__module__.startswith("truesweep."))


def settings(parameter: Parameter) -> type | None:
    """The class whose signature is that of a node without a `_target_`; None where there is none.

    Such a node is a parameter whose default is a dataclass.
    """
    default = parameter.default
    return type(default) if dataclasses.is_dataclass(default) else None


def is_default(parameter: Parameter, value: Any) -> bool:
    """Whether a plain value is what a parameter has without it."""
    writable, default = plain_default(parameter.default)
    return writable and type(value) is type(default) and bool(value == default)


def mismatch(annotation: Any, value: Any) -> str:
    """What an annotation expects, where a value does not fit."""
    form = plain_form(annotation)
    hint = did_you_mean(value, choices(form)) if isinstance(value, str) else ""
    return f"expected {describe(form)}, found {as_found(value)}{hint}"


def as_found(value: Any) -> str:
    """What stands where something else is wanted, as a user would write it."""
    of_mappings = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return as_text(value) if isinstance(value, dict) or of_mappings else repr(value)


def _courtesy(value: Any) -> Any:
    if isinstance(value, list):
        return [_courtesy(item) for item in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_form(annotation: Any) -> Any:
    """What of an annotation YAML can write: of `float | Tensor` the `float`, of `Tensor` all."""
    form = _written(annotation)
    return form if _has_schema(form) else Any


def _written(annotation: Any) -> Any:
    """Leave out of unions what YAML cannot write."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kept = [form for form in map(_written, args) if _has_schema(form)]
        return Union[tuple(kept)] if kept else annotation  # noqa: UP007
    if origin in (tuple, list):
        return origin[tuple(arg if arg is Ellipsis else _written(arg) for arg in args)]
    return annotation


def _has_schema(annotation: Any) -> bool:
    try:
        return _cached_has_schema(annotation)
    except TypeError:  # An annotation that cannot be hashed, and therefore not be cached.
        return _try_schema(annotation)


def _try_schema(annotation: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_json("null")  # what is not defined yet is missed only here
    except ValidationError:
        return True
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return False
    return True


_cached_has_schema = lru_cache(maxsize=None)(_try_schema)


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
    if dataclasses.is_dataclass(cls):
        return f"a mapping with keys such as {next(iter(signature(cls).parameters))}"
    if issubclass(cls, Mapping):
        return "a mapping"
    if issubclass(cls, Sequence | Set):
        return f"a list, each {describe(args[0])}" if args else "a list"
    return cls.__name__
