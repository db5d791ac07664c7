import gc
import multiprocessing
import shutil
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.damage import change_digit
from tests.sweeps.search_driver import DEPTH, LR, MODEL, complete, drive, loss, search
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.record.study import open_storage
from truesweep.runs.run import Run
from truesweep.sweeps import study
from truesweep.sweeps import trials as trials_module
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.launchers import points_at_once
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.study import Search


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What the study holds, read by Optuna alone."""
    storage = open_storage("study.journal", folder)
    return optuna.load_study(study_name=folder.name, storage=storage).trials


def run_all(source: Search) -> list[Run]:
    done = []
    while (job := source.ask()) is not None:
        complete(job, val_loss=loss(job.varies))
        source.tell(job)
        done.append(job)
    assert source.exhausted
    return done


def start(
    folder: Path, log: Path, storage: str | None = None, stop_after: int = 0
) -> ForkServerProcess:
    """A driver in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sweeps.search_driver"])
    driver = context.Process(target=drive, args=(folder, log, storage, stop_after), daemon=True)
    driver.start()
    return driver


def lines_of(log: Path, count: int) -> list[list[str]]:
    """The first lines of a driver's log, when they are there."""
    until = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "gp"])
def test_each_suggestion_is_run_and_told(tmp_path: Path, sampler: str) -> None:
    done = run_all(search(tmp_path / "s", sampler=sampler, jobs=8))
    assert len({job.id for job in done}) == 8
    told = [t for t in trials(tmp_path / "s") if "note" not in t.user_attrs]
    assert [t.state.name for t in told] == ["COMPLETE"] * 8
    assert [t.value for t in told] == [loss(job.varies) for job in done]
    assert [job.job["trial"]["number"] for job in done] == [t.number for t in told]


def test_a_search_finds_better_points_than_chance(tmp_path: Path) -> None:
    def late_sum(name: str) -> float:
        source = search(tmp_path / name, [LR, DEPTH], sampler=name, jobs=24)
        return sum(loss(job.varies) for job in run_all(source)[-10:])

    assert late_sum("tpe") < late_sum("random")


