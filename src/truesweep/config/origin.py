"""Where a value came from: an override on the command line, or a line of a YAML file."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from truesweep.config.overrides import as_text, parse
from truesweep.config.roots import shipped, shown
from truesweep.dotted import flatten
from truesweep.secrets import is_secret, redact_override

LIMITS = {"trainer.max_epochs": "trainer.max_steps", "trainer.max_steps": "trainer.max_epochs"}
"""Who names one of these and not the other has that one alone."""


@dataclass(frozen=True)
class Source:
    """A YAML file that took part in a configuration.

    Args:
        path: The file.
        package: The dotted key under which its contents were put; empty for the root.
        group: The group of which it is an option; empty for the primary one.
    """

    path: Path
    package: str
    group: str = ""

    @cached_property
    def values(self) -> dict[str, Any]:
        """What the file sets, unresolved, by dotted key of the whole configuration."""
        content = OmegaConf.to_container(OmegaConf.load(self.path)) if self.path.is_file() else {}
        if not isinstance(content, dict):
            return {}
        own = {str(name): value for name, value in content.items() if name != "defaults"}
        return flatten(own, f"{self.package}." if self.package else "")

    @cached_property
    def tree(self) -> yaml.Node | None:
        """The file's nodes, which know their lines."""
        text = self.path.read_text(encoding="utf-8")
        return yaml.compose(text, Loader=yaml.SafeLoader)  # type: ignore[no-any-return]


class Origins:
    """Finds where the keys of one configuration came from, when a message needs it.

    Args:
        overrides: The command line's overrides.
        roots: The folders in which groups were looked up.
        sources: The files in the order in which they were merged.
        swept: The keys that a sweep has set.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        roots: Sequence[Path],
        sources: Sequence[Source],
        swept: Collection[str] = (),
    ) -> None:
        self.roots = roots
        self._overrides = overrides
        self.sources = sources
        self._swept = swept

    def told(self, values: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, str]:
        """Where the values of a configuration come from, by dotted key; the others are defaults.

        Args:
            values: The configuration, flat, with every default.
            said: The same before it was completed: what was `auto` there is settled in `values`.
        """
        found: dict[str, str] = {}
        for key, value in values.items():
            other = LIMITS.get(key)
            if other and value is None and (where := self(other)):
                found[key] = f"since {other} is given ({where})"
            elif key == "name" and said.get(key) is None:
                found[key] = "from what was asked"
            elif where := self(key):
                settled = said.get(key, value) != value and not is_secret(key)
                found[key] = f"{where}, which says {as_text(said[key])}" if settled else where
        return found

    def __call__(self, key: str) -> str | None:
        """Name the origin of a dotted key, such as `conf/experiment/lm_char.yaml:12`."""
        if key in self._swept:
            return "swept"
        return self._command_line(key) or self._file(key)

    def _command_line(self, key: str) -> str | None:
        for override, keys in self._named:
            if key in keys:
                whole = parse(override).key_or_group == key
                return "command line" if whole else f"command line: {redact_override(override)}"
        return None

    @cached_property
    def _named(self) -> list[tuple[str, Collection[str]]]:
        """The overrides, the strongest first, and the dotted keys that each of them sets."""
        return [(override, _keys(override)) for override in reversed(self._overrides)]

    def _file(self, key: str) -> str | None:
        for source in reversed(self.sources):
            line = find_line(source, key)
            if line is not None:
                return f"{shown(source.path)}:{line}"
        return None


def _keys(override: str) -> Collection[str]:
    parsed = parse(override)
    key, value = parsed.key_or_group, parsed.value()
    inner = flatten(value, f"{key}.") if isinstance(value, dict) else {}
    return {*inner, *([] if "/" in key else [key])}


def since(origin: str, key: str, value: Any, folder: Path) -> str:
    """An origin that was recorded, and what its file says now, where that is another value.

    Args:
        origin: As `Origins.told` has it.
        key: Dotted.
        value: What came from there.
        folder: What a relative path is relative to.
    """
    place = re.fullmatch(r"(.+):(\d+)", origin)
    if place is None:
        return origin
    paths = shipped("conf").parent / place[1], folder / place[1]
    source = Source(next((path for path in paths if path.is_file()), paths[-1]), "")
    if not source.path.is_file():
        return f"{origin}, a file that is gone"
    try:
        there = [v for k, v in source.values.items() if _is_at(source, k, key, int(place[2]))]
    except (yaml.YAMLError, OSError):
        return f"{origin}, which cannot be read now"
    if not there:  # an empty file, or one that is null, sets its whole package
        return origin if place[2] == "1" else f"{origin}, which sets it there no more"
    now, plain = there[0], not is_secret(key) and "${" not in f"{there[0]}{value}"
    return f"{origin}, which says {as_text(now)} now" if plain and now != value else origin


def _is_at(source: Source, inner: str, key: str, line: int) -> bool:
    """Whether a key of a file may be a dotted key of the whole, and stands in a line."""
    return f".{key}".endswith(f".{inner}") and find_line(source, inner) == line


def find_line(source: Source, key: str) -> int | None:
    """The line, counted from 1, on which a file sets a dotted key; None if it does not."""
    if source.package == key:
        return 1
    if source.package and not key.startswith(f"{source.package}."):
        return None
    inner = key[len(source.package) + 1 :] if source.package else key
    node = source.tree
    if as_one := _entry(node, inner):  # a name with dots, by mistake
        return int(as_one[0].start_mark.line) + 1
    line = None
    for part in inner.split("."):
        entry = _entry(node, part)
        if entry is None:
            return None
        name, node = entry
        line = name.start_mark.line + 1
    return line


def find_choice(source: Source, group: str) -> int | None:
    """The line, counted from 1, on which a file's defaults choose an option from a group."""
    entry = _entry(source.tree, "defaults")
    items = entry[1].value if entry and isinstance(entry[1], yaml.SequenceNode) else []
    names = (item.value[0][0] for item in items if isinstance(item, yaml.MappingNode))
    lines = (name.start_mark.line + 1 for name in names if name.value.split("/", 1)[-1] == group)
    return next(lines, None)


def _entry(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                return name, value
    return None
