"""A frozen configuration: as text, as a fingerprint, read back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from truesweep.errors import ConfigError


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out each time instead of pointing from one to another."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def freeze(config: Mapping[str, Any]) -> str:
    """The configuration as YAML, in its own order, one text for one configuration."""
    text: str = yaml.dump(
        dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text


ADDED_SINCE: dict[str, Any] = {"task.bleu_tokenize": None, "task.metrics": None}
"""Keys that came after version 0.1.0, with the value that asks for what there was before them.

With that value, a configuration is the same question as it was without the key.
"""


def fingerprint(config: Mapping[str, Any]) -> str:
    """The SHA-256 of the configuration in hexadecimal, whatever the order of its keys."""
    text = json.dumps(
        _without_added(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _without_added(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without keys of `ADDED_SINCE` that change nothing."""
    kept = dict(config)
    for key, neutral in ADDED_SINCE.items():
        group, _, name = key.partition(".")
        node = kept.get(group)
        if isinstance(node, Mapping) and name in node and node[name] == neutral:
            kept[group] = {k: v for k, v in node.items() if k != name}
    return kept


def thaw(path: Path) -> dict[str, Any]:
    """Read a frozen configuration.

    Raises:
        ConfigError: The file is missing or is no YAML mapping.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a configuration, found {type(config).__name__}")
    return config