def test_the_same_seed_suggests_the_same_and_another_does_not(tmp_path: Path) -> None:
    points = [
        [job.varies for job in run_all(search(tmp_path / name, seed=seed, jobs=6))]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert points[0] == points[1] != points[2]


def test_a_space_becomes_distributions(tmp_path: Path) -> None:
    axes = [
        LR,
        Axis("optimizer.weight_decay", "float", low=0.0, high=0.3),
        Axis("model.width", "int", low=16, high=512, log=True),
        Axis("model.dropout", "float", (0.1, 0.2, 0.3), low=0.1, high=0.3, step=0.1),
        Axis("data.batch_size", values=(8, 16)),
        Axis("trainer.max_steps", values=(200, 100)),
        Axis("model.dims", values=([1, 2], [3])),
    ]
    paired = [["data.batch_size", "trainer.max_steps"]]
    (job,) = run_all(search(tmp_path / "s", axes, paired=paired, jobs=1, sampler="random"))
    (trial,) = trials(tmp_path / "s")
    made = trial.distributions
    assert made["optimizer.lr"] == optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    assert made["optimizer.weight_decay"] == optuna.distributions.FloatDistribution(0.0, 0.3)
    assert made["model.width"] == optuna.distributions.IntDistribution(16, 512, log=True)
    assert made["model.dropout"] == optuna.distributions.FloatDistribution(0.1, 0.3, step=0.1)
    categories = optuna.distributions.CategoricalDistribution
    assert made["model.dims"] == categories(["[1,2]", "[3]"])
    assert made["data.batch_size, trainer.max_steps"] == categories(["8, 200", "16, 100"])
    varies = job.varies
    assert (varies["data.batch_size"], varies["trainer.max_steps"]) in [(8, 200), (16, 100)]
    assert varies["model.dims"] in ([1, 2], [3])
    assert varies["model.dropout"] in (0.1, 0.2, 0.3)
    assert f"{varies['optimizer.lr']:.4g}" == f"{varies['optimizer.lr']:.9g}"


def test_a_point_is_run_once_and_a_small_space_is_run_whole(tmp_path: Path) -> None:
    notes: list[str] = []
    axes = [LR_CHOICE, MODEL]
    done = run_all(search(tmp_path / "s", axes, jobs=50, note=notes.append))
    points = Counter((job.varies["optimizer.lr"], job.varies["model"]) for job in done)
    assert len(points) == 4
    assert set(points.values()) == {1}
    again = [t for t in trials(tmp_path / "s") if "note" in t.user_attrs]
    assert again
    first = {str(t.params): t.value for t in reversed(trials(tmp_path / "s"))}
    assert all(t.state.name == "COMPLETE" and t.value == first[str(t.params)] for t in again)
    told = [note for note in notes if "the same point as trial" in note]
    assert told
    assert len(told) == len({note.partition("as trial")[2] for note in told})  # each once


def test_a_search_goes_on_though_a_point_was_suggested_twice(tmp_path: Path) -> None:
    """That trial is told the value of the first one, and has no job."""
    axes = [LR_CHOICE, MODEL]
    run_all(search(tmp_path / "s", axes, jobs=50))
    assert any("note" in t.user_attrs and t.value for t in trials(tmp_path / "s"))
    notes: list[str] = []
    assert not run_all(search(tmp_path / "s", axes, jobs=51, note=notes.append))
    assert not any("another figure" in note for note in notes)


def test_a_grid_is_run_in_its_order(tmp_path: Path) -> None:
    done = run_all(search(tmp_path / "s", [LR_CHOICE, MODEL], sampler="grid", jobs=50))
    assert [(job.varies["optimizer.lr"], job.varies["model"]) for job in done] == [
        (0.01, "llama"),
        (0.01, "qwen3"),
        (0.1, "llama"),
        (0.1, "qwen3"),
    ]


def test_excluded_points_get_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exclude = [{"optimizer.lr": ">= 0.01", "model": "llama"}]
    done = run_all(search(tmp_path / "s", exclude=exclude, jobs=12))
    assert len(done) == 12
    assert not any(j.varies["optimizer.lr"] >= 0.01 and j.varies["model"] == "llama" for j in done)
    assert any(t.user_attrs.get("note") == "excluded" for t in trials(tmp_path / "s"))
    monkeypatch.setattr(study, "TRIES_WITHOUT_END", 5)
    everything = search(tmp_path / "none", [LR], exclude=[{"optimizer.lr": ">= 0"}])
    assert everything.ask() is None
    assert everything.exhausted


def test_two_objectives(tmp_path: Path) -> None:
    source = search(tmp_path / "s", sampler="nsga2", objective=["val/loss", "val/accuracy"])
    while (job := source.ask()) is not None:
        complete(job, val_loss=loss(job.varies), val_accuracy=0.5)
        source.tell(job)
    study = optuna.load_study(study_name="s", storage=open_storage("study.journal", tmp_path / "s"))
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert all(t.values == [loss(_numbers(t)), 0.5] for t in study.trials)


def _numbers(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    lr = float(f"{trial.params['optimizer.lr']:.4g}")
    return {**trial.params, "optimizer.lr": lr}


def test_a_failed_job_and_one_without_the_figure(tmp_path: Path) -> None:
    source = search(tmp_path / "s", jobs=3)
    failed, without, nan = (source.ask() for _ in range(3))
    assert failed is not None
    assert without is not None
    assert nan is not None
    failed.end("failed", 1, error="out of memory")
    complete(without, test_loss=1.0)
    complete(nan, val_loss=float("nan"))
    for job in (failed, without, nan):
        source.tell(job)
    told = trials(tmp_path / "s")
    assert [t.state.name for t in told] == ["FAIL"] * 3
    assert told[0].user_attrs["error"] == "out of memory"
    assert "val/loss" in told[1].user_attrs["error"]


def test_a_point_is_worth_the_mean_over_its_seeds(tmp_path: Path) -> None:
    source = search(tmp_path / "s", jobs=1, seeds=[3, 5, 7])
    jobs = [source.ask() for _ in range(3)]
    assert source.ask() is None
    for job, value in zip(jobs, (1.0, 2.0, 6.0), strict=True):
        assert job is not None
        assert trials(tmp_path / "s")[0].state.name == "RUNNING"
        complete(job, val_loss=value)
        source.tell(job)
    (trial,) = trials(tmp_path / "s")
    assert trial.value == 3.0
    seeds = [job.read_config()["seed"] for job in jobs if job]
    assert seeds == [3, 5, 7]


def test_with_a_pruner_the_first_seed_goes_ahead(tmp_path: Path) -> None:
    source = search(tmp_path / "s", jobs=2, seeds=2, pruner="median", pruner_warmup=4)
    first, bad = source.ask(), source.ask()
    assert first is not None
    assert bad is not None
    assert source.ask() is None
    assert not source.exhausted
    assert first.job["trial"]["pruner"]["warmup"] == 4
    complete(first, val_loss=1.0)
    source.tell(first)
    second = source.ask()
    assert second is not None
    assert second.job["trial"]["number"] == 0
    assert second.job["trial"]["pruner"] is None
    storage = open_storage("study.journal", tmp_path / "s")
    storage.set_trial_intermediate_value(1, 5, 9.0)
    bad.end("pruned", 0)
    source.tell(bad)
    complete(second, val_loss=2.0)
    source.tell(second)
    assert source.exhausted
    assert [(t.state.name, t.value) for t in trials(tmp_path / "s")] == [
        ("COMPLETE", 1.5),
        ("PRUNED", 9.0),
    ]


def test_a_killed_driver_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    driver = start(folder, tmp_path / "log", stop_after=4)
    lines = lines_of(tmp_path / "log", 5)
    driver.kill()
    driver.join()
    asked = [job for word, job in lines if word == "asked"]
    (told,) = [job for word, job in lines if word == "told"]
    source = search(folder, jobs=12)
    again = [source.ask() for _ in range(3)]
    assert [job.id for job in again if job] == [job for job in asked if job != told]
    assert [job.job["trial"]["number"] for job in again if job] == [1, 2, 3]
    for job in again:
        assert job is not None
        complete(job, val_loss=loss(job.varies))
        source.tell(job)
    rest = run_all(source)
    assert len(rest) == 12 - 4
    states = Counter(t.state.name for t in trials(folder) if "note" not in t.user_attrs)
    assert states == {"COMPLETE": 12}
    assert len(list(folder.glob("*/config.yaml"))) == 12


def test_a_resumed_driver_does_not_suggest_the_same_again(tmp_path: Path) -> None:
    first = run_all(search(tmp_path / "s", jobs=4, sampler="random"))
    second = run_all(search(tmp_path / "s", jobs=8, sampler="random"))
    assert len(second) == 4
    assert not {job.id for job in first} & {job.id for job in second}
    assert len(trials(tmp_path / "s")) == 8


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "gp", "cmaes"])
def test_drivers_that_are_killed_change_no_point(tmp_path: Path, sampler: str) -> None:
    asked: dict[str, Any] = {"sampler": sampler, "jobs": 7}
    whole = [job.varies for job in run_all(search(tmp_path / "whole" / "s", **asked))]
    points = []
    for _ in whole:
        source = search(tmp_path / "killed" / "s", **asked)
        job = source.ask()  # what the driver before it had begun
        assert job is not None
        complete(job, val_loss=loss(job.varies))
        source.tell(job)
        points.append(job.varies)
        source.ask()
        del source  # and with it the lock that says that it lives
        gc.collect()
    assert points == whole


