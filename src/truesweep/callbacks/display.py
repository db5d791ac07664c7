"""Progress on screen: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from truesweep.callbacks.base import Callback
from truesweep.compat import steps_done
from truesweep.figures import OWN_COUNT, beside, unit, written
from truesweep.terminal import console
from truesweep.text import count, duration, figure, percent, quantity


class ProgressDisplay(Callback):
    """Shows steps, loss, speed and the time left.

    Args:
        total_steps: Optimizer steps of the whole training.
        seconds_between_lines: How often a line is printed where there is no terminal.
        refresh_per_second: How often the bar is redrawn on a terminal.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        seconds_between_lines: float = 5.0,
        refresh_per_second: float = 4.0,
    ) -> None:
        self.total_steps = total_steps
        self.console = console()
        self.interval = (
            1 / refresh_per_second if self.console.is_terminal else seconds_between_lines
        )
        self._bar: Progress | None = None
        self._shown_at = 0.0
        self._started_at = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._started_at = self._shown_at = time.monotonic()
        self._first_step = steps_done(trainer)
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
        )
        self._bar.add_task("train", total=self.total_steps, completed=self._first_step, values="")
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Show where training stands, not more often than a reader wants."""
        if trainer.is_global_zero and time.monotonic() - self._shown_at >= self.interval:
            self._show(steps_done(trainer), pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show every validation."""
        if not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        values = pl_module.evaluations.get("val", {})
        step = steps_done(trainer)
        line = f"step {step:>6}  " + "  ".join(
            f"{name} {written(name, value, pl_module.declared)}{beside(name, values)}"
            for name, value in values.items()
            if not name.endswith(("/samples", OWN_COUNT))
            # Of the sources of a mixture only how well each is known.
            and (name.count("/") == 1 or name.endswith("/loss"))
        )
        self.console.print(line)
        self._show(step, pl_module, line=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal usable."""
        self.on_train_end(trainer, pl_module)

    def _show(self, step: int, task: Any, line: bool = True) -> None:
        self._shown_at = time.monotonic()
        text, values = "", task.latest
        if values:
            speed = f"{count(values['tokens_per_second'])} {unit(task.declared)}/s"
            text = f"loss {figure(values['train/loss'])}  {speed}{_effort(values)}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, values=text)
            self._bar.refresh()
        elif line:
            left = self._seconds_left(step)
            self.console.print(f"step {step:>6}/{self.total_steps}  {text}  {left}")

    def _seconds_left(self, step: int) -> str:
        done = step - self._first_step
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._started_at) / done * (self.total_steps - step)
        return f"{duration(seconds)} left"


def _effort(values: Mapping[str, float]) -> str:
    """How much of the device's speed is made use of or, where that is not known, how much it is."""
    if "mfu" in values:
        return f"  {percent(values['mfu'])} MFU"
    flops = values.get("flops_per_second")
    return "" if flops is None else f"  {quantity(flops, 'FLOP/s')}"
