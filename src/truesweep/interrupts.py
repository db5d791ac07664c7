"""Errors that a signal's handler raises, so that none of them is lost."""

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SECONDS_TO_RETURN = 0.01
"""How long a destructor is given to come to its end."""


def interrupt(error: BaseException) -> NoReturn:
    """Raise an error in the handler of a signal, and again a little later if it is lost.

    The interpreter only reports what is raised within a destructor or the callback of a weak
    reference, such as those that imports leave behind, and goes on as if there had been no signal.
    """
    report = sys.unraisablehook

    def again(signum: int, frame: FrameType | None) -> None:
        interrupt(error)

    def unraisable(lost: "UnraisableHookArgs") -> None:
        if lost.exc_value is not error:
            report(lost)
            return
        sys.unraisablehook = report
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_RETURN)

    sys.unraisablehook = unraisable
    raise error
