"""Stop cleanly when the cluster or the user says so."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.callbacks.checkpoint import Checkpoint
from truesweep.callbacks.validation import Validation, ValidationInterrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAME_PRESS_SECONDS = 1.0
"""One Ctrl-C reaches a rank twice: from the terminal and from the process that watches it."""


class Stopped(BaseException):
    """A run was asked to stop, and can be resumed from what it has saved.

    Not an `Exception`, so that nothing on the way takes it for a failure.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """130 after an interrupt, 143 after a preemption: saved, and worth requeueing."""
        return 130 if self.signum == signal.SIGINT else 143


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a signal raise `Stopped` wherever the program is."""
    previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
    _stop_at_once()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # ranks are started with them blocked
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _stop_at_once() -> None:
    for signum in SIGNALS:
        signal.signal(signum, _raise_stopped)


def _raise_stopped(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


class Preemption(pl.Callback):
    """On SIGTERM, SIGUSR1 or SIGINT: finish the step on all ranks, save, and leave.

    The task spreads the request over the ranks with the step's own reduction, so that all of them
    stop after the same step. A validation is left before its end, and made up for by the resumed
    run. A second SIGINT stops at once. Outside training, where there is nothing to save, so does
    the first signal.

    Args:
        checkpoint: Writes `last.ckpt`.
        validation: Runs the validations.
    """

    def __init__(self, checkpoint: Checkpoint, validation: Validation) -> None:
        self.checkpoint = checkpoint
        self.validation = validation
        self._module: Any = None
        self._interrupted_at = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put signals off until the end of a step; also takes them over from Lightning."""
        self._module = pl_module
        for signum in SIGNALS:
            signal.signal(signum, self._request)
        with self._saving(trainer):
            self.validation.make_up(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act on signals at once again, and on one that came too late for a step."""
        _stop_at_once()
        if self._module.stop_requested:
            raise Stopped(self._module.stop_requested)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Act on signals at once again."""
        _stop_at_once()

    def _request(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if signum == signal.SIGINT:
            again = now - self._interrupted_at > SAME_PRESS_SECONDS
            if self._module.stop_requested == signal.SIGINT and again:
                raise Stopped(signum)
            self._interrupted_at = now
        self._module.stop_requested = signum

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and leave, if the ranks agreed to during this step; else validate, if it is time."""
        if pl_module.stop_agreed:
            self.checkpoint.save_last(trainer)
            raise Stopped(pl_module.stop_agreed)
        with self._saving(trainer):
            self.validation.run_if_due(trainer)

    @contextmanager
    def _saving(self, trainer: pl.Trainer) -> Iterator[None]:
        try:
            yield
        except ValidationInterrupted as interrupted:
            self.checkpoint.save_last(trainer)
            raise Stopped(interrupted.signum) from None
