"""How long training waits for a checkpoint: written by it, or in the background.

    python -m benchmarks.checkpoints [--parameters 60] [--times 5]

The checkpoint holds weights and AdamW's two averages. On a GPU, if there is one, a step's worth of
work goes on while the thread writes, as in training; without one the thread takes a core.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from truesweep.record.checkpoints import CheckpointFiles


def checkpoint(parameters: int, device: str) -> dict[str, Any]:
    """As Lightning would have it, of that many million parameters."""
    rows = [torch.randn(1_000_000, device=device) for _ in range(3 * parameters)]
    return {
        "state_dict": dict(enumerate(rows[:parameters])),
        "optimizer_states": [{"state": dict(enumerate(rows[parameters:]))}],
    }


def seconds(work: Callable[[], None]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print both, and what the background takes to be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parameters", type=int, default=60, help="millions")
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    state = checkpoint(asked.parameters, device)
    direct, aside = CheckpointFiles(background=False), CheckpointFiles(background=True)
    waits: dict[str, list[float]] = {"direct": [], "background": [], "until it is written": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "last.ckpt"
        for _ in range(asked.times):
            waits["direct"].append(seconds(lambda: direct.save_checkpoint(state, path)))
            waits["background"].append(seconds(lambda: aside.save_checkpoint(state, path)))
            waits["until it is written"].append(seconds(aside.wait))
        size = path.stat().st_size
    print(f"{asked.parameters} M parameters with AdamW on {device}, {size / 1e9:.2f} GB")
    for name, times in waits.items():
        ratio = median(times) / median(waits["direct"])
        print(f"{name:20} {median(times):7.3f} s  {ratio:5.2f} of direct")


if __name__ == "__main__":
    main()
