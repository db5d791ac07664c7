"""The learning rate of every step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from benchmarks.traps import stock
from benchmarks.traps.evaluation import start_from
from benchmarks.traps.events import Events, Moment, new_folder, notes
from benchmarks.traps.material import named, trained
from benchmarks.traps.ours import create
from benchmarks.traps.processes import exit_code, struck
from benchmarks.traps.report import Section, number
from truesweep.commands.resume import resume
from truesweep.jobs.launch import launch
from truesweep.record.rows import read

SAMPLES, BATCH, EPOCHS, WARM_UP, PEAK = 80, 8, 4, 4, 0.1
STEPS = SAMPLES // BATCH * EPOCHS
KILLED = Moment("after step", 17)


def factor(step: int, total: int = STEPS) -> float:
    """Linear warm-up, then linearly to zero at the end, as a share of the peak."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return max(0.0, (total - step) / (total - WARM_UP))


def measure() -> Section:
    """Both stacks' rates of every step, against the closed form."""
    rows = [
        _row("the default, once an epoch", "stock", stock_rates(interval="epoch")),
        _row("every step", "stock", stock_rates()),
        _row("every step, 4 batches accumulated", "stock", stock_rates(accumulate=4)),
        _row("every step, 2 ranks", "stock", stock_rates(ranks=2)),
        _row("every step, killed and resumed", "stock", stock_rates(moment=KILLED)),
        _row("1 rank", "truesweep", our_rates()),
        _row("4 micro-batches", "truesweep", our_rates("data.micro_batch_size=2")),
        _row("2 ranks", "truesweep", our_rates("trainer.devices=2")),
        _row("killed and resumed", "truesweep", our_rates(moment=KILLED)),
    ]
    return Section(
        title="The learning rate of every step",
        text=(
            f"{EPOCHS} epochs of {SAMPLES} samples, {BATCH} to a step: {STEPS} steps, {WARM_UP} of "
            "them warm-up, then linearly to zero at the last step that the run takes. "
            "Lightning moves a scheduler once an epoch unless told otherwise; and the usual length "
            "of a schedule, `len(train_loader) * max_epochs`, counts batches of one rank."
        ),
        columns=["run", "", "steps", "largest difference, share of the peak", "last rate / peak"],
        rows=rows,
    )


def _row(name: str, stack: str, rates: Sequence[float]) -> list[str]:
    shares = [rate / PEAK for rate in rates]
    worst = max(abs(share - factor(step, len(rates))) for step, share in enumerate(shares))
    return [name, stack, str(len(rates)), number(worst), number(shares[-1])]


def our_rates(*overrides: str, moment: Moment | None = None) -> list[float]:
    """The rates in `metrics.jsonl`."""
    folder = new_folder()
    run = create(
        *named("lm", train="eighty", val="n17", test="n5"),
        *start_from(trained("lm", 0.0)),
        f"data.batch_size={BATCH}",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.log_every_n_steps=1",
        "callbacks.checkpoint.every_n_steps=4",
        "+callbacks.events._target_=benchmarks.traps.events.Events",
        f"callbacks.events.folder={folder}",
        "optimizer=sgd",
        f"optimizer.lr={PEAK}",
        "scheduler=linear",
        f"scheduler.warmup={WARM_UP}",
        *overrides,
    )
    struck(launch, run, folder=folder, moment=moment)
    if moment:
        exit_code(resume, run.path)
    return [row["lr"] for row in read(run.metrics)]


class Scheduled(stock.Stock):
    """With a scheduler, as Lightning's documentation shows them."""

    steps, interval = STEPS, "step"

    def configure_optimizers(self) -> Any:
        """An optimizer and its schedule."""
        optimizer = torch.optim.SGD(self.parameters(), lr=PEAK)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: factor(s, self.steps))
        if self.interval == "epoch":
            return [optimizer], [scheduler]
        chosen = {"scheduler": scheduler, "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": chosen}


def stock_rates(
    interval: str = "step", accumulate: int = 1, ranks: int = 1, moment: Moment | None = None
) -> list[float]:
    """The rates that the optimizer takes its steps with."""
    folder = new_folder()
    asked = (folder, trained("lm", 0.0), interval, accumulate, ranks)
    struck(stock_fit, *asked, False, folder=folder, moment=moment)
    if moment:
        exit_code(stock_fit, *asked, True)
    return [rate for (_, rank), rate in sorted(notes(folder, "rate").items()) if rank == 0]


def stock_fit(
    folder: Path, model: Path, interval: str, accumulate: int, ranks: int, again: bool
) -> None:
    """Train, from the last checkpoint if there is one."""
    pl.seed_everything(0, verbose=False)
    samples = stock.loader("lm", model, Path("eighty"), BATCH // accumulate, shuffle=True)
    module = Scheduled("lm", model)
    module.steps, module.interval = len(samples) * EPOCHS, interval
    saving = ModelCheckpoint(folder, every_n_train_steps=4, save_last=True)
    trainer = stock.trainer(
        ranks,
        max_epochs=EPOCHS,
        accumulate_grad_batches=accumulate,
        callbacks=[saving, Events(folder=str(folder))],
        enable_checkpointing=True,
    )
    trainer.fit(module, samples, ckpt_path="last" if again else None)
