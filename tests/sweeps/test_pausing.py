"""A search that pauses its jobs, with trainings that are mere curves."""

import gc
import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.sweeps.search_driver import search
from tests.sweeps.test_driver import Pretended
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.jobs.pausing import as_forecast, describe_rates, is_to_pause
from truesweep.optim.schedules import Linear
from truesweep.record.files import write_json
from truesweep.record.study import Reports, open_storage
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.progress import Board, counts
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.study import Search

TOTAL, EVERY = 100, 5
LR = Axis("optimizer.lr", values=tuple(0.004 * 2**i for i in range(6)))
BEST = 0.032
SETTINGS: dict[str, Any] = {"pruner": "forecast", "sampler": "grid", "jobs": 6, "pruner_warmup": 10}


def value(rate: float, step: int) -> float:
    """The best rate ends lowest, and is behind a lower one while it is high."""
    schedule = Linear().factor(min(step, TOTAL - 1), TOTAL)
    off = abs(math.log2(rate / BEST))
    fall = 0.4 * ((step / TOTAL) ** -0.5 - 1)
    return float(2 + 0.03 * off + fall + 3 * min(rate, 0.1) * schedule)


class Killed(Exception):
    """The driver is gone."""


class Curves(Pretended):
    """Jobs that report the values of a curve, as a training's callback does, until they pause.

    Args:
        slots: How many run beside each other.
        sign: -1 if what they report is better the more it is.
        kill_after: Slices after which the driver dies.
        stuck: Jobs that end as if they had paused, without a step.
    """

    def __init__(
        self, slots: int = 1, sign: float = 1.0, kill_after: int = 10**6, stuck: str = ""
    ) -> None:
        super().__init__(slots)
        self.sign, self.kill_after, self.stuck = sign, kill_after, stuck
        self.trained: list[tuple[str, int]] = []

    def start(self, job: Run, resume: bool) -> None:
        assert resume == bool(job.status)
        before = job.status
        super().start(job, resume)
        job.update_status(total_steps=TOTAL)
        if job.label == self.stuck and before:  # it is killed before it can say anything
            job.update_status(**before)

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        if not self._running:
            return []
        if len(self.order) >= self.kill_after:
            self._running = []
            raise Killed
        job = self._running.pop(0)
        if job.state == "paused":
            return [(job, 0)]
        trial = dict(job.job["trial"])
        objective, pruner = trial.pop("objective"), trial["pruner"]
        decide = partial(is_to_pause, first=pruner["warmup"], sign=pruner["sign"])
        about = describe_rates(Linear(), TOTAL)
        report = Reports(job.path, **trial, decide=decide, about=about)
        for step in range(job.step + EVERY, TOTAL + 1, EVERY):
            self.trained.append((job.label, step))
            seen = self.sign * value(job.varies["optimizer.lr"], step)
            with job.metrics.open("a") as rows:
                rows.write(json.dumps({"step": step, objective: seen}) + "\n")
            stop = report(step, seen)
            job.update_status(step=step)
            if stop:
                job.end("paused", 0)
                return [(job, 0)]
        write_json(job.results, {objective: seen})
        job.end("completed", 0)
        return [(job, 0)]


def run(folder: Path, executor: Curves, **settings: Any) -> tuple[SweepDirectory, str]:
    """Drive the search to its end; what a pipe was told."""
    asked = Sweep(**{"method": "search", **SETTINGS, **settings})
    sweep = SweepDirectory(folder)
    if not sweep.asked.exists():
        sweep.ask(["search"], [], asked, {})
    source = search(folder, [LR], **{**SETTINGS, **settings})
    told = io.StringIO()
    display = Display(sweep.name, Board.of(asked), Console(file=told))
    assert drive(sweep, source, executor, asked, display, last=False) == 0
    assert source.exhausted
    return sweep, told.getvalue()


def states(sweep: SweepDirectory) -> dict[float, str]:
    return {job.varies["optimizer.lr"]: job.state for job in sweep.jobs()}


