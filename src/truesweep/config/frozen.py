"""A frozen configuration, changed in some values."""

import copy
from collections.abc import Sequence
from typing import Any

from truesweep import dotted
from truesweep.config.overrides import named, parse, refuse_sweeps
from truesweep.config.precedence import LIMITS, one_limit
from truesweep.dotted import flatten
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
