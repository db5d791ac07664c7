"""What a figure depends on besides the training: only where it is the same can runs be ranked."""

from typing import cast

from truesweep import dotted
from truesweep.analysis.phrases import SPLITS
from truesweep.report.run import Run

PER_TOKEN = ("loss", "perplexity")
"""Figures that depend on what a token is, for tasks that have a perplexity at all."""
TOKENS = ("tokenizer", "tokenizer's training text")
"""What only figures per token depend on."""
UNTRAINED = ("Byte", "Pretrained")
"""Tokenizers that learn nothing from the training split."""


def measured_on(run: Run, figure: str) -> dict[str, str]:
    """The task, the split's content and the tokenizer, as far as they are known and matter.

    Args:
        run: The run.
        figure: Such as `val/loss`; one of no split depends on nothing.
    """
    split, _, name = figure.partition("/")
    if split not in SPLITS:
        return {}
    task = dotted.get(run.config, "task._target_")
    per_token = name in PER_TOKEN and f"{split}/perplexity" in run.results
    known = {
        "task": task,
        f"{SPLITS[split]} data": _fingerprint(run, split),
        **(_tokenizer(run) if per_token else {}),
    }
    return {what: str(value) for what, value in known.items() if value is not None}


def _fingerprint(run: Run, split: str) -> str | None:
    """Of the samples as they were loaded, before any tokenizer."""
    return cast("str | None", dotted.get(run.provenance, f"data.fingerprints.{split}"))


def _tokenizer(run: Run) -> dict[str, str | None]:
    """Its settings, and what it learned from."""
    node = dotted.get(run.config, "tokenizer", {})
    if not node:
        return {}
    learned = str(node.get("_target_")).rpartition(".")[2] not in UNTRAINED
    text = _fingerprint(run, "train") if learned else None
    return {TOKENS[0]: repr(sorted(node.items())), TOKENS[1]: text}
