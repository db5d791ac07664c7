"""A job that is told to stop more than once."""

import errno
import gc
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from truesweep.callbacks import SIGNALS, Paused
from truesweep.jobs import launch as module
from truesweep.jobs.launch import launch, run_ranks
from truesweep.runs.run import Run


@pytest.fixture
def run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """One whose end is written while signals arrive, as those that a parent process hands on do."""
    created = Run.create(workplace / "run", config="trainer: {}\n", overrides=[], provenance={})
    end = Run.end

    def struck(run: Run, *how: Any) -> None:
        for signum in SIGNALS:
            signal.raise_signal(signum)
        end(run, *how)

    monkeypatch.setattr(Run, "end", struck)
    monkeypatch.setattr(module, "make", lambda *_: OneDevice)
    return created


class OneDevice:
    num_nodes = world_size = 1

    @staticmethod
    def local_ranks() -> int:
        return 1


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_run_that_was_stopped_says_so_whatever_signals_follow(
    run: Run, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    monkeypatch.setattr(module, "run_rank", lambda *_: signal.raise_signal(signum))
    code = 130 if signum == signal.SIGINT else 143
    assert launch(run) == code
    assert (run.status["state"], run.status["exit_code"]) == ("preempted", code)


def test_a_signal_that_finds_nothing_to_stop_is_an_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_rank", lambda *_: None)
    assert launch(run) == 143  # SIGTERM was the first of those that came at its end
    assert not run.alive
    assert run.status["state"] == "running"  # to be resumed: nothing was lost


@pytest.mark.parametrize("failed", [False, True])
def test_a_disk_that_takes_no_status_ends_a_run_in_words(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failed: bool,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "run_rank", full if failed else lambda *_: None)
    monkeypatch.setattr(Run, "end", full)
    assert launch(run) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_ranks_that_pause_leave_no_semaphores_to_their_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent, which holds them, goes at once: a job's process ends without a last collection."""
    agents = []

    class Agent:
        signum = 0

        def __init__(self, *_: object, **__: object) -> None:
            agents.append(weakref.ref(self))

        def run(self) -> Any:
            values = {0: Paused(6), 1: Paused(6)}
            return SimpleNamespace(is_failed=lambda: False, return_values=values)

    monkeypatch.setattr(module, "Agent", Agent)
    monkeypatch.setattr(Run, "largest_micro_batch", None)
    gc.disable()
    try:
        with pytest.raises(Paused) as caught:
            run_ranks(Run(tmp_path), 2, resume=False)
        assert caught.value.step == 6
        del caught
        assert [agent() for agent in agents] == [None]
    finally:
        gc.enable()
