"""Runs as the statistics of `truesweep.analysis` want them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from truesweep.analysis.outcomes import Outcome
from truesweep.report.objective import Objective
from truesweep.report.run import Run
from truesweep.report.varying import setting

FINISHED = ("completed",)
"""States of runs whose figures are final; a pruned run's are those of a shorter training."""


def outcomes(
    runs: Sequence[Run], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[Outcome]:
    """The finished runs' figures; with those of each sample, where all were scored on the same."""
    finished = [run for run in runs if run.state in FINISHED]
    made = [_outcome(run, keys, objectives) for run in finished]
    split, _, figure = objectives[0].name.partition("/")
    if figure != "loss" or any(one.standard_error is None for one in made):
        return made
    samples = [_samples(run, split) for run in finished]
    if not _comparable(samples):
        return made
    return [replace(one, samples=table) for one, table in zip(made, samples, strict=True)]


def _outcome(run: Run, keys: Sequence[str], objectives: Sequence[Objective]) -> Outcome:
    return Outcome(
        id=str(run.directory.path),
        point=_point(run),
        varies={key.removesuffix("._target_"): setting(run, key) for key in keys if key != "seed"},
        objectives={one.name: one.of(run) for one in objectives},
        seed=run.config.get("seed"),
        tokens=run.tokens or None,
        seconds=run.seconds or None,
        flops=run.flops,
        parameters=run.results.get("parameters"),
        standard_error=run.results.get(f"{objectives[0].name}_standard_error"),
    )


def _samples(run: Run, split: str) -> npt.NDArray[np.float64] | None:
    """Sums and counts of each sample [M, 2]."""
    try:
        scores = run.directory.read_scores(split)
        return np.stack([scores["nll"], scores["count"]], axis=1).astype(np.float64)
    except (OSError, ValueError, KeyError):
        return None


def _comparable(samples: Sequence[npt.NDArray[np.float64] | None]) -> bool:
    """Whether all have the same samples: as many, with as many tokens in each."""
    first = samples[0] if samples else None
    return first is not None and all(
        table is not None and np.array_equal(table[:, 1], first[:, 1]) for table in samples
    )


def _point(run: Run) -> str:
    """What runs share that differ by their seed only."""
    return str(run.job.get("point") or _without_seed(run.flat))


def _without_seed(flat: Mapping[str, Any]) -> str:
    return repr([(key, value) for key, value in flat.items() if key not in ("seed", "name")])
