"""Where the order in which files are merged is not what was meant by them, nor that of changes."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from truesweep import dotted
from truesweep.config.origin import Source
from truesweep.config.overrides import named, parse, refuse_sweeps
from truesweep.dotted import flatten
from truesweep.errors import ConfigError

LIMITS = ("trainer.max_epochs", "trainer.max_steps")
_NODES = ("data", "tokenizer", "model", "optimizer", "scheduler", "trainer", "logger", "task")


def settle(raw: dict[str, Any], sources: Sequence[Source], said: Mapping[str, Any]) -> None:
    """Change a merged configuration to what its files and the command line mean.

    Args:
        raw: Unresolved; is changed.
        sources: The files, in the order in which they were merged.
        said: What the command line or a sweep sets, by dotted key.
    """
    trainer = raw.get("trainer")
    if isinstance(trainer, dict):
        # A task's length is the weakest: it is there for those who have named none.
        by_strength = sorted(sources, key=lambda source: source.group != "task")
        deleted = {key for key in LIMITS if key.removeprefix("trainer.") not in trainer}
        layers = [
            {k: v for k, v in source.values.items() if source.group == "task" or k not in deleted}
            for source in by_strength
        ]
        for key, limit in one_limit([*layers, said]).items():
            trainer[key.removeprefix("trainer.")] = limit
    _leave_out(raw, _NODES, sources, said, "")
    _leave_out(raw, ["adapter"], [], said, "")  # there is none by default, which nobody has meant
    if isinstance(callbacks := raw.get("callbacks"), dict):
        _leave_out(callbacks, list(callbacks), sources, said, "callbacks.")


def one_limit(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The length of training: who names one limit and not the other means that one alone.

    Args:
        layers: Values by dotted key, the strongest last.
    """
    settled: dict[str, Any] = {}
    for layer in reversed(layers):
        named = {key: layer[key] for key in LIMITS if key in layer}
        settled = {**named, **settled}
        if any(limit is not None for limit in named.values()):
            return {key: settled.get(key) for key in LIMITS}
    return settled


def _leave_out(
    parent: dict[str, Any],
    names: Sequence[str],
    sources: Sequence[Source],
    said: Mapping[str, Any],
    prefix: str,
) -> None:
    """Nodes that were left out stay so, though a file may set a key of what would be there."""
    for name in names:
        node, key = parent.get(name), f"{prefix}{name}"
        part = isinstance(node, dict) and node and "_target_" not in node
        wanted = any(k.startswith(f"{key}.") for k in said)
        if part and not wanted and _is_null(key, sources, said):
            parent[name] = None


def _is_null(key: str, sources: Sequence[Source], said: Mapping[str, Any]) -> bool:
    layers = [*(source.values for source in sources), said]
    none = any(key in layer and layer[key] is None for layer in layers)
    return none or said.get(key) == "none"


def update(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of a configuration with some values set; groups cannot be chosen anew.

    Args:
        config: A frozen configuration.
        overrides: `key=value` with dotted keys.

    Raises:
        ConfigError: An override is no assignment to a dotted key.
    """
    refuse_sweeps(overrides)
    changed = copy.deepcopy(config)
    for override in overrides:
        parsed = parse(override)
        key = parsed.key_or_group
        parent = key.rpartition(".")[0]
        known = not parent or isinstance(dotted.get(changed, parent), dict)
        if parsed.is_delete() or not known or "/" in key:
            raise ConfigError(
                f"{override}: the configuration is frozen; only values can be changed, "
                "as in data.test=other.txt"
            )
        for name, value in named([override]).items():
            dotted.put(changed, name, value)
    said = named(overrides)
    for key, limit in one_limit([flatten(config), said]).items():
        if said.keys() & set(LIMITS):
            dotted.put(changed, key, limit)
    return changed
