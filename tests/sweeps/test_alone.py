"""A run by itself on a cluster, with a pretended one in its place."""

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.test_driver import Pretended
from truesweep.commands.output import show_result
from truesweep.commands.resume import resume
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps import alone
from truesweep.sweeps.alone import read_launcher, run_alone
from truesweep.sweeps.protocols import BUSY, LOST, NotNow


@pytest.fixture
def run(tmp_path: Path) -> Run:
    trainer = "{_target_: truesweep.jobs.trainer.TrainerSettings, accelerator: cpu}"
    config = f"seed: 0\nallowed_packages: []\ntrainer: {trainer}"
    made = Run.create(
        tmp_path / "outputs/lm/1a", config=config, overrides=[], provenance={"directory": "."}
    )
    made.log(0).write_text("of an earlier allocation\n")
    return made


class Cluster(Pretended):
    """Ends its job when it is asked for the third time."""

    def __init__(self, meanwhile: Callable[[int], None], code: int = 0) -> None:
        super().__init__()
        self.meanwhile, self.code, self.waits, self.stopped = meanwhile, code, 0, 0

    def takes_up(self, job: Run) -> bool:
        return True

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        self.waits += 1
        self.meanwhile(self.waits)
        if self.waits < 3:
            return []
        (job,) = self.running
        self._running.clear()
        return [(job, self.code)]

    def stop(self, signum: int) -> None:
        self.stopped = signum if self.running else 0
        self._running.clear()


def test_what_the_run_says_is_shown_line_by_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {1: "step 1/2  lo", 2: "ss 2.0\nstep", 3: " 2/2  loss 1.0\n"}

    def meanwhile(wait: int) -> None:
        with run.log(0).open("a") as file:
            file.write(said[wait])

    cluster = Cluster(meanwhile)
    assert run_alone(run, cluster) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("step 1/2  loss 2.0\nstep 2/2  loss 1.0\n")
    assert "earlier" not in shown
    assert cluster.stopped == 0


def test_what_the_cluster_says_of_a_failure_is_told_once(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def cancelled(wait: int) -> None:
        run.end("failed", 1, "Slurm's job 7 was ended (cancelled)")

    assert run_alone(run, Cluster(cancelled, code=1)) == 1
    assert "job 7 was ended (cancelled)" in capsys.readouterr().err

    def fails(wait: int) -> None:
        run.end("failed", 1, "no data")
        run.log(0).write_text("The run failed: no data; and more of it than there was before\n")

    assert run_alone(run, Cluster(fails, code=1)) == 1
    told = capsys.readouterr()
    assert (told.out + told.err).count("no data") == 1


def test_a_run_whose_node_is_lost_goes_on_elsewhere(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "SECONDS_TO_TRY_AGAIN", 0.0)

    def meanwhile(wait: int) -> None:
        cluster.code = LOST if wait == 3 else 0
        if wait == 4:
            cluster.stop(signal.SIGTERM)
            raise NotNow("Slurm does not answer", [run])

    cluster = Cluster(meanwhile)
    assert run_alone(run, cluster) == 0
    assert cluster.order == [run.label] * 3
    assert cluster.resumed == [run.label] * 2
    assert cluster.waits == 5


def test_a_run_that_another_process_works_on_is_left_to_it(run: Run) -> None:
    with pytest.raises(ConfigError, match="1a is being worked on"):
        run_alone(run, Cluster(lambda wait: None, code=BUSY))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_the_run_saved(
    run: Run, signum: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signum)
    cluster = Cluster(lambda wait: os.kill(os.getpid(), signum))
    assert run_alone(run, cluster) == 128 + signum
    (run.path / "status.json").unlink()  # it has waited all the time
    show_result(run, 128 + signum)
    told = " ".join(capsys.readouterr().out.split())
    assert "Stopped before it began. To go on: truesweep resume" in told
    assert (cluster.stopped, cluster.waits) == (signum, 1)
    assert signal.getsignal(signum) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hydra/sweeper=optuna", "hydra/sweeper=optuna: is for a sweep; add -m"),
        ("hydra/launcher=basic", "hydra/launcher=basic: has no effect on a run by itself"),
        ("hydra.launcher.slots=4", "hydra.launcher.slots=4: has no effect on a run by itself"),
    ],
)
def test_what_is_for_sweeps_only_is_refused(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_launcher([line, "seed=1"], [])


def test_a_cluster_is_chosen_as_for_a_sweep() -> None:
    asked = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "seed=1"]
    assert read_launcher(asked, [])["partition"] == "gpu"
    assert read_launcher(["hydra/launcher=local"], []) == {}
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.partitionn"):
        read_launcher(["hydra/launcher=slurm", "hydra.launcher.partitionn=gpu"], [])


def test_a_cluster_of_rays_is_chosen_likewise() -> None:
    pytest.importorskip("ray", reason="needs Ray (pip install 'truesweep[ray]')")
    asked = ["hydra/launcher=ray", "hydra.launcher.resources={spot: 1}"]
    assert read_launcher(asked, [])["resources"] == {"spot": 1}


def test_a_run_goes_on_where_it_was_started(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[Any] = []

    def make_executor(launcher: Any) -> Cluster:
        used.append(launcher)
        return Cluster(lambda wait: None)

    module = importlib.import_module("truesweep.commands.resume")
    monkeypatch.setattr(module, "make_executor", make_executor)
    assert resume(run.path, ["hydra/launcher=slurm", "hydra.launcher.timeout_min=9"]) == 0
    assert resume(run.path) == 0  # as the command before has it
    assert [each["timeout_min"] for each in used] == [9, 9]
    with pytest.raises(ConfigError, match="waits or runs on Slurm"):
        resume(run.path, ["trainer.max_steps=9"])
