"""The same 64 samples in one batch, in four, and on two ranks."""

from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.traps import stock
from benchmarks.traps.evaluation import start_from
from benchmarks.traps.material import named, trained
from benchmarks.traps.ours import last_weights, quietly
from benchmarks.traps.processes import isolated
from benchmarks.traps.report import Section, number

STEPS = 5
LR = 0.1
SPLITS = {"64": (1, 64), "16 × 4": (1, 16), "2 ranks × 8 × 4": (2, 8)}
"""By name, the ranks and the samples in a forward pass of each."""
Weights = Mapping[str, Tensor]


def measure() -> Section:
    """Train both stacks every way, and compare the parameters with those of the one batch."""
    rows = []
    for task, dropout in (("lm", 0.0), ("translation", 0.0), ("lm", 0.1), ("translation", 0.1)):
        folder = trained(task, dropout)
        start = stock.MODELS[task].from_pretrained(folder).state_dict()
        for stack, train in (("stock", in_process), ("truesweep", our_weights)):
            found = [train(task, folder, *split) for split in SPLITS.values()]
            moved = distance(found[0], start)
            differences = [distance(weights, found[0]) for weights in found[1:]]
            cells = [f"{number(d)} ({d / moved:.2%})" for d in differences]
            rows.append([task, f"{dropout:g}", stack, *cells])
    return Section(
        title="The same 64 samples, split",
        text=(
            f"{STEPS} steps of gradient descent (learning rate {LR}, from a trained model) on the "
            "same 64 sentences of 3 to 9 words. A cell is the largest difference of any parameter "
            "from the run that takes all 64 at once, and its share of the furthest that any "
            "parameter moved in that run. Lightning's `accumulate_grad_batches` and DDP "
            "average the means of batches that hold different numbers of tokens, and each split "
            "draws another dropout."
        ),
        columns=["task", "dropout", "", *(name for name in SPLITS if name != "64")],
        rows=rows,
    )


def distance(a: Weights, b: Weights) -> float:
    """The largest difference of two parameters of the same name."""
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in b)


def in_process(task: str, folder: Path, ranks: int, rows: int) -> Weights:
    """`stock_weights` in a process of its own."""
    weights: Weights = torch.load(isolated(stock_weights, task, folder, ranks, rows))
    return weights


def stock_weights(task: str, folder: Path, ranks: int, rows: int) -> Path:
    """Train with `accumulate_grad_batches`, and leave the weights in a file."""
    pl.seed_everything(0, verbose=False)
    samples = stock.loader(task, folder, Path("sixty-four"), rows, shuffle=True)
    accumulate = 64 // (ranks * rows)
    trainer = stock.trainer(ranks, max_epochs=STEPS, accumulate_grad_batches=accumulate)
    model = stock.Stock(task, folder, LR)
    trainer.fit(model, samples)
    path = Path("weights.pt").absolute()
    torch.save(model.model.state_dict(), path)
    return path


def our_weights(task: str, folder: Path, ranks: int, rows: int) -> Weights:
    """Train with `data.micro_batch_size`."""
    made = quietly(
        *named(task, train="sixty-four", val="n1", test="n1"),
        *start_from(folder),
        "data.batch_size=64",
        f"data.micro_batch_size={rows}",
        f"trainer.devices={ranks}",
        f"trainer.max_steps={STEPS}",
        "trainer.gradient_clip_val=null",
        "optimizer=sgd",
        f"optimizer.lr={LR}",
        "optimizer.momentum=0",
        "scheduler=constant",
        "scheduler.warmup=0",
    )
    return last_weights(made)
