from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen
from torch import Tensor

from truesweep.config.types import REQUIRED, Fit, Parameter, Schema, describe


def fit(annotation: Any, value: Any) -> Fit:
    return Schema({"key": Parameter(annotation, REQUIRED)}).fit({"key": value})


class Color(Enum):
    RED = "red"
    BLUE = "blue"


Rate = Annotated[float, Gt(0)]
Length = Annotated[int, Ge(0)] | Annotated[float, Ge(0), Lt(1)]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 1, 1.0),
        (float, "1e-4", 1e-4),
        (float, "-2.5E3", -2500.0),
        (list[float], ["1e-4", 2], [1e-4, 2.0]),
        (int, 1000.0, 1000),
        (int, "1e3", 1000),
        (Length, 10, 10),
        (Length, 0.1, 0.1),
        (Length, 0.0, 0.0),
        (tuple[float, float], [0.9, 1], (0.9, 1.0)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Path, "a/b", Path("a/b")),
        (str | Path, "a/b", "a/b"),
        (Color, "red", Color.RED),
        (int | None, None, None),
        (Sequence[str], ["a"], ["a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Literal["a", 3], 3, 3),
        (bool | Literal["layers"], "layers", "layers"),
        (float | Tensor, 0.5, 0.5),
        (tuple[float | Tensor, float], [1, 2], (1.0, 2.0)),
        (float, float("inf"), float("inf")),
        (Any, {"x": [1]}, {"x": [1]}),
        (Tensor, "anything", "anything"),
    ],
)
def test_convert(annotation: Any, value: Any, expected: Any) -> None:
    converted = fit(annotation, value).values["key"]
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "3", "expected an integer, found '3'"),
        (int, True, "expected an integer, found True"),
        (float, True, "expected a number, found True"),
        (float, "0.1", "expected a number, found '0.1'"),
        (float, "fast", "expected a number, found 'fast'"),
        (int, 2.5, "expected an integer, found 2.5"),
        (str, 3, "expected text, found 3"),
        (bool, "yes", "expected true or false, found 'yes'"),
        (bool, 1, "expected true or false, found 1"),
        (str, None, "expected text, found None"),
        (Rate, -1, "expected a number > 0, found -1"),
        (Rate, 0, "expected a number > 0, found 0"),
        (Rate, float("nan"), "expected a number > 0, found nan"),
        (Annotated[int, Interval(ge=1, le=8)], 9, "expected an integer >= 1 and <= 8, found 9"),
        (Rate | None, "1", "expected a number > 0 or null, found '1'"),
        (Length, 1.5, "expected an integer >= 0 or a number >= 0 and < 1, found 1.5"),
        (
            Literal["cosine", "linear"],
            "cosin",
            "expected one of cosine, linear, found 'cosin'; did you mean cosine?",
        ),
        (bool | Literal["layers"], "layer", "found 'layer'; did you mean layers?"),
        (Color, "bleu", "expected one of red, blue, found 'bleu'; did you mean blue?"),
        (tuple[float, float], [1], "expected [a number, a number], found [1]"),
        (list[int], 3, "expected a list, each an integer, found 3"),
        (list[int], ["a"], "expected a list, each an integer, found ['a']"),
        (dict[str, int], [1], "expected a mapping, found [1]"),
        (Path, 3, "expected a path, found 3"),
        (float | Tensor, "x", "expected a number, found 'x'"),
    ],
)
def test_mismatches_say_what_was_expected(annotation: Any, value: Any, message: str) -> None:
    assert message in fit(annotation, value).wrong["key"]


def test_names_are_those_of_the_parameters_whatever_pydantic_calls_its_own() -> None:
    names = ("copy", "_private", "model_config", "self")
    schema = Schema({name: Parameter(int, REQUIRED) for name in names})
    assert schema.fit(dict.fromkeys(names, 3)).values == dict.fromkeys(names, 3)
    misfit = schema.fit({"copy": "x", "copies": 1, "self": 1, "model_config": None})
    assert misfit.unknown == ["copies"]
    assert list(misfit.wrong) == ["copy", "model_config"]


def test_describe_bounds_of_other_kinds() -> None:
    assert describe(Annotated[float, Ge(0), Le(1)]) == "a number >= 0 and <= 1"
    assert describe(Annotated[list[str], MinLen(1)]) == "a list, each text of length >= 1"
