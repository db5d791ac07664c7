"""Errors that a signal's handler raises, so that none is lost, and the exit codes that follow."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from truesweep.compat import may_raise

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SECONDS_TO_RETURN = 0.01
"""How long a function that must not be left is given to come to its end."""


INTERRUPTED, PREEMPTED = 130, 143
"""The exit codes of what was told to stop, by Ctrl-C or else: saved, and worth going on with."""
STOPPED = (INTERRUPTED, PREEMPTED)


def stopped_by(signum: int) -> int:
    """The exit code of what a signal has told to stop."""
    return INTERRUPTED if signum == signal.SIGINT else PREEMPTED


Handler = Callable[[int, FrameType | None], Any]


def interrupt(
    error: BaseException, frame: FrameType | None = None, again: Handler | None = None
) -> None:
    """Raise an error in the handler of a signal, and again a little later if it is lost.

    The interpreter only reports what is raised within a destructor or the callback of a weak
    reference, such as those that imports leave behind, and goes on as if there had been no signal.
    Where torch would end the process for it, the error is raised when that place is left.

    Args:
        error: What is raised.
        frame: What the signal has interrupted; None: what may be left at any time.
        again: The handler that is called a little later; None: one that calls this.
    """
    report = sys.unraisablehook

    def interrupt_again(signum: int, frame: FrameType | None) -> None:
        interrupt(error, frame)

    def unraisable(lost: "UnraisableHookArgs") -> None:
        if lost.exc_value is not error:
            report(lost)
            return
        sys.unraisablehook = report
        _soon(again or interrupt_again)

    if frame is not None and not may_raise(frame):
        _soon(again or interrupt_again)
        return
    sys.unraisablehook = unraisable
    raise error


def _soon(handler: Handler) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_RETURN)
