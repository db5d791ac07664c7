"""Whether data and tokens are still those that a run began with."""

from typing import Any, NamedTuple

from truesweep.data.prepare import Prepared
from truesweep.data.samples import UNCLEANED
from truesweep.errors import ConfigError
from truesweep.runs.run import Run

CLEAN, TOKENIZER = "data.clean", "tokenizer"
"""What may change though the files do not."""


class Change(NamedTuple):
    """What of a run's data is other than when it began.

    Attributes:
        what: Keys, and files.
        how: What is other about them, as a clause that goes on with "since …".
    """

    what: str
    how: str

    def __str__(self) -> str:
        """Both."""
        return f"{self.what}: {self.how}"


def check_same_data(run: Run, prepared: Prepared) -> None:
    """Refuse to train a run on other data or tokens than those it was planned with.

    Args:
        run: The run; one of before data or tokenizers were kept track of passes.
        prepared: The data as they are now.

    Raises:
        ConfigError: They are others.
    """
    change = changed_data(run, prepared)
    if change is None:
        return
    remedy = "Restore them"
    if change.what in (CLEAN, TOKENIZER):
        remedy = "Go on with the versions that its provenance.json names"
        if change.what == TOKENIZER:
            remedy += ", and the same files of the tokenizer if it was loaded"
    raise ConfigError(
        f"{change} since {run.path.name} began. {remedy}, or train anew: "
        f"truesweep train --from {run.path} name=NAME"
    )


def changed_data(run: Run, prepared: Prepared) -> Change | None:
    """In what the data, or their tokens, differ from those a run began with."""
    began = run.read_provenance().get("data", {})
    if began.get("fingerprint", prepared.fingerprint) != prepared.fingerprint:
        before, now = began.get("files", {}), prepared.origin.get("files", {})
        if files := _files(before, now):
            return Change("; ".join(files), "the data have changed")
        uncleaned = began.get(UNCLEANED)
        if uncleaned and uncleaned == prepared.origin.get(UNCLEANED):
            return Change(CLEAN, "its rules, and not the data, have changed")
        return Change("data", "the data have changed")
    tokenizer = prepared.origin.get(TOKENIZER)
    if began.get(TOKENIZER, tokenizer) != tokenizer:
        return Change(TOKENIZER, "the tokens of the same data have changed")
    return None


def _files(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> list[str]:
    """Each split whose files differ, and the paths of those that do."""
    listed = []
    for split in dict.fromkeys([*now, *before]):
        old, new = before.get(split, []), now.get(split, [])
        paths = dict.fromkeys(f["path"] for f in [*new, *old] if f not in old or f not in new)
        if paths:
            listed.append(f"data.{split} ({', '.join(paths)})")
    return listed
