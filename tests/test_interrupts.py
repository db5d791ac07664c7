"""A signal is obeyed wherever it strikes, also where the interpreter swallows what is raised."""

import signal
import subprocess
import sys
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


IMPORTING = """
import signal
import sys
import types

from truesweep import commands


class Libraries:
    def find_spec(self, name, path, target=None):
        if name == "truesweep.libraries":
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:
                pass  # such as torch where it imports NumPy
            sys.modules[name] = types.ModuleType(name)


sys.meta_path.insert(0, Libraries())
for signum in commands.PREEMPTIONS:
    signal.signal(signum, commands._leave)
commands._load_libraries()
print("lost")
"""

LEAVING = """
import os
import signal
import sys

from truesweep import commands


class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        for signum in (2, 10, 14, 15):
            kill(pid, signum)


last = Last()
sys.argv = ["truesweep", "--version"]
commands.main()
"""


def test_a_command_leaves_though_imports_swallow_what_the_signal_raises() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")


def test_signals_that_are_handed_on_do_not_kill_a_command_that_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


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


def test_a_run_stops_once_a_place_that_lets_no_error_pass_is_left() -> None:
    left: list[str] = []

    def __torch_dispatch__() -> None:
        signal.raise_signal(signal.SIGTERM)
        left.append("as it should be")

    began = time.monotonic()

    def work() -> None:
        __torch_dispatch__()
        time.sleep(20)

    with pytest.raises(Stopped), stoppable():
        work()
    assert left
    assert time.monotonic() - began < 10
