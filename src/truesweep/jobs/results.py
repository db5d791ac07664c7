"""Final figures, with a trivial baseline beside each."""

from typing import Any

from transformers import PreTrainedModel

from truesweep.analysis.verdict import Verdict
from truesweep.callbacks import Checkpoint
from truesweep.data.left_out import left_out
from truesweep.data.token_cache import SPLITS
from truesweep.jobs.parts import Parts
from truesweep.models import count_parameters, flops_per_token
from truesweep.models.adapters import base_of, has_adapter


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
    best = {
        name: int(value) if name.endswith("/samples") else value
        for name, value in checkpoint.best_values.items()
    }
    last = rows[-1] if rows else {"time": 0.0, "tokens": 0, "step": 0}
    return {
        **best,
        "best_step": checkpoint.best_step,
        **parts.task.evaluations.get("test", {}),
        **parts.task.baselines(parts.prepared, "test"),
        **parts.task.signatures("test"),
        **{k: v for split in SPLITS for k, v in left_out(parts.prepared, split).items()},
        **sizes(parts.task.model),
        "train/seconds": last["time"],
        "train/tokens": last["tokens"],
        "train/flops": training_flops(parts, int(last["tokens"])),
        "train/steps": last["step"],
        "verdict": verdict.to_dict(),
    }


def sizes(model: PreTrainedModel) -> dict[str, Any]:
    """Parameters; beside an adapter also those that were trained, and the hash of the base."""
    count = count_parameters(model)
    if not has_adapter(model):
        return {"parameters": count.total}
    trainable = {"trainable_parameters": count.trainable, "base_sha256": base_of(model)}
    return {"parameters": count.total, **trainable}


def training_flops(parts: Parts, targets: int) -> int:
    """Operations of a training, forward and backward: those for one token times the tokens read.

    Args:
        parts: The run's objects.
        targets: Tokens, or samples to classify, that were trained on.
    """
    per_token = flops_per_token(parts.task.model, parts.source.max_length).per_token
    return round(per_token * parts.task.tokens_per_target(parts.prepared) * targets)
