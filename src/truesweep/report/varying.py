"""In what the configurations of runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from truesweep.analysis import differences
from truesweep.record.frozen import counts, without_added
from truesweep.runs.snapshot import Snapshot


def comparable(runs: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """The configurations by dotted keys, less keys that some lack and that tell none apart.

    These runs are too old to have the key, and it asks the others for nothing newer.
    """
    asked = differences.varying([without_added(run.config) for run in runs])
    columns = differences.varying([run.flat for run in runs])
    newer = {k for k, v in columns.items() if differences.ABSENT in v and k not in asked}
    return [{k: v for k, v in run.flat.items() if k not in newer} for run in runs]


def config_columns(runs: Sequence[Snapshot]) -> dict[str, list[Any]]:
    """The keys in which configurations differ, with all their values in the order of the runs."""
    return differences.varying(comparable(runs))


def varied_keys(runs: Sequence[Snapshot]) -> list[str]:
    """The keys by which runs are told apart.

    Those that their sweeps varied, and those in which one sweep differs from another; where a run
    belongs to no sweep, or the sweeps varied nothing, all keys in which the configurations differ.
    """
    swept = dict.fromkeys(key for run in runs for key in run.varies)
    if swept and all(run.varies for run in runs):
        return list(swept | dict.fromkeys(_between_sweeps(runs)))
    return _different(runs)


def _between_sweeps(runs: Sequence[Snapshot]) -> list[str]:
    """The keys that have one value throughout each sweep, but not the same in all."""
    sweeps: dict[Path, list[Snapshot]] = {}
    for run in runs:
        sweeps.setdefault(run.directory.path.parent, []).append(run)
    if len(sweeps) < 2:
        return []
    inside = {key for jobs in sweeps.values() for key in config_columns(jobs)}
    return [key for key in _different([jobs[0] for jobs in sweeps.values()]) if key not in inside]


def _different(runs: Sequence[Snapshot]) -> list[str]:
    """The keys in which configurations differ and that can change a number."""
    columns = config_columns(runs)
    return [key for key in columns if counts(key) and not _follows(key, columns)]


def _follows(key: str, columns: Mapping[str, Sequence[Any]]) -> bool:
    """Whether runs only differ in having the key, as optimizers differ in their options."""
    values = [value for value in columns[key] if value is not differences.ABSENT]
    target = f"{key.rpartition('.')[0]}._target_"
    return key != target and target in columns and all(v == values[0] for v in values)


def setting(run: Snapshot, key: str) -> Any:
    """A run's value of a key; None where it has none.

    A swept key may be a group (`model=gpt2,llama`), which a frozen configuration no longer has.
    """
    value = run.varies[key] if key in run.varies else run.flat.get(key)
    return value.rsplit(".", 1)[-1] if key.endswith("_target_") and value else value
