import os
import signal
from pathlib import Path

import pytest

from tests.sweeps.test_driver import Pretended, run, sweep_of
from truesweep.errors import ConfigError
from truesweep.record import dashboard
from truesweep.record.mirror import records_of, replace_records
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.summary import check_dashboard, link_records


def record(folder: Path, name: str) -> Path:
    path = folder / "wandb" / name
    path.mkdir(parents=True)
    (path / f"{name}.wandb").touch()
    return path


def test_a_sweeps_records_are_found_in_one_place(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    own = record(sweep.path, "offline-run-3-summary")
    old, other = (record(sweep.path / job, f"offline-run-1-{job}") for job in ("a", "b"))
    (old.parent / "latest-run").symlink_to(old)
    link_records(sweep)
    names = {path.name for path in own.parent.iterdir()}
    assert names == {own.name, old.name, other.name}
    assert (own.parent / old.name / f"{old.name}.wandb").is_file()
    assert records_of(sweep.path) == [own]  # each is sent once, from its job

    (old / f"{old.name}.wandb").unlink()  # resumed: a new record takes its place
    old.rename(old.with_name("offline-run-2-a"))
    link_records(sweep)
    link_records(sweep)
    names = {path.name for path in own.parent.iterdir()}
    assert names == {own.name, "offline-run-2-a", other.name}
    sweep.path.rename(tmp_path / "moved")
    assert (tmp_path / "moved/wandb" / other.name / f"{other.name}.wandb").is_file()


def test_a_sweep_that_is_summed_up_again_keeps_its_jobs_records(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    earlier = record(sweep.path, "offline-run-2-summary")
    jobs = record(sweep.path / "a", "offline-run-1-a")
    link_records(sweep)
    latest = record(sweep.path, "offline-run-3-summary")
    replace_records(sweep.path, latest)
    assert (jobs / f"{jobs.name}.wandb").is_file()
    assert (latest.parent / jobs.name / f"{jobs.name}.wandb").is_file()
    assert not earlier.exists()
    assert records_of(sweep.path) == [latest]


def test_a_sweep_without_records_gets_no_folder_for_them(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    (sweep.path / "a").mkdir(parents=True)
    link_records(sweep)
    assert not (sweep.path / "wandb").exists()


LOGGED = {"logger": {"_target_": "truesweep.record.wandb.WandbLogger"}, "allowed_packages": []}


def test_a_dashboard_that_is_asked_for_must_be_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    check_dashboard(Sweep(dashboard=True), LOGGED)
    with pytest.raises(ConfigError, match=r"not logged there; set logger=wandb"):
        check_dashboard(Sweep(dashboard=True), {"logger": None})
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'truesweep\[dashboard\]'"):
        check_dashboard(Sweep(dashboard=True), LOGGED)
    check_dashboard(Sweep(), LOGGED)


def test_the_end_of_a_sweep_is_its_report(tmp_path: Path) -> None:
    sweep, _ = sweep_of(tmp_path, [1, 1])
    code, told = run(sweep, Pretended())
    assert code == 0
    assert sweep.report.is_file()
    assert told.count("report: ") == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_at_once_has_a_page(tmp_path: Path, signum: int) -> None:
    sweep, jobs = sweep_of(tmp_path, [1, 1])

    class Stopped(Pretended):
        def wait(self, timeout: float) -> list[tuple[Run, int]]:
            os.kill(os.getpid(), signum)
            return super().wait(timeout)

    code, told = run(sweep, Stopped(slots=1))
    assert code == 128 + signum
    assert sweep.report.is_file()
    assert all(job.id in sweep.report.read_text() for job in jobs)
    assert "report: " not in told  # nothing was learned yet
