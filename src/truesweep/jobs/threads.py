"""How OpenMP's threads wait for each other while other processes want the same cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from truesweep.record.provenance import cores

LOOK, PAUSE, HELD = 0.3, 0.7, 10.0
"""Seconds that a look takes; until the next one where cores were free; and where they were not."""
CROWDED = 0.25
"""Seconds a second that threads wait for a core, all together, from which on others want it: alone
it is 0.03 at most, beside one busy process about 0.7."""
GRAIN = 32_768
"""Numbers of which torch gives a thread a share of its own."""
_TASKS = Path("/proc/self/task")


@contextmanager
def sharing_cores() -> Iterator[None]:
    """Have threads let their cores go at once while other processes want them.

    A thread that waits for another one spins, as to sleep and be woken takes longer than most
    waits. Where the other one has no core it spins in vain, in the other one's place. OpenMP
    (libgomp) spins a hundred times at most while it has more threads than cores, and asks for
    their number at each wait: so a second team, which has nothing to do, has it wait briefly from
    one moment to the next, without a change to what is computed, or by which thread.

    Does nothing where the threads are fewer than the cores, and where the system does not say how
    long they waited (Linux does, in `/proc/self/task/*/schedstat`).
    """
    if torch.get_num_threads() < max(2, cores()) or not _waited():
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=[over], name="sharing cores", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(over: threading.Event) -> None:
    """Keep a second team for a while whenever threads wait for cores, and then look again."""
    while not over.is_set():
        before = _waited()
        over.wait(LOOK)
        waited = sum(seconds - before.get(task, 0.0) for task, seconds in _waited().items())
        if waited / LOOK > CROWDED:
            team = threading.Thread(target=_keep_team, args=[over], daemon=True)
            team.start()
            team.join()
        else:
            over.wait(PAUSE)


def _keep_team(over: threading.Event) -> None:
    """Have OpenMP make a team for this thread, which lasts as long as the thread does."""
    torch.zeros(torch.get_num_threads() * GRAIN).add_(1)
    over.wait(HELD)


def _waited() -> dict[str, float]:
    """Seconds that each thread of this process was ready to run without a core; {}: not known."""
    waited = {}
    try:
        for task in _TASKS.iterdir():
            try:
                waited[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
    except (OSError, ValueError, IndexError):
        return {}
    return waited
