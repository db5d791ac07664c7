"""Whether the best learning rate stays where it is as models grow, in each parametrization.

    OMP_NUM_THREADS=1 python -m benchmarks.transfer [--optimizers adamw muon]

For each optimizer, and for the standard parametrization and completep: llamas of widths 32 to 256
and depths 2 to 8, each trained with rates by factors of two on characters of the embedded text, in
one process without checkpoints; what `truesweep transfer` says of a sweep is said of them. A few
minutes of a core in all.
"""

import argparse
import json
import time
from dataclasses import asdict
from itertools import product

from benchmarks.here import Trainings
from truesweep.analysis.transfer import Tried, judge_transfer

SIZES = [(32, 2), (64, 2), (128, 2), (256, 2), (64, 4), (64, 8)]
"""Widths and depths."""
RATES = {
    ("adamw", "standard"): [2.0**-k for k in range(10, 4, -1)],
    ("adamw", "completep"): [2.0**-k for k in range(8, 3, -1)],
    ("muon", "standard"): [2.0**-k for k in range(8, 1, -1)],
    ("muon", "completep"): [2.0**-k for k in range(8, 1, -1)],
}
"""By optimizer and parametrization, around the best ones."""
FIXED = [
    *("model=llama", "model.tie_embeddings=false", "model.init=scaled", "model.heads=4"),
    *("model.base_width=32", "model.base_depth=2", "model.attention=eager"),
    *("tokenizer=char", "data.max_length=32", "data.batch_size=8", "logger=none"),
    *("scheduler=linear", "scheduler.warmup=0.1", "trainer.accelerator=cpu"),
]
STEPS = {"adamw": 150, "muon": 60}
"""Optimizer steps of a training: AdamW is longer where all rates come to the same."""


def main() -> None:
    """Train all, and print a line of JSON for each optimizer and parametrization."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon"])
    parser.add_argument("--parametrizations", nargs="+", default=["standard", "completep"])
    parser.add_argument("--steps", type=int, help="optimizer steps of a training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", help="widths and depths, such as 64x2")
    asked = parser.parse_args()
    sizes = [tuple(map(int, one.split("x"))) for one in asked.sizes or []] or SIZES
    for optimizer in asked.optimizers:
        for how in asked.parametrizations:
            begun, tried = time.monotonic(), []
            settings = [f"optimizer={optimizer}", f"model.parametrization={how}"]
            length = f"trainer.max_steps={asked.steps or STEPS[optimizer]}"
            loss = Trainings([*FIXED, *settings, length]).loss
            for (width, depth), rate in product(sizes, RATES[optimizer, how]):
                size = {"model.width": width, "model.depth": depth}
                changed = {**size, "optimizer.lr": rate}
                losses = [loss({**changed, "seed": seed}) for seed in range(asked.seeds)]
                tried.append(Tried(size, width**2 * depth, rate, losses))
                print(optimizer, how, width, depth, rate, losses, flush=True)
            told = asdict(judge_transfer(tried, mode="min"))
            seconds = round(time.monotonic() - begun)
            print(json.dumps({"optimizer": optimizer, "how": how, "seconds": seconds, **told}))


if __name__ == "__main__":
    main()
