"""What to say about a key that does not exist: where it belongs, or which one was meant."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from truesweep.config.names import nearest_key
from truesweep.config.targets import resolve
from truesweep.config.types import signature
from truesweep.errors import ConfigError, did_you_mean


def hint(
    key: str,
    known: Collection[str],
    roots: Sequence[Path] = (),
    allowed_packages: Collection[str] = (),
) -> str:
    """Describe an unknown dotted key.

    Args:
        key: The key.
        known: All dotted keys that exist.
        roots: The folders in which groups are looked up.
        allowed_packages: As in `targets.resolve`.
    """
    group = key.partition(".")[0]
    options = owners(key, roots, allowed_packages)
    if options:
        return f"no such key here; it belongs to {' or '.join(f'{group}={o}' for o in options)}"
    guess = did_you_mean(key, known, nearest_key)
    if guess:
        return f"no such key{guess}"
    parent = key.rpartition(".")[0]
    siblings = [leaf for stem, _, leaf in (k.rpartition(".") for k in known) if stem == parent]
    return f"no such key; {parent or 'the root'} has {', '.join(siblings) or 'no keys'}"


def owners(key: str, roots: Sequence[Path], allowed_packages: Collection[str] = ()) -> list[str]:
    """The options whose targets have a dotted key, such as `files` for `data.train`."""
    group, _, name = key.partition(".")
    return sorted(
        {
            option
            for option, target in _targets(group, roots)
            if _has_key(target, name, allowed_packages)
        }
    )


def _targets(group: str, roots: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for root in roots:
        for path in (root / group).glob("*.yaml"):
            try:
                node = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, OSError, UnicodeDecodeError):
                continue  # Not chosen, so whatever is wrong with it does not matter now.
            if isinstance(node, dict):
                # Files of the global package hold the group's node under its name.
                node = node.get(group, node)
                yield path.stem, node.get("_target_") if isinstance(node, dict) else None


def _has_key(target: Any, name: str, allowed_packages: Collection[str]) -> bool:
    try:
        return name in signature(resolve(target, allowed_packages)).parameters
    except ConfigError:
        return False