@pytest.mark.parametrize(("sign", "slots"), [(1.0, 1), (-1.0, 1), (1.0, 3)])
def test_the_best_is_found_although_it_is_behind_at_first(
    tmp_path: Path, sign: float, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # to which the paths that are told are relative
    firsts = {rate: value(rate, 10) for rate in LR.values}
    assert min(firsts, key=lambda rate: firsts[rate]) != BEST
    executor = Curves(slots, sign)
    direction = "minimize" if sign > 0 else "maximize"
    sweep, told = run(tmp_path / "s", executor, objective="val/x", direction=direction)
    found = states(sweep)
    assert found[BEST] == "completed"
    assert set(found.values()) == {"completed", "paused"}
    assert len(executor.trained) == len(set(executor.trained))  # no step twice
    assert len(executor.trained) <= 0.8 * len(LR.values) * TOTAL / EVERY
    assert told.count("paused     ") == len(executor.order) - list(found.values()).count(
        "completed"
    )
    assert "thawed     " in told
    assert "to go on" not in told


def test_no_point_is_suggested_twice_while_there_are_others(tmp_path: Path) -> None:
    sweep, _ = run(tmp_path / "s", Curves(), sampler="tpe")
    trials = open_storage("study.journal", sweep.path).get_all_trials(0)
    assert len(trials) == len(LR.values)


def test_every_point_waits_at_first_however_rarely_it_is_validated(tmp_path: Path) -> None:
    for every in (2, 5, 10):  # steps of a slice; there is a validation each five
        executor = Curves()
        sweep, _ = run(tmp_path / str(every), executor, pruner_warmup=every)
        validations = len(LR.values) * max(1, every // EVERY)
        begun = {label for label, _ in executor.trained[:validations]}
        assert len(begun) == len(sweep.jobs()) == len(LR.values)


def test_status_counts_what_waits(tmp_path: Path) -> None:
    sweep, told = run(tmp_path / "s", Curves())
    rows = Board("val/loss", "min").rows(sweep.jobs())
    number = sum(row.state == "paused" for row in rows)
    said = f"6 jobs: {6 - number} completed, {number} paused"
    assert number
    assert counts(rows, sweep.planned) == said
    assert said in told
    assert {row["state"] for row in sweep.read_jobs()} == {"completed", "paused"}


CLIMB: dict[str, Any] = {"sampler": "climb", "start": {"optimizer.lr": 0.004}}


@pytest.mark.parametrize("slots", [1, 3])
def test_a_climb_goes_on_from_forecasts(tmp_path: Path, slots: int) -> None:
    executor = Curves(slots)
    sweep, _ = run(tmp_path / "s", executor, **CLIMB)
    found = states(sweep)
    assert list(found) == [*LR.values[:5]]  # from the lowest up to the first that is worse
    assert found[BEST] == "completed"
    assert found[0.004] == found[0.008] == "paused"
    assert len(executor.trained) == len(set(executor.trained))


def test_a_climb_takes_smaller_steps_once_none_of_the_larger_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Axis("optimizer.lr", "float", low=1e-5, high=1.0, log=True)
    monkeypatch.setattr("tests.sweeps.test_pausing.LR", wide)
    sweep, _ = run(tmp_path / "s", Curves(), sampler="climb", start={"optimizer.lr": 0.02}, jobs=16)
    rates = list(states(sweep))
    steps = [b / a for a in rates for b in rates]
    assert any(step == pytest.approx(3, rel=0.001) for step in steps)
    assert any(step == pytest.approx(3**0.5, rel=0.001) for step in steps)


def test_a_climb_passes_a_point_that_waits_without_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.sweeps.test_pausing.value",
        lambda rate, step, of=value: math.inf if rate > 0.05 else of(rate, step),
    )
    found = states(run(tmp_path / "s", Curves(), **CLIMB)[0])
    assert found[BEST] == "completed"
    assert found[0.064] == "paused"


@pytest.mark.parametrize("settings", [{}, CLIMB], ids=["grid", "climb"])
@pytest.mark.parametrize("kill_after", [3, 9])
def test_a_killed_driver_leaves_those_that_wait_as_they_were(
    tmp_path: Path, kill_after: int, settings: dict[str, Any]
) -> None:
    whole, _ = run(tmp_path / "whole", Curves(), **settings)
    first, second = Curves(kill_after=kill_after), Curves()
    with pytest.raises(Killed):
        run(tmp_path / "s", first, **settings)
    gc.collect()  # the driver's lock dies with it
    waited = {job.id: job.step for job in SweepDirectory(tmp_path / "s").jobs() if job.step}
    sweep, _ = run(tmp_path / "s", second, **settings)
    trained = first.trained + second.trained
    assert len(trained) == len(set(trained))
    assert states(sweep) == states(whole)
    assert {j.varies["optimizer.lr"]: j.step for j in sweep.jobs()} == {
        j.varies["optimizer.lr"]: j.step for j in whole.jobs()
    }
    assert all(job.step >= waited.get(job.id, 0) for job in sweep.jobs())


class Dying(Curves):
    """The driver is killed when it has had a job go on, for which there is no room yet."""

    def start(self, job: Run, resume: bool) -> None:
        if job.state == "paused":
            self.order.append(job.label)
            raise Killed
        super().start(job, resume)


def test_a_job_that_was_to_go_on_does_so_though_its_driver_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Dying()
    with pytest.raises(Killed):
        run(tmp_path / "s", killed)
    gc.collect()
    # Those that run have told more by now, and others lead.
    monkeypatch.setattr("truesweep.sweeps.trials.thawed", lambda *_, **__: None)
    source = search(tmp_path / "s", [LR], **SETTINGS)
    job = source.ask()
    assert job is not None
    assert job.label == killed.order[-1]
    assert source.ask() is None
    assert not source.exhausted


def test_a_search_that_is_over_starts_nothing_until_it_has_more_points(tmp_path: Path) -> None:
    run(tmp_path / "s", Curves(), jobs=2)
    gc.collect()
    again = Curves()
    sweep, _ = run(tmp_path / "s", again, jobs=2)
    assert again.order == []
    run(tmp_path / "s", again, jobs=6)
    assert states(sweep)[BEST] == "completed"
    assert len(again.trained) == len(set(again.trained))


def test_one_that_was_killed_before_it_went_on_has_failed(tmp_path: Path) -> None:
    probe, _ = run(tmp_path / "probe", Curves())
    best = next(job.label for job in probe.jobs() if job.varies["optimizer.lr"] == BEST)
    sweep = SweepDirectory(tmp_path / "s")
    asked = Sweep(method="search", **SETTINGS)
    sweep.ask(["search"], [], asked, {})
    display = Display("s", Board("val/loss", "min"), Console(file=io.StringIO()))
    source = search(sweep.path, [LR], **SETTINGS)
    assert drive(sweep, source, Curves(stuck=best), asked, display, last=False) == 1
    assert states(sweep)[BEST] == "failed"
    assert "completed" in states(sweep).values()


def test_the_sampler_learns_from_forecasts(tmp_path: Path) -> None:
    """Trials that wait run in the study still, and TPE takes what runs for bad."""
    sweep, _ = run(tmp_path / "s", Curves(sign=-1.0), objective="val/x", direction="maximize")
    storage = open_storage("study.journal", sweep.path)
    trials = storage.get_all_trials(0)
    seen = as_forecast(trials, -1.0)
    assert {trial.state.name for trial in seen} == {"COMPLETE"}
    for trial, job, before in zip(seen, sweep.jobs(), trials, strict=True):
        assert trial.params == before.params
        assert trial.value is not None
        reached = max(before.intermediate_values.values())
        assert trial.value == reached if job.state == "completed" else trial.value > reached


def test_with_seeds_the_others_run_when_the_first_has_ended(tmp_path: Path) -> None:
    source: Search = search(tmp_path / "s", [LR], **{**SETTINGS, "jobs": 2, "seeds": 2})
    first, second = source.ask(), source.ask()
    assert first is not None
    assert second is not None
    storage = open_storage("study.journal", tmp_path / "s")
    for job, loss in ((first, 2.0), (second, 3.0)):
        job.begin()
        number = job.job["trial"]["number"]
        about = describe_rates(Linear(), TOTAL)
        trial = dict(job.job["trial"])
        trial.pop("objective")
        decide = partial(is_to_pause, first=5, sign=1.0)
        assert Reports(job.path, **trial, decide=decide, about=about)(5, loss)
        assert storage.get_all_trials(0)[number].user_attrs["paused"] is True
        job.end("paused", 0)
        source.tell(job)
    again = source.ask()
    assert again == first
    assert source.ask() == second  # for another slot
    write_json(first.results, {"val/loss": 1.0})
    first.end("completed", 0)
    source.tell(first)
    other = source.ask()
    assert other is not None
    assert other.job["trial"]["number"] == 0
    assert other.job["trial"]["pruner"] is None


def test_what_does_not_go_with_forecasts_is_refused() -> None:
    with pytest.raises(ConfigError, match="forecast begins every point"):
        Sweep(method="search", hours=1, pruner="forecast")
    assert Sweep(method="search", hours=1, pruner="forecast", sampler="climb")  # begins as it goes
    with pytest.raises(ConfigError, match="sampler=cmaes chooses by jobs that have ended"):
        Sweep(method="search", jobs=9, pruner="forecast", sampler="cmaes")
