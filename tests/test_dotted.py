from typing import Any

import pytest

from truesweep import dotted

CONFIG: dict[str, Any] = {"a": {"b": {"c": 1}, "none": None}, "d": {}, "e": [{"f": 2}]}


@pytest.mark.parametrize(
    ("key", "found"),
    [("a.b.c", 1), ("a.b", {"c": 1}), ("d", {}), ("a.none", 7), ("a.none.x", 7), ("x.y", 7)],
)
def test_get(key: str, found: Any) -> None:
    assert dotted.get(CONFIG, key, 7) == found


def test_get_from_what_is_no_mapping() -> None:
    assert dotted.get(None, "a.b") is None
    assert dotted.get(CONFIG, "a.b.c.d") is None


def test_put_makes_the_way() -> None:
    nested: dict[str, Any] = {"a": 1, "b": {"c": 2}}
    for key in ("a.x", "b.d", "new.one", "top"):
        dotted.put(nested, key, 3)
    assert nested == {"a": {"x": 3}, "b": {"c": 2, "d": 3}, "new": {"one": 3}, "top": 3}


def test_flatten() -> None:
    found = dotted.flatten(CONFIG)
    assert found == {"a.b.c": 1, "a.none": None, "d": {}, "e": [{"f": 2}]}


def test_leaves_have_the_keys_that_map_leaves_gives_them() -> None:
    assert list(dotted.leaves(CONFIG)) == [("a.b.c", 1), ("a.none", None), ("e[0].f", 2)]
    assert list(dotted.leaves("x", "key")) == [("key", "x")]


def test_map_leaves_names_items_by_their_place() -> None:
    changed = dotted.map_leaves(CONFIG, lambda key, leaf: (key, leaf))
    assert changed == {
        "a": {"b": {"c": ("a.b.c", 1)}, "none": ("a.none", None)},
        "d": {},
        "e": [{"f": ("e[0].f", 2)}],
    }