BATCH = Axis("data.batch_size", values=(8, 16))
MORE = Axis("data.batch_size", values=(8, 16, 32))
FEW = Axis("data.batch_size", values=(16,))
DEPTHS = Axis("model.depth", values=(2, 3, 6))


@pytest.mark.parametrize(
    ("before", "after"),
    [(BATCH, MORE), (MORE, FEW), (DEPTH, DEPTHS), (DEPTHS, DEPTH), (BATCH, LR)],
)
def test_a_search_goes_on_in_another_space(tmp_path: Path, before: Axis, after: Axis) -> None:
    notes: list[str] = []
    folder, key = tmp_path / "s", before.name
    first = run_all(search(folder, [LR, before], jobs=8, sampler="random"))
    second = run_all(search(folder, [LR, after], jobs=12, note=notes.append))
    assert not {job.id for job in first} & {job.id for job in second}
    assert len(second) == 4
    (name,) = {job.job["trial"]["study"] for job in second}
    assert (name != "s") == (before is not BATCH or after is not LR)
    storage = open_storage("study.journal", folder)
    known = optuna.load_study(study_name=name, storage=storage).trials
    shared = [job for job in first if key == after.name and job.varies[key] in after.values]
    assert [t.value for t in known if "origin" in t.user_attrs] == [loss(j.varies) for j in shared]
    outside = len(first) - len(shared) if name != "s" else 0
    counts = f"points of an earlier space, which the budget counts: {outside}"
    assert [note for note in notes if "earlier" in note] == [counts] * (outside > 0)
    assert run_all(search(folder, [LR, after], jobs=12)) == []
    assert run_all(search(folder, [LR, before], jobs=12)) == []
    third = run_all(search(folder, [LR, before], jobs=13))
    assert third[0].id not in {job.id for job in first + second}
    assert third[0].job["trial"]["study"] == "s"


