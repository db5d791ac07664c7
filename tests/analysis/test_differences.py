import math

from truesweep.analysis.differences import ABSENT, Difference, differences


def test_rows_by_dotted_key() -> None:
    a = {"optimizer": {"lr": 1e-3, "betas": [0.9, 0.95]}, "seed": 0, "name": "x"}
    b = {"optimizer": {"lr": 1e-4, "betas": [0.9, 0.95]}, "seed": 0, "data": {"packing": True}}
    assert differences(a, b) == [
        Difference("optimizer.lr", 1e-3, 1e-4),
        Difference("name", "x", ABSENT),
        Difference("data.packing", ABSENT, True),
    ]
    assert str(ABSENT) == "—"


def test_what_is_the_same() -> None:
    a = {"x": math.nan, "y": 1, "z": [math.nan, {"a": 2}], "t": (1, 2), "empty": {}}
    b = {"x": math.nan, "y": 1.0, "z": [math.nan, {"a": 2}], "t": [1, 2], "empty": {}}
    assert differences(a, b) == []


def test_what_is_not() -> None:
    a = {"flag": True, "list": [1, 2], "gone": {}, "kind": {"deep": 1}}
    b = {"flag": 1, "list": [1, 2, 3], "kind": 5}
    keys = [row.key for row in differences(a, b)]
    assert keys == ["flag", "list", "gone", "kind.deep", "kind"]
