"""Final figures, with a trivial baseline beside each."""

from typing import Any

from truesweep.analysis.verdict import Verdict
from truesweep.callbacks import Checkpoint
from truesweep.jobs.baselines import baselines
from truesweep.jobs.parts import Parts
from truesweep.models import count_parameters


def collect_results(
    parts: Parts, checkpoint: Checkpoint, rows: list[dict[str, Any]], verdict: Verdict
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        parts: The run's objects, after its test split was scored.
        checkpoint: Knows the best validation.
        rows: The rows of `metrics.jsonl`.
        verdict: What is to be said of the run.
    """
    last = rows[-1] if rows else {"time": 0.0, "tokens": 0, "step": 0}
    return {
        **checkpoint.best_values,
        "best_step": checkpoint.best_step,
        **parts.task.evaluations.get("test", {}),
        **baselines(parts.prepared, "test"),
        **parts.task.signatures("test"),
        "parameters": count_parameters(parts.task.model).total,
        "train/seconds": last["time"],
        "train/tokens": last["tokens"],
        "train/steps": last["step"],
        "verdict": verdict.to_dict(),
    }
