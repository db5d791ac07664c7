"""Overrides in Hydra's grammar, and what `key=value` means where keys need stand in no file."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from truesweep.config.redact import redact_override
from truesweep.config.roots import is_group, search_roots
from truesweep.errors import ConfigError


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


def normalize(overrides: Sequence[str], config_dirs: Sequence[Path | str] = ()) -> list[str]:
    """Rewrite overrides such that Hydra accepts a key that stands in no YAML file.

    `optimizer.lr=1` becomes `++optimizer.lr=1`, and `group=null` becomes `~group`. What chooses
    among a group's options, names a package or carries `+`, `++` or `~` keeps Hydra's meaning.
    Sweeps such as `a.b=1,2` or `a.b=range(1,9)` stay as they are written.

    Raises:
        ConfigError: An override does not follow Hydra's grammar.
    """
    roots = search_roots(config_dirs)
    return [_normalize(parse(override), roots) for override in overrides]


def refuse_sweeps(overrides: Sequence[str]) -> None:
    """Refuse overrides that ask for several values.

    Raises:
        ConfigError: One of them does.
    """
    for override in overrides:
        if parse(override).is_sweep_override():
            raise ConfigError(
                f"{redact_override(override)}: asks for several values, and a run takes one; write "
                "key=[a,b] for a list, or 'key=\"a,b\"' for text with a comma"
            )


def _normalize(parsed: Override, roots: Sequence[Path]) -> str:
    text = str(parsed.input_line)
    key = parsed.key_or_group
    if key.partition(".")[0].partition("/")[0] == "hydra":
        raise ConfigError(
            f"{text}: Hydra's own settings have no effect here; name further folders of "
            "configuration with --config-dir"
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
    if isinstance(value, str | list):
        return text
    raise ConfigError(f"{text}: {key} is a group; choose one of its options by name")
