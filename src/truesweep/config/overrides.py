"""Overrides in Hydra's grammar, and what `key=value` means where keys need stand in no file."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
)
from hydra.errors import HydraException

from truesweep.config.roots import is_group
from truesweep.dotted import flatten
from truesweep.errors import ConfigError
from truesweep.secrets import redact_override

ONE_OF = ("data", "tokenizer", "model", "adapter", "optimizer", "scheduler", "trainer", "task")
"""Groups of which a run has one option; merged, several would be none of them."""


def parse(override: str) -> Override:
    """Parse one override.

    Raises:
        ConfigError: It does not follow Hydra's grammar.
    """
    try:
        return OverridesParser.create().parse_override(override.strip())
    except HydraException as error:
        redacted = redact_override(override)
        # The reason may quote what had to be redacted.
        reason = f" ({str(error).splitlines()[0]})" if redacted == override else ""
        raise ConfigError(
            f"{redacted}: cannot be read as an override{reason}. "
            "Write key=value; text with spaces, commas, brackets, quotes or '=' needs quotes of "
            "its own: 'key=\"some text\"'"
        ) from None


def is_override(argument: str) -> bool:
    """Whether an argument is an override, where it may be a directory as well."""
    return "=" in argument or argument.startswith("~")


def is_readable(argument: str) -> bool:
    """Whether an argument is one override, as `parse` reads it."""
    try:
        parse(argument)
    except ConfigError:
        return False
    return True


def normalize(overrides: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Rewrite overrides such that Hydra accepts a key that stands in no YAML file.

    `optimizer.lr=1` becomes `++optimizer.lr=1`, and `group=null` becomes `~group`. What chooses
    among a group's options, names a package or carries `+`, `++` or `~` keeps Hydra's meaning.
    Sweeps such as `a.b=1,2` or `a.b=range(1,9)` stay as they are written.

    Raises:
        ConfigError: An override does not follow Hydra's grammar.
    """
    return [_normalize(parse(override), roots) for override in overrides]


def named(overrides: Sequence[str]) -> dict[str, Any]:
    """What overrides set, by dotted key, however it is said; `model={depth:2}` sets model.depth.

    Without what a later one, such as `~model.depth`, takes back.
    """
    found: dict[str, Any] = {}
    for parsed in map(parse, overrides):
        key = parsed.key_or_group
        if parsed.is_delete():
            found = {k: v for k, v in found.items() if not f"{k}.".startswith(f"{key}.")}
        elif not parsed.is_sweep_override():
            found |= flatten({key: parsed.value()})
    return found


def covers(later: Override, earlier: Override, roots: Sequence[Path]) -> bool:
    """Whether nothing is left of what an override sets after a later one.

    A mapping is merged: it leaves what it does not name. Of several values each must cover.
    """
    if later.package != earlier.package:
        return False
    key, before = later.key_or_group, earlier.key_or_group
    if chooses(later, roots) or chooses(earlier, roots):
        return key == before and all(only_chooses(one, roots) for one in (later, earlier))
    set_before = {name for value in _sides(earlier) for name in flatten({before: value})}
    return all(
        any(f"{name}.".startswith(f"{leaf}.") for leaf, set_now in leaves.items() if set_now != {})
        for leaves in (flatten({key: value}) for value in _sides(later))
        for name in set_before
    )


def _sides(override: Override) -> list[Any]:
    """The values that are asked for: one, or those of a sweep."""
    value = override.value()
    return value.list if isinstance(value, ChoiceSweep) else [value]