def test_a_point_in_both_spaces_is_told_and_not_run_again(tmp_path: Path) -> None:
    first = run_all(search(tmp_path / "s", [LR_CHOICE, BATCH], jobs=50))
    second = run_all(search(tmp_path / "s", [LR_CHOICE, MORE], jobs=50))
    assert len(first) == 4
    assert sorted(job.varies["optimizer.lr"] for job in second) == [0.01, 0.1]
    assert all(job.varies["data.batch_size"] == 32 for job in second)


def test_a_narrower_space_ends_what_was_left_outside_it(tmp_path: Path) -> None:
    left = leave_behind(tmp_path / "s", [DEPTH])
    narrow = Axis("model.depth", "int", values=(2, 3), low=2, high=3, step=1)
    done = run_all(search(tmp_path / "s", [narrow], jobs=8))
    assert {job.varies["model.depth"] for job in done} == {2, 3}
    gone = [t for t in trials(tmp_path / "s") if "not in the space" in t.user_attrs.get("note", "")]
    assert [t.params["model.depth"] for t in gone] == [d for d in left if d > 3]
    assert gone


def test_what_a_dead_driver_left_goes_on_in_another_space(tmp_path: Path) -> None:
    left = leave_behind(tmp_path / "s", [BATCH])
    assert sorted(left) == [8, 16]
    source = search(tmp_path / "s", [FEW], jobs=2)
    assert [job.varies["data.batch_size"] for job in run_all(source)] == [16]
    assert [t.state.name for t in trials(tmp_path / "s")].count("RUNNING") == 1
    (other,) = run_all(search(tmp_path / "s", [BATCH], jobs=2))
    assert other.varies["data.batch_size"] == 8


def leave_behind(folder: Path, axes: list[Axis]) -> list[Any]:
    """The values of the first axis that a driver began and did not end."""
    source = search(folder, axes, jobs=4, sampler="grid")
    left = [job.varies[axes[0].name] for job in iter(source.ask, None)]
    del source  # its lock goes with it, as if it had died
    gc.collect()
    return left


def test_a_failed_point_is_tried_again_by_the_next_driver(tmp_path: Path) -> None:
    def some_fail(*bad: int, jobs: int = 6) -> list[Run]:
        source, done = search(tmp_path / "s", jobs=jobs), list[Run]()
        while (job := source.ask()) is not None:
            if len(done) in bad:
                job.end("failed", 1, error="No space left on device")
            else:
                complete(job, val_loss=loss(job.varies))
            source.tell(job)
            done.append(job)
        return done

    first = some_fail(0, 2, 3)
    assert len({job.id for job in first}) == len(first) == 6
    second = some_fail(1)
    assert [job.id for job in second] == [first[i].id for i in (0, 2, 3)]
    third = some_fail(jobs=7)
    assert [job.id for job in third[:-1]] == [first[2].id]
    assert third[-1].id not in {job.id for job in first}
    assert some_fail(jobs=7) == []
    ended = {
        str(t.params): t.state.name for t in trials(tmp_path / "s") if "note" not in t.user_attrs
    }
    assert list(ended.values()) == ["COMPLETE"] * 7


def test_what_cannot_be_told_is_not_tried_again(tmp_path: Path) -> None:
    source = search(tmp_path / "s", jobs=1)
    job = source.ask()
    assert job is not None
    complete(job, val_loss=float("nan"))
    source.tell(job)
    again = search(tmp_path / "s", jobs=1)
    assert again.exhausted
    assert again.ask() is None


