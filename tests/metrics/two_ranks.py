"""What one of two ranks does in `test_ranks.py`: `python two_ranks.py RANK DIRECTORY`.

It takes every second sample of every case, starting with its own, and saves what it computes.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from truesweep.metrics.classification import ClassificationScores
from truesweep.metrics.likelihood import NegativeLogLikelihood, Perplexity
from truesweep.metrics.sums import SumMetric
from truesweep.metrics.text import CorpusBleu, CorpusChrF


def figures(case: dict[str, Any], share: slice) -> dict[str, Any]:
    """Compute all figures of the samples in `share`, batches of two."""
    metrics: dict[str, tuple[SumMetric, str, str]] = {
        "nll": (NegativeLogLikelihood(), "logits", "labels"),
        "perplexity": (Perplexity(), "logits", "labels"),
        "bleu": (CorpusBleu(), "predictions", "references"),
        "chrf": (CorpusChrF(), "predictions", "references"),
        "classification": (ClassificationScores(4), "classes", "gold"),
    }
    results = {}
    for name, (metric, predicted, expected) in metrics.items():
        predictions, targets = case[predicted][share], case[expected][share]
        for start in range(0, len(targets), 2):
            metric.update(predictions[start : start + 2], targets[start : start + 2])
        results[name] = metric.compute()
    return results


def main(rank: int, directory: Path) -> None:
    store = f"file://{directory}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    cases = torch.load(directory / "cases.pt")
    results = {size: figures(case, slice(rank, None, 2)) for size, case in cases.items()}
    torch.save(results, directory / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("TEST_THREADS", "1")))
    main(int(sys.argv[1]), Path(sys.argv[2]))
