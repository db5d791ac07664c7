"""Runs as the statistics of `truesweep.analysis` want them."""

from collections.abc import Sequence
from typing import Any

from truesweep.analysis.outcomes import Outcome
from truesweep.report.objective import Objective
from truesweep.report.run import Run
from truesweep.report.varying import setting

FINISHED = ("completed",)
"""States of runs whose figures are final; a pruned run's are those of a shorter training."""


def outcome(run: Run, keys: Sequence[str], objectives: Sequence[Objective]) -> Outcome:
    """A finished run's figures."""
    results = run.results
    return Outcome(
        id=str(run.directory.path),
        point=point(run),
        varies={key.removesuffix("._target_"): setting(run, key) for key in keys if key != "seed"},
        objectives={one.name: one.of(run) for one in objectives},
        seed=run.config.get("seed"),
        tokens=run.tokens or None,
        seconds=run.seconds or None,
        flops=run.flops,
        parameters=results.get("parameters"),
        standard_error=results.get(f"{objectives[0].name}_standard_error"),
    )


def point(run: Run) -> str:
    """What runs share that differ by their seed only."""
    return str(run.job.get("point") or _without_seed(run.flat))


def _without_seed(flat: dict[str, Any]) -> str:
    return repr([(key, value) for key, value in flat.items() if key not in ("seed", "name")])
