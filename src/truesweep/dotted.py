"""Nested dicts by dotted keys: `optimizer.lr` is what stands under `lr` under `optimizer`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

SYNONYMS = {
    "batch": "batch_size",
    "context_length": "context",
    "block_size": "max_length",
    "seq_len": "max_length",
    "sequence_length": "max_length",
    "learning_rate": "lr",
    "n_layer": "depth",
    "n_layers": "depth",
    "num_layers": "depth",
    "num_hidden_layers": "depth",
    "layers": "depth",
    "d_model": "width",
    "n_embd": "width",
    "dim": "width",
    "hidden_size": "width",
    "n_head": "heads",
    "n_heads": "heads",
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "epochs": "max_epochs",
    "num_train_epochs": "max_epochs",
    "steps": "max_steps",
    "gpus": "devices",
    "num_gpus": "devices",
    "nodes": "num_nodes",
    "warmup_steps": "warmup",
    "clip_grad_norm": "gradient_clip_val",
    "max_grad_norm": "gradient_clip_val",
    "grad_clip": "gradient_clip_val",
    "random_seed": "seed",
}
"""Names of other programs, and what they are called here (where a target has such a key)."""

_ALIKE, _SAME = 0.65, 0.85


def get(nested: Any, key: str, default: Any = None) -> Any:
    """What stands under a dotted key; the default where nothing does, or where it is None.

    So `get(config, "callbacks.checkpoint", {})` is a dict wherever on the way one is missing, or
    something else stands in the place of one.
    """
    for part in key.split("."):
        nested = nested.get(part) if isinstance(nested, Mapping) else None
    if nested is None or (isinstance(default, Mapping) and not isinstance(nested, Mapping)):
        return default
    return nested


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


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of dicts and lists with its key, as `map_leaves` has it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{key}[{index}]")
    else:
        yield key, value


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


def nearest_key(key: str, known: Iterable[str]) -> list[str]:
    """The dotted key, anywhere in the tree, that an unknown dotted key most likely meant, if any.

    The last part decides and the parents only break ties, so that a long shared prefix makes
    nothing alike: `modle.depth` and `depth` lead to `model.depth`, `optimizer.foo` to nothing. A
    node that exists was meant: only what is all but called the same is sought outside it.
    """
    known = list(known)
    parent, _, leaf = key.rpartition(".")
    is_node = any(parent and other.startswith(f"{parent}.") for other in known)

    def likeness(candidate: str) -> tuple[float, float]:
        other_parent, _, other_leaf = candidate.rpartition(".")
        # A synonym is nearly as good as the name itself.
        alike = 0.99 if SYNONYMS.get(leaf) == other_leaf else _ratio(leaf, other_leaf)
        return alike, _ratio(parent, other_parent)

    # A whole group is no substitute for a key.
    candidates = (other for other in known if "." in other or not parent)
    scores = {candidate: likeness(candidate) for candidate in candidates}
    alike = [
        candidate
        for candidate, score in scores.items()
        if score[0] >= (_SAME if is_node and candidate.rpartition(".")[0] != parent else _ALIKE)
    ]
    alike.sort(key=lambda candidate: -3 * scores[candidate][0] - scores[candidate][1])
    return alike[:1]


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right).ratio()
