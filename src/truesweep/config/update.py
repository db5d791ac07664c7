"""Change values of a configuration that is already composed."""

import copy
from collections.abc import Sequence
from typing import Any

from truesweep.config.overrides import parse, refuse_sweeps
from truesweep.errors import ConfigError


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
        *path, name = parsed.key_or_group.split(".")
        node: Any = changed
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if parsed.is_delete() or not isinstance(node, dict) or "/" in parsed.key_or_group:
            raise ConfigError(
                f"{override}: the configuration is frozen; only values can be changed, "
                "as in data.test=other.txt"
            )
        node[name] = parsed.value()
    return changed
