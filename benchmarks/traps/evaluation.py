"""N samples scored on 1, 2 and 3 ranks."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from benchmarks.traps import stock
from benchmarks.traps.material import SIZES, TASKS, named, trained
from benchmarks.traps.ours import quietly, results
from benchmarks.traps.processes import isolated
from benchmarks.traps.report import Section, number

RANKS = (1, 2, 3)
FIGURES = {
    "lm": ("loss", "perplexity", "samples"),
    "translation": ("loss", "perplexity", "bleu", "samples"),
    "classification": ("loss", "f1_macro", "samples"),
}
Figures = Mapping[str, float]


def measure() -> Section:
    """Score both stacks everywhere, and compare their figures over the number of ranks."""
    rows = []
    for task in TASKS:
        folder = trained(task, 0.1)
        theirs = {n: [isolated(stock_figures, task, folder, n, r) for r in RANKS] for n in SIZES}
        ours = our_figures(task)
        for name in FIGURES[task]:
            for stack, found in (("stock", theirs), ("truesweep", ours)):
                cells = [_cell(name, n, found[n]) for n in SIZES]
                rows.append([task, name, stack, *cells])
    return Section(
        title="An evaluation on 1, 2 and 3 ranks",
        text=(
            "The same trained model scores N samples on 1, 2 and 3 ranks; a cell is the largest "
            "difference between them as a share of the figure, and for `samples` what the three "
            "counted. Lightning's sampler repeats samples until every rank has as many, and the "
            "mean of batches depends on how samples fall into batches."
        ),
        columns=["task", "figure", "", *(f"N={n}" for n in SIZES)],
        rows=rows,
    )


def _cell(name: str, size: int, over_ranks: list[Figures]) -> str:
    values = [figures.get(name, float("nan")) for figures in over_ranks]
    if name == "samples":
        return ", ".join(f"{v:.0f}" for v in values)
    return number((max(values) - min(values)) / max(*values, 1e-12))


def stock_figures(task: str, folder: Path, size: int, ranks: int) -> Figures:
    """`trainer.validate` over a file of samples, in batches of 4."""
    samples = stock.loader(task, folder, Path(f"n{size}"), batch_size=4)
    trainer = stock.trainer(ranks)
    (found,) = trainer.validate(stock.Stock(task, folder), samples, verbose=False)
    return {key.removeprefix("val/"): value for key, value in found.items()}


def our_figures(task: str) -> dict[int, list[Figures]]:
    """Runs of one step too small to change a weight, each validated and tested."""
    figures: dict[int, list[Figures]] = {size: [] for size in SIZES}
    folder = trained(task, 0.1)
    for val, test in list(pairwise(SIZES))[::2]:
        for ranks in RANKS:
            made = quietly(
                *named(task, train="train", val=f"n{val}", test=f"n{test}"),
                *start_from(folder),
                f"trainer.devices={ranks}",
                "data.eval_batch_size=4",
                "trainer.max_steps=1",
                "optimizer=sgd",
                "optimizer.lr=1e-30",
                "scheduler.warmup=0",
            )
            found = results(made)
            figures[val].append(_of_split(found, "val"))
            figures[test].append(_of_split(found, "test"))
    return figures


def _of_split(found: Mapping[str, float], split: str) -> Figures:
    start = f"{split}/"
    return {key.removeprefix(start): v for key, v in found.items() if key.startswith(start)}


def start_from(folder: Path) -> list[str]:
    """Overrides for training on from a model in Hugging Face layout."""
    return [
        "model=pretrained",
        f"model.name_or_path={folder}",
        "tokenizer=pretrained",
        f"tokenizer.name_or_path={folder}",
        "data.packing=false",
        "data.max_length=96",
    ]
