"""Check and convert a value from YAML against the annotation of the parameter it is meant for."""

import json
import re
import types
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from truesweep.config.describe import choices, describe
from truesweep.config.names import nearest

_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class Mismatch(ValueError):
    """A value that does not fit its annotation; the message says what would."""


def convert(annotation: Any, value: Any) -> Any:
    """Convert a plain value to what an annotation asks for, lists to tuples and text to paths.

    Types are strict (text is no number, a boolean no integer), with three courtesies: an integer
    passes for a number, `1000.0` for an integer, and `1e-4`, which YAML 1.1 reads as text, for a
    number. Annotations with classes that have no plain form are not checked.

    Raises:
        Mismatch: The value has another type, is out of bounds or none of the choices.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return value
    for candidate in (value, _courtesy(value)):
        try:
            # JSON's rules are YAML's: a list may become a tuple, text a path, and no more.
            return adapter.validate_json(json.dumps(candidate, default=str), strict=True)
        except ValidationError:
            continue
    raise Mismatch(_message(annotation, value))


def plain(annotation: Any, value: Any) -> Any:
    """The value as a checked configuration holds it: numbers converted, all else as given.

    Raises:
        Mismatch: As `convert`.
    """
    converted = convert(annotation, value)
    return converted if type(converted) in (int, float) else value


def _message(annotation: Any, value: Any) -> str:
    plain_form = _plain_form(annotation)
    guess = nearest(value, choices(plain_form)) if isinstance(value, str) else None
    hint = f"; did you mean {guess}?" if guess else ""
    return f"expected {describe(plain_form)}, found {value!r}{hint}"


def _courtesy(value: Any) -> Any:
    if isinstance(value, list):
        return [_courtesy(item) for item in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # An annotation that cannot be hashed, and therefore not be cached.
        return _make_adapter(annotation)


def _make_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(_plain_form(annotation))
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return None


_cached_adapter = lru_cache(maxsize=None)(_make_adapter)


def _plain_form(annotation: Any) -> Any:
    """Leave out of unions what YAML cannot write, so that `float | Tensor` is a `float`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kept = [_plain_form(arg) for arg in args if _adapter(arg) is not None]
        return Union[tuple(kept)] if kept else annotation  # noqa: UP007
    if origin in (tuple, list):
        return origin[tuple(arg if arg is Ellipsis else _plain_form(arg) for arg in args)]
    return annotation
