"""Signals that follow a first one, sent at the moments at which they would do harm."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from truesweep.callbacks import SIGNALS, Stopped, stoppable, told

ALL = list(SIGNALS)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[signal.Signals, Any]]:
    """Signals mean to this process after a test what they did before."""
    before: dict[signal.Signals, Any] = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield before
    for signum, handler in before.items():
        signal.signal(signum, handler)


def strike() -> None:
    """Send this process every signal, as a cluster and those that watch it do."""
    for signum in SIGNALS:
        signal.raise_signal(signum)


@pytest.mark.parametrize("first", ALL)
def test_the_first_signal_stops_and_the_others_do_not_interrupt_that(
    first: signal.Signals, handlers: dict[signal.Signals, Any]
) -> None:
    obeyed = []

    def work() -> None:
        try:
            signal.raise_signal(first)
        except Stopped as stopped:
            strike()  # between the exception and whatever is done about it
            obeyed.append(stopped.signum)
            raise
        finally:
            strike()

    with pytest.raises(Stopped), stoppable():
        work()
    assert obeyed == [first]
    assert {signum: signal.getsignal(signum) for signum in SIGNALS} == handlers
    assert not told().signum


def test_what_the_first_signal_stops_may_be_deep_inside() -> None:
    with stoppable():
        with pytest.raises(Stopped), stoppable():
            signal.raise_signal(signal.SIGUSR1)
        strike()  # such as while the status of a run is written
        assert told().signum == signal.SIGUSR1


def test_a_second_press_of_ctrl_c_interrupts_even_that(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("truesweep.callbacks.preemption.time.monotonic", lambda: now)
    with stoppable():
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        now += 0.9  # the same press, handed on by another process
        signal.raise_signal(signal.SIGINT)
        now += 1.1
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_the_next_training_of_a_process_can_be_stopped_as_well() -> None:
    for signum in SIGNALS:
        with pytest.raises(Stopped) as stopped, stoppable():
            signal.raise_signal(signum)
        assert stopped.value.signum == signum


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("change", "first"), [(1, ALL[0]), (len(ALL) + 1, ALL[-1])])
def test_the_first_signal_may_strike_while_handlers_change(
    change: int,
    first: signal.Signals,
    last: bool,
    handlers: dict[signal.Signals, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are taken one after the other, and given back so."""
    unchanged, changes = signal.signal, []

    def strikes(signum: signal.Signals, handler: Any) -> None:
        changes.append(signum)
        if len(changes) == change + 1:
            signal.raise_signal(first)
        unchanged(signum, handler)

    monkeypatch.setattr(signal, "signal", strikes)
    with pytest.raises(Stopped), stoppable(last):
        pass
    assert not told().signum
    if last:
        strike()  # such as what others hand on
    else:
        assert {signum: signal.getsignal(signum) for signum in SIGNALS} == handlers


LEAVES = """
import signal, sys
from truesweep.callbacks import SIGNALS, Stopped, stoppable

def strike():
    for signum in SIGNALS:
        signal.raise_signal(signum)

try:
    with stoppable(last=True):
        strike()
except Stopped as stopped:
    strike()  # nothing is left that restores anything
    sys.exit(stopped.exit_code)
"""


def test_a_process_that_ends_is_not_killed_on_its_way_out() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (143, b"")
