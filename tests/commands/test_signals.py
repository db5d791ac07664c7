"""Signals that find no training: before it, while it starts, and after it."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.commands.conftest import SMALL, truesweep
from truesweep.runs.run import Run

STEPS = ["trainer.max_steps=12", "callbacks.checkpoint.every_n_steps=4"]


def started(asked: list[str], cwd: Path) -> subprocess.Popen[str]:
    """A training whose output somebody waits for the end of."""
    command = [sys.executable, "-m", "truesweep", "train", *asked]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def catches(process: subprocess.Popen[str], signum: signal.Signals) -> bool:
    """Whether a process, which must not have ended, has a handler for a signal."""
    assert process.poll() is None
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signum - 1) & 1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_a_run_is_planned_leaves_nothing(
    data: dict[str, list[str]], workplace: Path, signum: signal.Signals
) -> None:
    process = started([*data["lm"], *SMALL, "name=early"], workplace)
    while not catches(process, signum):  # from then on; the imports and the plan take longer
        time.sleep(0.01)
    process.send_signal(signum)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 143
    assert not (workplace / "outputs").exists()


def writer_of(log: Path, process: subprocess.Popen[str]) -> psutil.Process:
    """The one of a command's processes that has a log open."""
    while True:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if str(log) in [file.path for file in child.open_files()]:
                    return child


@pytest.mark.slow
def test_a_rank_that_is_told_alone_before_it_trains_stops_the_others(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, *STEPS, "trainer.devices=2", "name=s"]
    process = started(asked, workplace)
    while not (logs := list((workplace / "outputs").glob("s/*/logs/rank1.log"))):
        time.sleep(0.01)
    since = time.monotonic()
    writer_of(logs[0], process).send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert time.monotonic() - since < 55  # of which 25 are for ranks that wait for others
    (run,) = (workplace / "outputs/s").iterdir()
    assert Run(run).status["state"] == "preempted"
    assert not Run(run).status.get("step")


@pytest.mark.slow
@pytest.mark.parametrize(("after", "signum"), [(0.0, signal.SIGTERM), (1.5, signal.SIGINT)])
def test_a_signal_while_ranks_start_is_soon_obeyed(
    data: dict[str, list[str]], workplace: Path, after: float, signum: signal.Signals
) -> None:
    asked = [*data["lm"], *SMALL, *STEPS, "trainer.devices=2", "name=s"]
    process = started(asked, workplace)
    while not list((workplace / "outputs").glob("s/*/status.json")):
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signum)
    since = time.monotonic()
    said, _ = process.communicate(timeout=60)  # until the last process has let go of the pipe
    assert time.monotonic() - since < 25
    assert process.returncode == (143 if signum == signal.SIGTERM else 130)
    assert "Traceback" not in said
    (run,) = (workplace / "outputs/s").iterdir()
    assert Run(run).status["state"] == "preempted"
    resumed = truesweep("resume", str(run), cwd=workplace)
    assert resumed.code == 0, resumed.out + resumed.err
    assert Run(run).status["state"] == "completed"
