"""Whether the data are still those that a run began with."""

from typing import Any

from truesweep.data.prepare import Prepared
from truesweep.errors import ConfigError
from truesweep.runs.run import Run


def check_same_data(run: Run, prepared: Prepared) -> None:
    """Refuse to train a run on other data than those it was planned with.

    Args:
        run: The run; one of before data were kept track of passes.
        prepared: The data as they are now.

    Raises:
        ConfigError: They are others.
    """
    changed = changed_data(run, prepared)
    if changed:
        raise ConfigError(
            f"{changed}: the data have changed since {run.path.name} began. Restore them, or train "
            f"anew: truesweep train --from {run.path} name=NAME"
        )


def changed_data(run: Run, prepared: Prepared) -> str:
    """What of the data differs from those a run began with: keys and files; empty if nothing."""
    began = run.read_provenance().get("data", {})
    if began.get("fingerprint", prepared.fingerprint) == prepared.fingerprint:
        return ""
    before, now = began.get("files", {}), prepared.origin.get("files", {})
    return "; ".join(_files(before, now)) or "data"


def _files(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> list[str]:
    """Each split whose files differ, and the paths of those that do."""
    listed = []
    for split in dict.fromkeys([*now, *before]):
        old, new = before.get(split, []), now.get(split, [])
        paths = dict.fromkeys(f["path"] for f in [*new, *old] if f not in old or f not in new)
        if paths:
            listed.append(f"data.{split} ({', '.join(paths)})")
    return listed
