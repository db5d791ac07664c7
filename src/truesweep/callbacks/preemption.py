"""Stop cleanly when the cluster or the user says so."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.callbacks.base import Callback
from truesweep.callbacks.checkpoint import Checkpoint
from truesweep.callbacks.validation import Validation, ValidationInterrupted
from truesweep.compat import is_of_compiler, steps_done, watch_compiler
from truesweep.interrupts import interrupt, stopped_by

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAME_PRESS_SECONDS = 1.0
"""One Ctrl-C reaches a rank twice: from the terminal and from the process that watches it."""


class Stopped(BaseException):
    """A run was asked to stop, and can be resumed from what it has saved.

    Not an `Exception`, so that nothing on the way takes it for a failure.

    Args:
        signum: The signal that asked for it.
        together: Whether all ranks stop here, as they have agreed to; else others may wait for this
            one.
    """

    def __init__(self, signum: int, together: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.together = together

    @property
    def exit_code(self) -> int:
        """130 after an interrupt, 143 after a preemption: saved, and worth requeueing."""
        return stopped_by(self.signum)


class Told:
    """What signals have told a process: the first one counts, and a second press of Ctrl-C.

    Clusters signal every process of a job, and those that watch others hand the signal on: one
    request arrives two or three times, and must not strike where the first is being obeyed.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._pressed_at = math.inf

    def hear(self, signum: int) -> bool:
        """Take note of a signal; whether it says anything new."""
        now = time.monotonic()
        pressed_again = signum == signal.SIGINT and now - self._pressed_at > SAME_PRESS_SECONDS
        if signum == signal.SIGINT:
            self._pressed_at = now
        new = not self.signum or pressed_again
        self.signum = self.signum or signum
        return new


_told: Told | None = None
"""In a process that is `stoppable`: what it was told."""


def told() -> Told:
    """What this process was told since it has been `stoppable`; nothing, where it is not."""
    return _told or Told()


@contextmanager
def stoppable(last: bool = False) -> Iterator[None]:
    """Let a signal raise `Stopped` wherever the program is.

    While that is being obeyed, signals that say nothing new, see `Told`, are no interruption.

    Args:
        last: Whether this process then ends; it ignores signals on its way out.
    """
    global _told
    outer, previous = _told, {signum: signal.getsignal(signum) for signum in SIGNALS}
    after = dict.fromkeys(SIGNALS, _ignore) if last else previous
    try:
        _told = told()
        _stop_at_once()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # ranks are started with them blocked
        yield
    finally:
        try:
            _handle(after)
        finally:  # once more, if the first signal struck meanwhile: the others say nothing new
            _handle(after)
            _told = outer


def _handle(handlers: Mapping[signal.Signals, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN, this is not inherited by other programs."""


def _stop_at_once() -> None:
    _handle(dict.fromkeys(SIGNALS, _raise_stopped))


def _raise_stopped(signum: int, frame: FrameType | None) -> None:
    if told().hear(signum):
        interrupt(Stopped(signum), frame)


class Preemption(Callback):
    """On SIGTERM, SIGUSR1 or SIGINT: finish the step on all ranks, save, and leave.

    The task spreads the request over the ranks with the step's own reduction, so that all of them
    stop after the same step. A validation is left before its end, and made up for by the resumed
    run. A second SIGINT stops at once. Outside training, where there is nothing to save, so does
    the first signal.

    Nor is torch's compiler waited for, which may take minutes, and fails if the signal strikes its
    processes as well: a rank that is alone saves the steps before, one among others stays if there
    are any to be saved.

    Args:
        checkpoint: Writes `last.ckpt`.
        validation: Runs the validations.
        compiled: Whether the model is compiled.
    """

    def __init__(
        self, checkpoint: Checkpoint, validation: Validation, compiled: bool = False
    ) -> None:
        self.checkpoint = checkpoint
        self.validation = validation
        self.compiled = compiled
        self._trainer: Any = None
        self._module: Any = None
        self._told = Told()
        self._began_at = 0
        self._compiling = False
        self._left_compiler = False
        self._stop_watching: Callable[[], None] = lambda: None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put signals off until the end of a step; also takes them over from Lightning."""
        self._trainer, self._module, self._told = trainer, pl_module, told()
        self._began_at = steps_done(trainer)
        if self._told.signum:  # and what that raised was lost in code that catches everything
            self._module.stop_requested = self._told.signum
        if self.compiled:
            self._stop_watching = watch_compiler(self._on_compiler, self._after_compiler)
        for signum in SIGNALS:
            signal.signal(signum, self._request)
        if self.validation.validated != steps_done(trainer):
            self._validate_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate an end before the last step; act on signals at once again.

        That includes one that came too late for a step.
        """
        if self.validation.at_end and self.validation.validated != steps_done(trainer):
            self._validate(trainer)
        self._stop_watching()
        _stop_at_once()
        if self._module.stop_requested:
            raise Stopped(self._module.stop_requested)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save what was trained before the compiler was left; act on signals at once again."""
        self._stop_watching()
        left = self._left_compiler or (pl_module.stop_requested and is_of_compiler(exception))
        if left and self._alone and self._is_ahead:
            self.checkpoint.save_last(trainer)
        _stop_at_once()

    def _request(self, signum: int, frame: FrameType | None) -> None:
        known = self._told.signum
        if self._told.hear(signum) and known:
            raise Stopped(signum)
        self._module.stop_requested = self._told.signum
        self._leave_compiler(signum, frame)

    def _on_compiler(self) -> None:
        self._compiling = True
        self._left_compiler = False  # or what `_leave_compiler` raised was lost on its way
        self._leave_compiler(self._module.stop_requested, None)

    def _after_compiler(self) -> None:
        self._compiling = False

    def _leave_compiler(self, signum: int, frame: FrameType | None) -> None:
        """Stop a compilation, if nothing is lost by it; one signal alone disturbs the way out."""
        asked = self._module.stop_requested
        if asked and self._compiling and not self._left_compiler and self._may_leave:
            self._left_compiler = True
            interrupt(Stopped(asked), frame, again=self._leave_compiler_again)
            self._left_compiler = False  # not yet

    def _leave_compiler_again(self, signum: int, frame: FrameType | None) -> None:
        """Stop it after all, unless it has ended."""
        self._left_compiler = False
        self._leave_compiler(signum, frame)

    @property
    def _may_leave(self) -> bool:
        """Whether nothing is lost when a step is not done."""
        return self._alone or not self._is_ahead

    @property
    def _alone(self) -> bool:
        """Whether this rank can save without the others."""
        return bool(self._trainer.world_size == 1)

    @property
    def _is_ahead(self) -> bool:
        """Whether steps were done since the last checkpoint."""
        return steps_done(self._trainer) not in (self._began_at, self.checkpoint.saved_step)

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
            raise Stopped(pl_module.stop_agreed, together=True)
        self._validate_if_due(trainer)

    def _validate_if_due(self, trainer: pl.Trainer) -> None:
        if self.validation.due(steps_done(trainer)):
            self._validate(trainer)

    def _validate(self, trainer: pl.Trainer) -> None:
        """Validate; if a signal strikes meanwhile, save and leave."""
        try:
            self.validation.run(trainer)
        except ValidationInterrupted as interrupted:
            self.checkpoint.save_last(trainer)
            raise Stopped(interrupted.signum, together=True) from None
