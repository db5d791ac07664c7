import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch

from tests.commands.conftest import SMALL, data
from truesweep.commands.train import train
from truesweep.jobs import rank, threads
from truesweep.jobs.threads import sharing_cores

__all__ = ["data"]

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "LOOK", 0.01)
    monkeypatch.setattr(threads, "PAUSE", 0.01)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def computed() -> torch.Tensor:
    """What two threads have a part in each: sums over rows, and a product."""
    x = torch.linspace(-1, 1, 1 << 18).reshape(512, 512)
    return (x @ x).cumsum(0).sin().sum(0)


def running() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def soon(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@needs_linux
@pytest.mark.usefixtures("two_threads")
def test_where_others_want_the_cores_there_is_a_second_team(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited = count(1)
    monkeypatch.setattr(threads, "_waited", lambda: {"1": float(next(waited))})
    monkeypatch.setattr(threads, "HELD", 60.0)
    expected = computed()  # which makes the first team
    alone = running()
    with sharing_cores():
        assert soon(lambda: running() == alone + 3)  # who looks, who has the team, its second
        assert torch.equal(computed(), expected)
    assert soon(lambda: running() == alone)


@needs_linux
@pytest.mark.usefixtures("two_threads")
def test_the_second_team_goes_when_cores_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = iter([0.0, 0.0, 1.0])  # once when it begins, and before and after the first look
    monkeypatch.setattr(threads, "_waited", lambda: {"1": next(waited, 1.0)})
    monkeypatch.setattr(threads, "HELD", 0.3)
    computed()
    alone = running()
    with sharing_cores():
        assert soon(lambda: running() == alone + 3)
        assert soon(lambda: running() == alone + 1)


@needs_linux
@pytest.mark.usefixtures("two_threads")
def test_threads_with_a_core_each_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = running()
    for few, known in ((1, True), (2, False)):
        torch.set_num_threads(few)
        monkeypatch.setattr(threads, "_TASKS", threads._TASKS if known else Path("/nothing"))
        with sharing_cores():
            assert running() == alone


@needs_linux
def test_what_threads_waited_is_read() -> None:
    waited = threads._waited()
    assert str(os.getpid()) in waited
    assert all(seconds >= 0 for seconds in waited.values())


def test_a_training_shares_its_cores(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @contextmanager
    def sharing() -> Iterator[None]:
        seen.append("begins")
        try:
            yield
        finally:
            seen.append("ends")

    def trains(*_: object) -> None:
        seen.append("trains")
        raise RuntimeError

    monkeypatch.setattr(rank, "sharing_cores", sharing)
    monkeypatch.setattr(rank.Rank, "carry_out", trains)
    assert train([*data["lm"], *SMALL], [], None, False) == 1
    assert seen == ["begins", "trains", "ends"]