def test_a_line_that_a_full_disk_cut_short_is_dropped(tmp_path: Path) -> None:
    first = run_all(search(tmp_path / "s", jobs=3))
    journal = tmp_path / "s/study.journal"
    for torn in (b'{"op_code":4,"wor', b"x" * 9000):
        with journal.open("ab") as file:
            file.write(torn)
        first += run_all(search(tmp_path / "s", jobs=len(first) + 2))
    assert len({job.id for job in first}) == len(first) == 7
    assert [t.state.name for t in trials(tmp_path / "s")] == ["COMPLETE"] * 7


@pytest.mark.parametrize(
    ("entry", "what"), [("param_value_internal", "point"), ("values", "figure")]
)
def test_another_digit_in_the_record_is_noticed(tmp_path: Path, entry: str, what: str) -> None:
    notes: list[str] = []
    run_all(search(tmp_path / "s", jobs=3))
    search(tmp_path / "s", jobs=3, note=notes.append)
    assert not notes
    change_digit(tmp_path / "s/study.journal", f'"{entry}":')
    search(tmp_path / "s", jobs=3, note=notes.append)
    (note,) = notes
    assert note.startswith(f"trial 0 has another {what} than its jobs: ")


def test_what_has_become_of_a_trials_jobs_is_said_when_a_driver_begins(tmp_path: Path) -> None:
    first, second, *_ = run_all(search(tmp_path / "s", jobs=3, sampler="random"))
    first.config.unlink()
    shutil.rmtree(second.path)
    notes: list[str] = []
    again = search(tmp_path / "s", jobs=3, sampler="random", note=notes.append)
    assert again.exhausted
    said = "what is proposed follows from the search's record"
    assert len(notes) == 2
    assert notes[0].startswith(
        f"trial 0 has a job that cannot be read ({first.config}: is missing. Restore it"
    )
    assert notes[1] == f"trial 1 has lost the directory of its job {second.id}: {said}"


def test_a_search_goes_on_in_a_directory_that_was_renamed(tmp_path: Path) -> None:
    def driver(name: str, jobs: int, command: bool) -> Search:
        sweep = SweepDirectory(tmp_path / name)
        if command:  # otherwise it is resumed from the directory
            sweep.ask([f"name={name}"], [], Sweep(method="search", jobs=jobs), {})
        return search(sweep.path, jobs=jobs)

    run_all(driver("old", 2, command=True))
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(run_all(driver("new", 4, command=False))) == 2
    assert len(run_all(driver("new", 6, command=True))) == 2
    storage = open_storage("study.journal", tmp_path / "new")
    assert optuna.get_all_study_names(storage) == ["old"]


def test_a_living_driver_keeps_its_trials(tmp_path: Path) -> None:
    one, two = search(tmp_path / "s", jobs=2), search(tmp_path / "s", jobs=2)
    mine, theirs = one.ask(), two.ask()
    assert mine is not None
    assert theirs is not None
    assert mine.id != theirs.id
    assert one.ask() is two.ask() is None


def test_only_one_driver_takes_a_trial_up(tmp_path: Path) -> None:
    driver = start(tmp_path / "s", tmp_path / "log", stop_after=2)
    lines_of(tmp_path / "log", 3)
    driver.kill()
    driver.join()
    one, two = (search(tmp_path / "s", jobs=12)._trials for _ in range(2))
    (left,), (seen,) = one.abandoned(), two.abandoned()
    assert one.take_up(left)
    assert not two.take_up(seen)
    assert one.abandoned() == two.abandoned() == []


def test_the_budget_holds_for_drivers_that_ask_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Search, "_spent", lambda self: False)
    monkeypatch.setattr(study, "TRIES_WITHOUT_END", 3)
    source = search(tmp_path / "s", jobs=2)
    assert [source.ask() is None for _ in range(4)] == [False, False, True, True]


