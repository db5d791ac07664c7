"""Traps that take a few lines to show."""

import math
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import sacrebleu
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchmetrics.text import BLEUScore
from transformers import AutoConfig

from benchmarks.traps import stock
from benchmarks.traps.evaluation import start_from
from benchmarks.traps.material import MODEL, named, trained
from benchmarks.traps.ours import last_weights, quietly, results
from benchmarks.traps.poison import Poison
from benchmarks.traps.processes import exit_code, isolated
from benchmarks.traps.report import Section
from truesweep.commands import main as truesweep
from truesweep.record.rows import read

STEPS, POISONED = 20, 3
Row = list[str]


def measure() -> Section:
    """One row a trap."""
    return Section(
        title="In short",
        text="What takes a line to say; the last column is what the figure should be.",
        columns=["trap", "stock", "truesweep", "truth"],
        rows=[uneven_ranks(), *bleu(), nothing_to_resume(), not_a_number()],
    )


# -- a constant, where ranks have 1 and 2 batches -------------------------------------------------


def uneven_ranks() -> Row:
    """A loss that is the same for every token, over 3 samples on 2 ranks."""
    made = quietly(
        *named("lm", train="train", val="n3", test="n3"),
        *MODEL,
        "model.init=scaled",
        "model.tie_embeddings=false",
        "trainer.devices=2",
        "trainer.max_steps=1",
        "optimizer=sgd",
        "optimizer.lr=1e-30",
        "scheduler.warmup=0",
        "data.eval_batch_size=1",
    )
    even = math.log(AutoConfig.from_pretrained(made.model).vocab_size)
    ours = results(made)["val/loss"] / even
    theirs = isolated(stock_constant, trained("lm", 0.1))
    what = "a constant 1, logged with `sync_dist=True` on ranks that see 2 batches and 1"
    return [what, f"{theirs:.6g}", f"{ours:.6g}", "1"]


class Constant(stock.Stock):
    """Logs 1."""

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log it over ranks."""
        self.log("val/one", 1.0, sync_dist=True, batch_size=1)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every second sample, without padding."""
        share = range(self.global_rank, 3, self.trainer.world_size)
        return DataLoader(list(share), batch_size=1)  # type: ignore[arg-type]


def stock_constant(folder: Path) -> float:
    """What is logged."""
    trainer = stock.trainer(2, use_distributed_sampler=False)
    (found,) = trainer.validate(Constant("lm", folder), verbose=False)
    return float(found["val/one"])


# -- BLEU -----------------------------------------------------------------------------------------


def bleu() -> list[Row]:
    """Translations of the same sentences by the same model."""
    folder = trained("translation", 0.1)
    made = quietly(
        *named("translation", train="train", val="n1", test="n17"),
        *start_from(folder),
        "trainer.max_steps=1",
        "optimizer=sgd",
        "optimizer.lr=1e-30",
        "scheduler.warmup=0",
    )
    whole, mean, truth = isolated(stock_bleu, folder)
    ours = f"{results(made)['test/bleu']:.6g}"
    return [
        ["BLEU of 17 sentences, `BLEUScore` × 100", f"{whole:.6g}", ours, f"{truth:.6g}"],
        ["the same, logged batch by batch (4)", f"{mean:.6g}", ours, f"{truth:.6g}"],
    ]


def stock_bleu(folder: Path) -> tuple[float, float, float]:
    """Of the corpus, as a mean of batches, and as the `sacrebleu` command gives it."""
    model, metric = stock.Stock("translation", folder).eval(), BLEUScore()
    of_batches, found, wanted = [], [], []
    for batch in stock.loader("translation", folder, Path("n17"), 4):
        texts = model.translate(batch)
        of_batches.append(float(metric(texts, [[text] for text in batch["reference"]])))
        found += texts
        wanted += batch["reference"]
    mean = sum(of_batches) / len(of_batches)
    truth = sacrebleu.corpus_bleu(found, [wanted]).score
    return 100 * float(metric.compute()), 100 * mean, truth


# -- nothing to resume from -----------------------------------------------------------------------


def nothing_to_resume() -> Row:
    """Resume where nothing was saved."""
    theirs = exit_code(stock_resume, trained("lm", 0.1))
    ours = exit_code(_command, "resume", "outputs/never-started")
    steps = Path("steps").read_text()
    return [
        "resume with nothing to resume from",
        f"exit code {theirs}, {steps} steps from the beginning",
        f"exit code {ours}, no step",
        "an error",
    ]


def stock_resume(folder: Path) -> None:
    """`ckpt_path="last"`, and the steps that follow."""
    saving = ModelCheckpoint("nothing", save_last=True)
    trainer = stock.trainer(max_steps=STEPS, enable_checkpointing=True, callbacks=[saving])
    samples = stock.loader("lm", folder, Path("eighty"), 8)
    trainer.fit(stock.Stock("lm", folder), samples, ckpt_path="last")
    Path("steps").write_text(str(trainer.global_step))


def _command(*arguments: str) -> None:
    sys.argv = ["truesweep", *arguments]
    truesweep()


# -- a gradient that is not a number --------------------------------------------------------------


def not_a_number() -> Row:
    """Poison a gradient of one rank of two in one step of many."""
    folder = trained("lm", 0.1)
    theirs = isolated(stock_poisoned, folder)
    made = quietly(
        *named("lm", train="eighty", val="n1", test="n1"),
        *start_from(folder),
        "data.batch_size=8",
        "trainer.devices=2",
        f"trainer.max_steps={STEPS}",
        "trainer.log_every_n_steps=1",
        "+callbacks.poison._target_=benchmarks.traps.poison.Poison",
        f"callbacks.poison.step={POISONED}",
    )
    skipped = max(row.get("skipped_steps", 0) for row in read(made.metrics))
    return [
        f"NaN in a gradient of one rank of two, in one of {STEPS} steps",
        f'"success", {theirs:.0%} of weights NaN',
        f"{share_of_nan(last_weights(made)):.0%} of weights NaN, steps skipped: {skipped:.0f}",
        "0%",
    ]


def stock_poisoned(folder: Path) -> float:
    """The share of weights that are no numbers."""
    pl.seed_everything(0, verbose=False)
    trainer = stock.trainer(2, max_steps=STEPS, callbacks=[Poison(step=POISONED)])
    module = stock.Stock("lm", folder)
    trainer.fit(module, stock.loader("lm", folder, Path("eighty"), 4, shuffle=True))
    return share_of_nan(module.model.state_dict())


def share_of_nan(weights: Any) -> float:
    """Over all weights."""
    found = [torch.isnan(weight).flatten() for weight in weights.values()]
    return float(torch.cat(found).double().mean())
