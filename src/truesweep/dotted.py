"""Nested dicts by dotted keys: `optimizer.lr` is what stands under `lr` under `optimizer`."""

from collections.abc import Callable, Mapping
from typing import Any


def get(nested: Any, key: str, default: Any = None) -> Any:
    """What stands under a dotted key; the default where nothing does, or where it is None.

    So `get(config, "callbacks.checkpoint", {})` is a dict wherever on the way one is missing.
    """
    for part in key.split("."):
        nested = nested.get(part) if isinstance(nested, Mapping) else None
    return default if nested is None else nested


def put(nested: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, with the dicts on the way to it where there are none."""
    *path, name = key.split(".")
    for part in path:
        if not isinstance(nested.get(part), dict):
            nested[part] = {}
        nested = nested[part]
    nested[name] = value


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested dict by their dotted keys; lists and empty dicts are leaves."""
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{key}.")
        else:
            leaves[key] = value
    return leaves


def map_leaves(value: Any, change: Callable[[str, Any], Any], key: str = "") -> Any:
    """Apply `change(key, leaf)` to every leaf of dicts and lists; `a.b[0]` is an item's key."""
    if isinstance(value, dict):
        return {
            name: map_leaves(item, change, f"{key}.{name}" if key else str(name))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [map_leaves(item, change, f"{key}[{index}]") for index, item in enumerate(value)]
    return change(key, value)
