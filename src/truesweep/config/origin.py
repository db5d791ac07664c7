"""Where a value came from: an override on the command line, or a line of a YAML file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from truesweep.config.overrides import parse
from truesweep.config.roots import shown
from truesweep.dotted import flatten
from truesweep.secrets import redact_override


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

    def __call__(self, key: str) -> str | None:
        """Name the origin of a dotted key, such as `conf/experiment/lm_char.yaml:12`."""
        if key in self._swept:
            return "swept"
        return self._command_line(key) or self._file(key)

    def _command_line(self, key: str) -> str | None:
        for override in reversed(self._overrides):
            parsed = parse(override)
            named, value = parsed.key_or_group, parsed.value()
            if named == key and "/" not in named:
                return "command line"
            if isinstance(value, dict) and key in flatten(value, f"{named}."):
                return f"command line: {redact_override(override)}"
        return None

    def _file(self, key: str) -> str | None:
        for source in reversed(self.sources):
            line = find_line(source, key)
            if line is not None:
                return f"{shown(source.path)}:{line}"
        return None


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
