"""What a run or a sweep is called by default: its task, and what was asked of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

NAME_LENGTH = 60


def default_name(choices: Mapping[str, str | None], overrides: Sequence[str]) -> str:
    """What a run is called that was given no name; cut where it is long."""
    return described(choices, last_words(overrides))[:NAME_LENGTH]


def last_words(overrides: Sequence[str]) -> list[str]:
    """Overrides without those that a later one of the same key takes the place of, or takes back.

    A mapping takes no other word's place: it is merged with what stands before it.
    """
    kept: list[str] = []
    for override in overrides:
        key, _, value = _parted(override)
        left = [one for one in kept if value.startswith("{") or _parted(one)[0] != key]
        if override.startswith("~"):
            left = [one for one in left if not _parted(one)[0].startswith(f"{key}.")]
        takes_back = override.startswith("~") and len(left) < len(kept)
        kept = left if takes_back else [*left, override]
    return kept


def _parted(override: str) -> tuple[str, str, str]:
    return override.lstrip("+~").partition("=")


def described(choices: Mapping[str, str | None], overrides: Sequence[str]) -> str:
    """A name from the task or experiment and from what was overridden, however long."""
    parts = [choices.get("experiment") or choices.get("task") or "run"]
    for override in overrides:
        key, _, value = _parted(override)
        if key in ("task", "experiment", "logger") or key.startswith(("logger.", "callbacks.")):
            continue
        name = key.rsplit(".", 1)[-1]
        value = Path(value).name if "/" in value else value
        parts.append(f"no-{name}" if override.startswith("~") else f"{name}={value}")
    return re.sub(r"[^\w.=+-]+", "-", "_".join(parts)).strip("-")
