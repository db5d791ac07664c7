"""A process that does not outlive the one that started it."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

SECONDS_TO_SAVE = 25
"""How long ranks may take to save and leave after a signal, or once their parent is gone.

Clusters give 30 s in all.
"""


def leave_with_parent() -> None:
    """When the process that asked for this one dies, even by SIGKILL: save, leave, or be killed.

    A forked server starts this process, so its parent in the system's eyes is another; the
    sentinel is a pipe that only the asking process holds open.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    leave_when_closed(parent.sentinel)


def leave_when_closed(pipe: int) -> None:
    """When the other end of a pipe is closed, as by its holder's death: save, leave, or be killed.

    Args:
        pipe: The file descriptor of this end, to which nothing is written.
    """
    threading.Thread(target=_leave, args=[pipe], daemon=True).start()


def _leave(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # training then saves, and everything else ends
    time.sleep(SECONDS_TO_SAVE)
    os.kill(os.getpid(), signal.SIGKILL)
