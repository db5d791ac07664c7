"""What every job does around its steps: compare ranks, keep its record whole, end in time."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from truesweep.callbacks.base import Callback
from truesweep.compat import steps_done
from truesweep.errors import DataError
from truesweep.record.files import checksum_of_start
from truesweep.record.loggers import MetricsFile
from truesweep.terminal import console


class SameConfiguration(Callback):
    """Compares a hash over all ranks before the first step.

    Args:
        fingerprint: The hash of this rank's configuration and data.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to differ.

        Raises:
            RuntimeError: The ranks hold different configurations or data.
        """
        if trainer.world_size == 1:
            return
        hashes: list[str] = [""] * trainer.world_size
        dist.all_gather_object(hashes, self.fingerprint)
        if len(set(hashes)) > 1:
            listed = ", ".join(f"rank {r}: {h[:12]}" for r, h in enumerate(hashes))
            raise RuntimeError(f"the ranks hold different configurations or data ({listed})")


class TakeUp(Callback):
    """On resume, lets the record go on where the checkpoint stands: no gap, no step twice.

    Args:
        metrics: The record that counts; the others follow it by themselves.
    """

    def __init__(self, metrics: MetricsFile) -> None:
        self.metrics = metrics
        self._settled: tuple[int, str] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop what was recorded after the checkpoint, which training now comes to again.

        Raises:
            DataError: What was recorded before it has changed.
        """
        step, path = steps_done(trainer), self.metrics.path
        if trainer.is_global_zero and self._settled:
            check_settled(path, self._settled, step)
            if self._settled[0] and not path.exists():
                console(stderr=True).print(
                    f"{path} is missing: the curve, and its time, begin after step {step:,}"
                )
        self.metrics.truncate(step)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the record before it."""
        return {"settled": self.metrics.settled()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint says of the record before it."""
        self._settled = state_dict["settled"]


def check_settled(path: Path, settled: tuple[int, str], step: int) -> None:
    """See that what a record held at a step is still there.

    Args:
        path: The record; one that is missing passes.
        settled: Its bytes then, and their checksum.
        step: The step.

    Raises:
        DataError: It is not.
    """
    length, checksum = settled
    if length and path.exists() and checksum_of_start(path, length) != checksum:
        raise DataError(
            f"{path}: is not what the run has written. Restore it, or delete it: the curve then "
            f"begins after step {step:,}"
        )


class Heartbeat(Callback):
    """Passes the current step on every few seconds, from rank 0.

    Args:
        write: Called with the number of optimizer steps done.
        seconds: The least time between two calls.
    """

    def __init__(self, write: Callable[[int], None], seconds: float = 5.0) -> None:
        self.write = write
        self.seconds = seconds
        self._written_at = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Write, if it is time; in an evaluation, which is a sign of life, too."""
        if trainer.is_global_zero and time.monotonic() - self._written_at >= self.seconds:
            self._written_at = time.monotonic()
            self.write(steps_done(trainer))

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after every validation."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            self.write(steps_done(trainer))


class StopAfter(Callback):
    """Stop after a number of optimizer steps.

    With Lightning's own `max_steps`, a run that is resumed at its last step would not start at all,
    and could not make up for a validation that is owed.

    Args:
        total_steps: Optimizer steps of the whole training.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Stop at the last step; do none where none is left."""
        if steps_done(trainer) >= self.total_steps:
            trainer.should_stop = True

    on_train_start = on_train_batch_end


class LeaveAfter(Callback):
    """Save and leave after a step, as on a signal; the schedule is that of the whole training.

    Args:
        step: The last optimizer step, counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask all ranks to leave, before the step in which they agree on it."""
        if steps_done(trainer) + 1 >= self.step:
            pl_module.stop_requested = signal.SIGTERM
