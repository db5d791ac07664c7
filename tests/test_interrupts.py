"""A signal is obeyed wherever it strikes, also where the interpreter swallows what is raised."""

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests import processes
from truesweep.callbacks import Stopped, stoppable

STRUCK = """
import signal
import time

from truesweep import commands


class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


for signum in commands.PREEMPTIONS:
    signal.signal(signum, commands._leave)
try:
    Dying()
    time.sleep(20)
    print("lost")
finally:
    print("cleaned up")
"""


class Dying:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def test_a_command_leaves_though_the_signal_strikes_a_destructor() -> None:
    pipe = subprocess.PIPE
    process = processes.Process(["-c", STRUCK], stdout=pipe, stderr=subprocess.STDOUT)
    assert process.communicate(timeout=60)[0] == "cleaned up\n"
    assert process.returncode == 143


def test_a_run_stops_though_the_signal_strikes_a_destructor() -> None:
    began = time.monotonic()

    def work() -> None:
        Dying()
        time.sleep(20)

    with pytest.raises(Stopped) as stopped, stoppable():
        work()
    assert stopped.value.signum == signal.SIGTERM
    assert time.monotonic() - began < 10  # else it slept
