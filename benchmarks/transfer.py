"""Whether the best learning rate stays where it is as models grow, in each parametrization.

    OMP_NUM_THREADS=1 python -m benchmarks.transfer [--optimizers adamw muon]
        [--train train.txt --val val.txt --length 64 --batch 16 --steps 600 --seeds 3]

For each optimizer, and for the standard parametrization and completep: llamas of widths 32 to 256
and depths 2 to 8, each trained with rates by factors of two on characters, in one process without
checkpoints; what `truesweep transfer` says of a sweep is said of them. The text is the embedded one
with the loss of 128 samples, a few minutes of a core in all, or that of files such as
tinyshakespeare's with the loss of all that is held out, an hour or two.
"""

import argparse
import json
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path

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
    *("tokenizer=char", "logger=none", "scheduler=linear", "scheduler.warmup=0.1"),
    "trainer.accelerator=cpu",
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
    parser.add_argument("--rates", nargs="+", type=float, help="in place of those by default")
    parser.add_argument("--train", type=Path, help="text to train on, in place of the embedded one")
    parser.add_argument("--val", type=Path, help="text that is held out; needed with --train")
    parser.add_argument("--length", type=int, default=32, help="characters of a sample")
    parser.add_argument("--batch", type=int, default=8, help="samples a step")
    asked = parser.parse_args()
    if (asked.train is None) != (asked.val is None):
        parser.error("--train and --val go together")
    data = [f"data.max_length={asked.length}", f"data.batch_size={asked.batch}"]
    if asked.train:
        files = {"train": asked.train, "val": asked.val, "test": asked.val}
        data += ["data=files", *(f"data.{split}={file}" for split, file in files.items())]
    sizes = [tuple(map(int, one.split("x"))) for one in asked.sizes or []] or SIZES
    for optimizer in asked.optimizers:
        for how in asked.parametrizations:
            begun, tried = time.monotonic(), []
            settings = [f"optimizer={optimizer}", f"model.parametrization={how}"]
            length = f"trainer.max_steps={asked.steps or STEPS[optimizer]}"
            held_out = None if asked.train else 128
            loss = Trainings([*FIXED, *data, *settings, length], held_out).loss
            for (width, depth), rate in product(sizes, asked.rates or RATES[optimizer, how]):
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
