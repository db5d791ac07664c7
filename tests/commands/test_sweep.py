"""Sweeps as users start them: small, whole, through Hydra's plugins, ours and others'."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.plugins import Plugins

from tests.commands.conftest import (
    SMALL,
    start,
    truesweep,
    typed,
    values,
    wait_for_rows,
    write_data,
)
from truesweep.commands import plugins as foreign_jobs
from truesweep.commands.resume import resume
from truesweep.commands.status import status
from truesweep.commands.sweep import sweep
from truesweep.commands.train import train
from truesweep.config.roots import shipped
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planning import plan_sweep
from truesweep.sweeps.request import ask
from truesweep.sweeps.settings import Sweep

NAMED = sorted(path.stem for path in shipped("sweeps").glob("*.yaml"))
GRID = ["optimizer.lr=1e-3,3e-3", "model.depth=1,2", "name=s"]
FOREIGN = {
    "launcher": ["hydra/launcher=basic"],
    "sweeper": ["hydra/sweeper=basic"],
    "both": ["hydra/launcher=basic", "hydra/sweeper=basic"],
}


def small(data: list[str], *swept: str) -> list[str]:
    """Overrides of a small run, but for the keys that are swept."""
    keys = {override.partition("=")[0] for override in swept}
    return [o for o in (*data, *SMALL) if o.partition("=")[0] not in keys] + list(swept)


def rows(sweep: Path) -> list[dict[str, Any]]:
    """What `jobs.jsonl` says."""
    return [json.loads(line) for line in (sweep / "jobs.jsonl").read_text().splitlines()]


def test_a_grid_end_to_end(data: dict[str, list[str]], workplace: Path) -> None:
    asked = small(data["lm"], *GRID)
    done = typed("train", "-m", *asked, cwd=workplace)
    assert done.code == 0, done.out + done.err
    directory = workplace / "outputs/sweeps/s"
    jobs = rows(directory)
    assert [job["varies"] for job in jobs] == [
        {"optimizer.lr": lr, "model.depth": depth} for lr in (1e-3, 3e-3) for depth in (1, 2)
    ]
    assert {job["state"] for job in jobs} == {"completed"}
    assert len({job["objective"] for job in jobs}) == 4
    assert "4 completed" in done.out
    assert "lr=0.001 depth=2" in done.out
    # A job is the run that its values ask for, and nothing but its name differs.
    alone = small(data["lm"], "optimizer.lr=3e-3", "model.depth=2", "name=alone")
    assert train(alone, [], None, False) == 0
    (run,) = (workplace / "outputs/alone").iterdir()
    assert values(run) == values(directory / jobs[3]["id"])


def test_more_values_run_the_new_jobs_only(
    data: dict[str, list[str]],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("instantiate_sweeper", "instantiate_launcher"):  # the way is without detours
        monkeypatch.delattr(Plugins, name)
    asked = small(data["lm"], "model.depth=1,2", "name=s")
    assert sweep(asked, [], False) == 0
    directory = workplace / "outputs/sweeps/s"
    written = {job["id"]: when(directory, job) for job in rows(directory)}
    more = [o.replace("depth=1,2", "depth=1,2,3") for o in asked]
    assert sweep(more, [], False) == 0
    assert "2 of them there already" in capsys.readouterr().out
    assert [job["state"] for job in rows(directory)] == ["completed"] * 3
    assert {job["id"]: when(directory, job) for job in rows(directory)[:2]} == written
    assert yaml.safe_load((directory / "sweep.yaml").read_text())["asked"][1]["overrides"] == more


def test_a_sweep_stopped_while_its_jobs_are_made_loses_none(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create = Run.create

    def stopped(path: Path, **given: Any) -> Run:
        if list(path.parent.glob("*/config.yaml")):
            raise KeyboardInterrupt
        return create(path, **given)

    asked = small(data["lm"], "seed=0,1,2", "trainer.max_steps=2", "name=s")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "create", stopped)
        with pytest.raises(KeyboardInterrupt):
            sweep(asked, [], False)
    directory = workplace / "outputs/sweeps/s"
    assert len(list(directory.glob("*/config.yaml"))) == 1
    capsys.readouterr()
    assert status(directory) == 0
    assert "3 jobs: 3 queued" in capsys.readouterr().out
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # the data's paths are relative to where the sweep was asked for
    assert resume(directory) == 0
    assert [(job["varies"]["seed"], job["state"]) for job in rows(directory)] == [
        (seed, "completed") for seed in range(3)
    ]


def test_jobs_that_cannot_be_made_again_are_named(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = small(data["lm"], "seed=0,1", "name=s")
    directory = SweepDirectory(workplace / "outputs/sweeps/s")
    directory.ask(asked, [], Sweep(), {}, ["of-another-program"])
    with pytest.raises(ConfigError, match="1 of its jobs have no directory") as error:
        resume(directory.path)
    assert f"train -m {' '.join(asked)}" in str(error.value)
    assert not directory.jobs()


@pytest.mark.slow
def test_a_search_is_resumed_though_its_folder_has_moved(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("project").mkdir()
    monkeypatch.chdir("project")
    data = write_data(workplace / "project")
    asked = small(data["lm"], "optimizer.lr=1e-3,3e-3", "trainer.max_steps=2", "name=s")
    assert sweep([*asked, "sweeps.method=search", "sweeps.jobs=1"], [], False) == 0
    monkeypatch.chdir(workplace)
    (workplace / "project").rename(workplace / "moved")
    capsys.readouterr()
    assert resume(Path("moved/outputs/sweeps/s")) == 0
    assert Path.cwd() == workplace
    assert "report: moved/outputs/sweeps/s/report.html" in capsys.readouterr().out


def when(directory: Path, job: dict[str, Any]) -> int:
    """When a job last wrote a figure, in nanoseconds."""
    return (directory / str(job["id"]) / "metrics.jsonl").stat().st_mtime_ns


@pytest.mark.parametrize("foreign", FOREIGN)
def test_hydras_own_plugins_take_the_place_of_ours(
    data: dict[str, list[str]],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    foreign: str,
) -> None:
    asked = small(data["lm"], "model.depth=1,2", "name=s", "optimizer.weight_decay=0.1")
    planned = {job.id for job in plan_sweep(ask(asked)).jobs}
    assert sweep([*asked, *FOREIGN[foreign]], [], False) == 0
    directory = workplace / "outputs/sweeps/s"
    assert [job["state"] for job in rows(directory)] == ["completed", "completed"]
    assert sorted(job["varies"]["model.depth"] for job in rows(directory)) == [1, 2]
    out = capsys.readouterr().out
    assert "2 completed" in out
    assert (directory / "report.html").is_file()
    assert out.count("report: ") == 1
    # Whoever runs it, a job is the same, and nothing else lies beside it.
    assert {job["id"] for job in rows(directory)} == planned
    assert {path.name for path in directory.iterdir() if path.is_dir()} == planned


def test_another_sweeper_may_have_a_space_of_its_own(
    data: dict[str, list[str]], workplace: Path
) -> None:
    (workplace / "experiment").mkdir()
    (workplace / "experiment/own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: basic\n"
        "hydra: {sweeper: {params: {seed: '1,2'}}}\n"
    )
    asked = small(data["lm"], "trainer.max_steps=2", "name=s", "experiment=own")
    assert sweep(asked, [workplace], False) == 0
    assert [job["varies"] for job in rows(workplace / "outputs/sweeps/s")] == [
        {"seed": 1},
        {"seed": 2},
    ]


def test_settings_that_another_sweeper_cannot_start_with(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = small(data["lm"], "name=s", "hydra/sweeper=basic")
    for settings, said in (
        (["seed=1,2", "hydra.sweeper.max_batch_size=-3"], "AssertionError"),
        (["seed=interval(1,2)"], "does not support sweep type"),
        (["seed=1,2", "+hydra.sweeper.parms=2"], "parms"),
    ):
        with pytest.raises(ConfigError, match=rf"hydra\.sweeper.*{said}"):
            sweep([*asked, *settings], [], False)


def test_a_stopped_sweep_of_another_launcher_has_a_page(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_jobs, "launch", lambda *_, **__: 143)
    with pytest.raises(SystemExit) as caught:
        sweep(small(data["lm"], "seed=0,1", "name=s", "hydra/launcher=basic"), [], False)
    assert caught.value.code == 143
    assert (workplace / "outputs/sweeps/s/report.html").is_file()


@pytest.mark.parametrize("foreign", [None, "launcher", "sweeper", "both"])
def test_a_failed_job_is_an_exit_code_of_1(
    data: dict[str, list[str]],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    foreign: str | None,
) -> None:
    asked = small(data["lm"], "optimizer.lr=1e30,1e-3", "trainer.max_steps=40", "name=s")
    asked += ["optimizer=sgd", "trainer.gradient_clip_val=null", *FOREIGN.get(foreign or "", [])]
    assert sweep(asked, [], False) == 1
    states = [job["state"] for job in rows(workplace / "outputs/sweeps/s")]
    assert states == ["failed", "completed"]
    assert "Lower optimizer.lr" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(workplace.iterdir())
    assert sweep(small(data["lm"], *GRID, "hydra.launcher.slots=3"), [], True) == 0
    out = capsys.readouterr().out
    assert "lr=0.003 depth=2" in out
    assert "3 slots on the CPU" in out
    assert set(workplace.iterdir()) == before


def test_one_bad_point_starts_nothing(data: dict[str, list[str]], workplace: Path) -> None:
    before = set(workplace.iterdir())
    asked = small(data["lm"], "optimizer.lr=1e-3,3e-3", "model.heads=1,2,4,5", "name=s")
    with pytest.raises(ConfigError, match=r"in 2 of 8 jobs: lr=0\.001 heads=5; lr=0\.003 heads=5"):
        sweep(asked, [], False)
    assert set(workplace.iterdir()) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra/launcher=slrum", "seed=1,2"], "slurm"),
        (["hydra.launcher.slot=1", "seed=1,2"], "slots"),
        (["hydra.run.dir=x", "seed=1,2"], "launcher and sweeper"),
        (["seed=1"], "nothing varies"),
    ],
)
def test_a_wrong_command_line_starts_nothing(
    workplace: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(overrides, [], False)
    assert not list(workplace.iterdir())


def test_a_job_that_finds_no_room_starts_nothing(
    data: dict[str, list[str]], workplace: Path
) -> None:
    before = set(workplace.iterdir())
    asked = small(data["lm"], "trainer.devices=1,3", "hydra.launcher.slots=2")
    with pytest.raises(ConfigError, match=r"trainer\.devices=3"):
        sweep(asked, [], False)
    assert set(workplace.iterdir()) == before


def test_m_is_a_matter_of_sweeps(workplace: Path) -> None:
    done = truesweep("train", "optimizer.lr=1,2", cwd=workplace)
    assert done.code == 2
    assert "train -m" in done.err
    done = truesweep("train", "-m", "optimizer.lr=1,2", "--from", "x", cwd=workplace)
    assert done.code == 2
    assert "--from" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_sweep_goes_on(
    data: dict[str, list[str]], workplace: Path, how: signal.Signals, code: int
) -> None:
    asked = small(data["lm"], "trainer.max_steps=150", "seed=0,1", "name=s")
    asked += [
        "trainer.val_check_interval=150",
        "callbacks.checkpoint.every_n_steps=5",
        "hydra.launcher.slots=1",
    ]
    process = start(["-m", *asked], workplace)
    wait_for_rows(workplace / "outputs/sweeps/s", rows=8)
    process.send_signal(how)
    assert process.wait(60) == code
    directory = workplace / "outputs/sweeps/s"
    assert [job["state"] for job in rows(directory)] == ["preempted", "queued"]
    assert resume(directory) == 0
    assert [job["state"] for job in rows(directory)] == ["completed", "completed"]


NARROWER = {
    "lr_batch_depth_epochs": ["optimizer.lr=0.01", "model.depth=1,2"],
    "lr_range": ["optimizer.lr=0.004,0.128", "sweeps.seeds=2"],
    "lm": ["model.dropout=0", "data.batch_size=8"],
    "translation": ["optimizer.lr=0.01,0.02", "task.max_new_tokens=4", "task.beam_size=1"],
    "classification": ["sweeps.jobs=3"],
    "lr_batch_depth_epochs_search": ["sweeps.jobs=3", "data.batch_size=8"],
    "auto": ["sweeps.jobs=3"],
}
"""What leaves some jobs of each named sweep."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_named_sweep_runs(workplace: Path, name: str) -> None:
    """The whole space is checked; some of its jobs run for two steps."""
    asked = [f"sweeps={name}", "name=s", "logger=none", "trainer.threads=1", "model.width=32"]
    asked += ["trainer.accelerator=cpu", "model.heads=2", "model.feed_forward=64"]
    asked += ["trainer.max_steps=2", *tiny_data(workplace, name)]
    assert sweep(asked, [], True) == 0
    assert sweep([*asked, *NARROWER[name]], [], False) == 0
    jobs = rows(workplace / "outputs/sweeps/s")
    assert len(jobs) >= 3
    assert {job["state"] for job in jobs} <= {"completed", "pruned", "paused"}
    assert all(job["objective"] is not None for job in jobs if job["state"] == "completed")


def tiny_data(folder: Path, name: str) -> list[str]:
    """Overrides for small data of the task that a named sweep is about."""
    task = name if name in ("translation", "classification") else "lm"
    return [o for o in write_data(folder)[task] if not o.startswith(("task=", "tokenizer."))]


def test_there_is_a_sweep_for_each_task() -> None:
    assert {"lm", "translation", "classification", "lr_range"} < set(NAMED)