def overlap(key: str, other: str) -> bool:
    """Whether one of two dotted keys is the other, or stands inside it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def chooses(override: Override, roots: Sequence[Path]) -> bool:
    """Whether it chooses among the options of a group, and does not merge into its node."""
    if not is_group(override.key_or_group, roots):
        return False
    return not all(isinstance(side, dict) for side in _sides(override))


def only_chooses(override: Override, roots: Sequence[Path]) -> bool:
    """Whether it chooses whatever its value, unlike `model=llama,{width:64}`."""
    merged = any(isinstance(side, dict) for side in _sides(override))
    return chooses(override, roots) and not merged


def takes_back(later: Override, earlier: Override, roots: Sequence[Path]) -> bool:
    """Whether it deletes, as `~model.depth` does, what an earlier override may have set."""
    keys = later.key_or_group, earlier.key_or_group
    return later.is_delete() and not chooses(later, roots) and overlap(*keys)


def refuse_sweeps(overrides: Sequence[str]) -> None:
    """Refuse overrides that ask for several values.

    Raises:
        ConfigError: One of them does.
    """
    for override in overrides:
        parsed = parse(override)
        if parsed.key_or_group == "sweeps" and parsed.value() is None:
            continue  # leaves out what an experiment has of its own
        if parsed.key_or_group.partition(".")[0] == "sweeps":
            raise ConfigError(
                f"{redact_override(override)}: is for a sweep, which truesweep train -m runs"
            )
        if parsed.is_sweep_override():
            raise ConfigError(
                f"{redact_override(override)}: asks for several values, and a run takes one. "
                "truesweep train -m makes a run with each of them; write key=[a,b] for a list, "
                "'key=\"a,b\"' for text with a comma"
            )


def split_hydras(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's own settings, such as `hydra/launcher=slurm`, and all other overrides.

    Raises:
        ConfigError: One has an effect on Hydra's own runtime, which is not used.
    """
    own: list[str] = []
    hydras: list[str] = []
    for override in overrides:
        parsed = parse(override)
        key = parsed.key_or_group
        if not _is_hydras(key):
            own.append(override)
        elif re.fullmatch(r"hydra[./](launcher|sweeper)([./@].*)?", key):
            if parsed.is_sweep_override():
                raise ConfigError(
                    f"{override}: a sweep has one launcher and one sweeper; text with a comma "
                    "needs quotes of its own: 'key=\"a,b\"'"
                )
            plain = parsed.type == OverrideType.CHANGE and "/" not in key
            hydras.append(f"++{override}" if plain else override)
        else:
            raise ConfigError(f"{override}: only its launcher and sweeper can be set")
    return hydras, own


def _is_hydras(key: str) -> bool:
    return key.partition(".")[0].partition("/")[0] == "hydra"


def _normalize(parsed: Override, roots: Sequence[Path]) -> str:
    text = str(parsed.input_line)
    key = parsed.key_or_group
    if _is_hydras(key):
        raise ConfigError(
            f"{text}: Hydra's own settings have no effect here: `train` takes its launcher's, and "
            "with -m its sweeper's; name further folders of configuration with --config-dir"
        )
    if parsed.type != OverrideType.CHANGE or parsed.package is not None or "/" in key:
        return text
    if not is_group(key, roots):
        return f"++{text}"
    return text if parsed.is_sweep_override() else _normalize_choice(parsed, text)


def _normalize_choice(parsed: Override, text: str) -> str:
    key, value = parsed.key_or_group, parsed.value()
    if value is None:
        return f"~{key}"
    if isinstance(value, dict):
        # Merged into the group's node, whatever option is chosen.
        return f"++{text}"
    if isinstance(value, list):
        _check_several(text, key, [str(option) for option in value])
    if isinstance(value, str | list):
        return text
    raise ConfigError(f"{text}: {key} is a group; choose one of its options by name")


def _check_several(text: str, key: str, options: list[str]) -> None:
    """Refuse a choice of several options of which only the last would be left.

    Raises:
        ConfigError: It is one.
    """
    twice = [option for option in options if options.count(option) > 1]
    if twice:
        raise ConfigError(f"{text}: names {twice[0]} twice; name each option once")
    if "none" in options and len(options) > 1:
        raise ConfigError(f"{text}: none is not one of several; leave it or the others out")
    if key in ONE_OF and len(options) > 1:
        raise ConfigError(
            f"{text}: a run has one {key}; for a run with each of them add -m and write "
            f"{key}={','.join(options)}"
        )


def as_text(value: Any) -> str:
    """A plain value as the right side of an override, in quotes where it needs them."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_text(k)}:{as_text(v)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


@cache
def _quoted(text: str) -> str:
    try:
        parsed = parse(f"key={text}")
        as_it_is = not parsed.is_sweep_override() and parsed.value() == text
    except ConfigError:
        as_it_is = False
    return text if as_it_is else QuotedString(text, Quote.single).with_quotes()