def test_no_more_points_are_tried_at_once_than_the_limit(tmp_path: Path) -> None:
    source = search(tmp_path / "s", jobs=6, seeds=2, limit=2)
    jobs = list(iter(source.ask, None))
    assert [job.job["trial"]["number"] for job in jobs] == [0, 0, 1, 1]
    assert not source.exhausted
    for job in jobs[1:3]:
        complete(job, val_loss=1.0)
        source.tell(job)
    assert source.ask() is None
    jobs[0].end("failed", 1, error="out of memory")
    source.tell(jobs[0])
    assert len(list(iter(source.ask, None))) == 2
    asked = [Sweep(method="search", jobs=24, parallel=parallel) for parallel in (None, 3)]
    assert [points_at_once(one, {}) for one in asked] == [None, 3]
    for launcher in ("SlurmLauncher", "RayLauncher"):
        cluster = {"_target_": f"hydra_plugins.truesweep.{launcher}"}
        assert [points_at_once(one, cluster) for one in asked] == [8, 3]


def test_a_point_that_cannot_be_run_is_told_to_be_bad(tmp_path: Path) -> None:
    notes: list[str] = []
    source = search(tmp_path / "s", jobs=3, note=notes.append)
    make = source._make

    def refuse(point: Any, seed: int, trial: dict[str, Any]) -> Run:
        if trial["number"] < 2:
            raise ConfigError("model.width: is no multiple of model.heads")
        return make(point, seed, trial)

    source._make = refuse
    assert len(run_all(source)) == 3
    assert [t.state.name for t in trials(tmp_path / "s")[:2]] == ["PRUNED", "PRUNED"]
    assert sum("is no multiple" in note for note in notes) == 2


@pytest.mark.parametrize("place", ["one directory", "two directories", "a database"])
def test_drivers_share_a_search(tmp_path: Path, place: str) -> None:
    shared = {"one directory": None, "two directories": str(tmp_path / "shared.journal")}
    storage = shared.get(place, f"sqlite:///{tmp_path}/shared.db")
    folders = [tmp_path / "a/s", tmp_path / ("a/s" if place == "one directory" else "b/s")]
    if place == "a database":
        open_storage(str(storage), tmp_path)
    logs = [tmp_path / "log0", tmp_path / "log1"]
    running = [start(*where, storage) for where in zip(folders, logs, strict=True)]
    for driver in running:
        driver.join(60)
    assert [driver.exitcode for driver in running] == [0, 0]
    told = [[job for word, job in lines_of(log, 1) if word == "told"] for log in logs]
    assert all(told)
    assert len(told[0] + told[1]) == len({*told[0], *told[1]}) == 12


def test_a_driver_elsewhere_that_falls_silent_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = str(tmp_path / "shared.journal")
    driver = start(tmp_path / "a/s", tmp_path / "log", storage, stop_after=3)
    asked = [job for word, job in lines_of(tmp_path / "log", 4) if word == "asked"][1:]
    here = search(tmp_path / "b/s", storage=storage, jobs=3)
    assert here.ask() is None
    driver.kill()
    driver.join()
    assert here.ask() is None
    monkeypatch.setattr(trials_module, "DEAD_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(trials_module, "SETTLE_SECONDS", 0.1)
    assert not here.exhausted
    taken = [here.ask(), here.ask()]
    assert [job.id for job in taken if job] == asked
    assert here.ask() is None


LR_CHOICE = Axis("optimizer.lr", values=(0.01, 0.1))


def test_what_cannot_be_searched_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot list an interval"):
        search(tmp_path / "a", sampler="grid")
    monkeypatch.setattr("truesweep.sweeps.sampling.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install cmaes"):
        search(tmp_path / "b", sampler="cmaes")
    monkeypatch.undo()
    search(tmp_path / "d")
    with pytest.raises(ConfigError, match="the study d is about val/loss"):
        search(tmp_path / "d", objective="val/accuracy")
    with pytest.raises(ConfigError, match="the database cannot be opened"):
        search(tmp_path / "e", storage="nosuch://host/db")
    with pytest.raises(ConfigError, match="holds a password"):
        search(tmp_path / "e", storage="postgresql://me:hunter2@host/db")


def test_a_password_stays_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_SECRET", "hunter2")
    storage = f"sqlite:///{tmp_path}/${{oc.env:DB_SECRET}}.db"
    (job,) = run_all(search(tmp_path / "s", storage=storage, jobs=1))
    assert (tmp_path / "hunter2.db").exists()
    assert job.job["trial"]["storage"] == storage
