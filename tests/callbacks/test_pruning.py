import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from tests.commands.conftest import data as data  # a fixture
from tests.commands.conftest import truesweep
from tests.conftest import THREADS
from truesweep.callbacks import Pruned, Pruning
from truesweep.compat import storage_id
from truesweep.jobs.launch import launch
from truesweep.jobs.pausing import describe_rates
from truesweep.jobs.plan import plan
from truesweep.optim.schedules import Cosine
from truesweep.record.frozen import freeze
from truesweep.record.rows import read
from truesweep.record.study import PAUSED, Reports, open_storage
from truesweep.runs import branches
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory

SMALL = [
    "data=files",
    "data.train=text.txt",
    "model.depth=1",
    "model.width=16",
    "model.heads=2",
    "data.batch_size=4",
    "data.max_length=16",
    "trainer.accelerator=cpu",
    f"trainer.threads={THREADS}",
    "trainer.max_steps=12",
    "trainer.val_check_interval=3",
    "callbacks.progress=null",
    "logger=none",
]
MEDIAN = {"name": "median", "startup": 1, "warmup": 0, "reduction": 3}


class Loop:
    """As much of a trainer as the callback looks at."""

    def __init__(self, step: int, value: float) -> None:
        self.state = type("State", (), {"fn": "fit"})
        self.sanity_checking = self.should_stop = False
        self.is_global_zero = True
        self.strategy = SingleDeviceStrategy(torch.device("cpu"))
        self.callback_metrics = {"val/loss": torch.tensor(value)}
        progress = {"total": type("Total", (), {"processed": step})}
        loop = type("Epoch", (), {"batch_progress": type("Progress", (), progress)})
        self.fit_loop = type("Fit", (), {"epoch_loop": loop})


def study(folder: Path, rival: float) -> optuna.Study:
    """A study with a finished trial of one value at each validation, and one that begins."""
    storage = open_storage("study.journal", folder)
    made = optuna.create_study(study_name="s", storage=storage)
    known = dict.fromkeys((3, 6, 9, 12), rival)
    made.add_trial(optuna.trial.create_trial(value=rival, intermediate_values=known))
    made.ask()
    return made


TRIAL: dict[str, Any] = {
    "storage": "../study.journal",
    "study": "s",
    "number": 1,
    "objective": "val/loss",
    "pruner": MEDIAN,
}
FORECAST = {**TRIAL, "pruner": {**MEDIAN, "name": "forecast", "warmup": 3, "sign": 1.0}}


def make_run(
    folder: Path, *overrides: str, trial: dict[str, Any] | None = TRIAL, kept: Sequence[int] = ()
) -> Run:
    """A job that is trial 1 of the study in its folder, and keeps its state after some steps."""
    lines = [f"to be pruned {n} times or not to be pruned, that is {n % 7}\n" for n in range(300)]
    (folder / "text.txt").write_text("".join(lines))
    job = plan([*SMALL, *overrides])
    config, entry = freeze(job.config), {"trial": trial, "branches": kept}
    return Run.create(folder / "job", config=config, overrides=[], provenance={}, job=entry)


def test_a_job_that_is_behind_stops_after_its_first_validation(workplace: Path) -> None:
    made = study(workplace, rival=0.0)
    run = make_run(workplace)
    assert launch(run) == 0
    assert (run.status["state"], run.status["exit_code"], run.status["step"]) == ("pruned", 0, 3)
    assert [row["step"] for row in read(run.metrics)][-1] == 3
    assert not run.results.exists()
    value = read(run.metrics)[-1]["val/loss"]
    assert made.trials[1].intermediate_values == {3: pytest.approx(value)}
    assert (run.checkpoints / "best.ckpt").exists()
    assert launch(run, resume=True) == 0
    assert run.status["state"] == "pruned"
    assert list(made.trials[1].intermediate_values) == [3]


def test_one_that_begins_with_the_state_of_another_stops_for_good(workplace: Path) -> None:
    """Whatever comes after the answer: a kill, or others that are worse."""
    made = study(workplace, rival=0.0)
    run = make_run(workplace)
    (workplace / "other").mkdir()
    other = make_run(workplace / "other", trial=None, kept=[3])
    assert launch(other) == 0
    assert branches.adopt(run, other, 3)
    value = read(run.metrics)[-1]["val/loss"]
    optuna.Trial(made, made.trials[1]._trial_id).report(value, 3)  # a kill came right after
    assert launch(run, resume=True) == 0
    assert (run.status["state"], run.status["step"]) == ("pruned", 3)
    for _ in range(3):
        worse = optuna.trial.create_trial(value=99.0, intermediate_values={3: 99.0})
        made.add_trial(worse)
    assert launch(run, resume=True) == 0
    assert (run.status["state"], run.status["step"]) == ("pruned", 3)
    assert made.trials[1].intermediate_values == {3: value}


def test_a_job_that_is_ahead_reports_all_and_is_scored(workplace: Path) -> None:
    made = study(workplace, rival=99.0)
    run = make_run(workplace)
    assert launch(run) == 0
    assert run.status["state"] == "completed"
    reported = made.trials[1].intermediate_values
    rows = {row["step"]: row["val/loss"] for row in read(run.metrics) if "val/loss" in row}
    assert reported == pytest.approx(rows)
    assert sorted(reported) == [3, 6, 9, 12]
    assert "test/loss" in json.loads(run.results.read_text())


def study_with_a_leader(folder: Path) -> optuna.Study:
    """A study whose first trial waits at step 3 and leads by far, and one that begins."""
    made = optuna.create_study(study_name="s", storage=open_storage("study.journal", folder))
    rival = made.ask()
    for key, told in describe_rates(Cosine(), 12).items():
        rival.set_user_attr(key, told)
    rival.set_user_attr("paused", True)
    rival.report(-99.0, 3)
    made.ask()
    return made


def goes_on(made: optuna.Study) -> None:
    """Take off the mark of a trial that waits, as a driver does that has its job go on."""
    made._storage.set_trial_user_attr(storage_id(made.trials[1]), PAUSED, False)


def test_a_job_that_waited_ends_as_if_it_had_not(workplace: Path) -> None:
    made = study_with_a_leader(workplace)
    run = make_run(workplace, "model.dropout=0.1", trial=FORECAST)
    for start in range(2):  # the rival leads still when it comes to its second rung
        goes_on(made)
        assert launch(run, resume=start > 0) == 0
        status = run.status
        assert (status["state"], status["exit_code"]) == ("paused", 0)
        assert status["step"] == 3 * (start + 1)
        assert made.trials[1].user_attrs["paused"] is True
    made.tell(0, state=optuna.trial.TrialState.FAIL)
    goes_on(made)
    assert launch(run, resume=True) == 0
    assert run.status["state"] == "completed"
    assert list(made.trials[1].intermediate_values) == [3, 6, 9, 12]
    (workplace / "alone").mkdir()
    alone = make_run(workplace / "alone", "model.dropout=0.1", trial=None)
    assert launch(alone) == 0
    states = [torch.load(r.checkpoints / "last.ckpt", weights_only=True) for r in (run, alone)]
    assert [state["global_step"] for state in states] == [12, 12]  # also the first after a resume
    one, other = (state["state_dict"] for state in states)
    assert all(torch.equal(one[name], other[name]) for name in other)
    losses = [[row.get("val/loss") for row in read(r.metrics)] for r in (run, alone)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_two_ranks_stop_after_the_same_step(workplace: Path) -> None:
    study(workplace, rival=0.0)
    run = make_run(workplace, "trainer.devices=2")
    assert launch(run) == 0
    assert (run.status["state"], run.status["step"]) == ("pruned", 3)
    for rank in (0, 1):
        assert run.log(rank).read_text().count("pruned after step 3") == 1


def last_summary(run: Run) -> dict[str, Any]:
    """What the latest of a run's records of W&B shows of it, as W&B's own reader tells."""
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary"]
    shown = subprocess.run([*leet, str(run.path / "wandb")], capture_output=True, check=True)
    summary: dict[str, Any] = json.loads(shown.stdout)["summary"]
    return summary


def test_a_pruned_run_says_so_in_wandb(workplace: Path) -> None:
    study(workplace, rival=0.0)
    run = make_run(workplace, "logger=wandb")
    assert launch(run) == 0
    summary = last_summary(run)
    assert (summary["state"], summary["pruned_step"]) == ("pruned", 3)


def test_a_paused_run_says_so_in_wandb_each_time(workplace: Path) -> None:
    made = study_with_a_leader(workplace)
    run = make_run(workplace, "logger=wandb", trial=FORECAST)
    for start in range(2):
        goes_on(made)
        assert launch(run, resume=start > 0) == 0
        summary = last_summary(run)
        assert (summary["state"], summary["paused_step"]) == ("paused", 3 * (start + 1))


@pytest.mark.parametrize("trial", [None, {**TRIAL, "pruner": None}])
def test_a_run_that_is_not_pruned_does_without_optuna(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, trial: dict[str, Any] | None
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    run = make_run(workplace, "trainer.max_steps=1", trial=trial)
    assert launch(run) == 0
    assert run.status["state"] == "completed"


def test_a_step_is_reported_once_and_asked_about_again(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = study(workplace, rival=1.0)
    job = workplace / "job"
    asked: dict[str, Any] = {key: TRIAL[key] for key in TRIAL if key != "objective"}
    job.mkdir()
    first, resumed = Reports(job, **asked), Reports(job, **asked)
    assert not first(3, 0.5)
    assert not resumed(3, 7.0)
    assert made.trials[1].intermediate_values == {3: 0.5}
    assert not resumed(6, 2.0)  # the best so far counts
    assert not caplog.records
    made.tell(1, state=optuna.trial.TrialState.FAIL)
    assert not resumed(9, 9.0)  # the study no longer takes reports: the training goes on
    assert "step 9 could not be reported" in caplog.text


def test_the_answer_to_wait_holds_until_somebody_has_it_go_on(workplace: Path) -> None:
    """A kill may come between the answer and the checkpoint, or the status."""
    made = study(workplace, rival=1.0)
    (workplace / "job").mkdir()
    asked = {key: TRIAL[key] for key in TRIAL if key != "objective"}
    answers = [False, True]
    first = Reports(workplace / "job", **asked, decide=lambda *_: answers.pop(0))
    assert [first(3, 0.5), first(6, 0.5)] == [False, True]
    resumed = Reports(workplace / "job", **asked, decide=lambda *_: False)
    assert resumed.catch_up({}, 0) is None  # from the start, where nothing was answered
    assert resumed.catch_up({}, 5) is None  # from the checkpoint before
    assert not resumed(3, 0.5)
    assert resumed(6, 0.5)
    assert resumed.catch_up({}, 6)
    goes_on(made)
    assert resumed.catch_up({}, 6) is None
    assert not resumed(9, 0.5)


@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_each_pruner_stops_what_is_worse_and_keeps_what_is_better(
    workplace: Path, name: str
) -> None:
    made = optuna.create_study(study_name="s", storage=open_storage("study.journal", workplace))
    pruner = {**MEDIAN, "name": name}

    def run(value: float) -> int:
        number = made.ask().number
        reports = Reports(
            workplace, storage="study.journal", study="s", number=number, pruner=pruner
        )
        for step in (10, 20, 30, 40, 60, 80, 100):
            if reports(step, value / step):
                made.tell(number, state=optuna.trial.TrialState.PRUNED)
                return step
        made.tell(number, value)
        return 100

    assert run(1.0) == 100
    for _ in range(4):
        run(1.0)
    assert min(run(1.1) for _ in range(3)) < 100
    assert run(0.5) == 100


def test_the_answer_is_kept_with_the_checkpoint_and_obeyed_after_the_step() -> None:
    told: list[tuple[int, float]] = []

    def report(step: int, value: float) -> bool:
        told.append((step, value))
        return value > 1

    pruning = Pruning("val/loss", report)
    good, bad, last = Loop(3, 0.5), Loop(6, 2.0), Loop(9, 3.0)
    pruning.on_validation_end(good, None)  # type: ignore[arg-type]
    pruning.on_train_batch_end(good, None, None, None, 0)  # type: ignore[arg-type]
    last.should_stop = True
    pruning.on_validation_end(last, None)  # type: ignore[arg-type]
    pruning.on_train_batch_end(last, None, None, None, 0)  # type: ignore[arg-type]
    pruning.on_validation_end(bad, None)  # type: ignore[arg-type]
    resumed = Pruning("val/loss", report)
    resumed.load_state_dict(pruning.state_dict())
    with pytest.raises(Pruned):
        resumed.on_train_start(bad, None)  # type: ignore[arg-type]
    with pytest.raises(Pruned) as pruned:
        pruning.on_train_batch_end(bad, None, None, None, 0)  # type: ignore[arg-type]
    assert (pruned.value.step, pruned.value.exit_code) == (6, 0)
    assert told == [(3, 0.5), (9, 3.0), (6, 2.0)]
    with pytest.raises(ValueError, match="no metric 'val/los'; there are val/loss"):
        Pruning("val/los", report).on_validation_end(good, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_prunes_hopeless_rates_and_completes_the_best(
    data: dict[str, list[str]], workplace: Path, devices: int
) -> None:
    asked = [
        *(line for line in SMALL if not line.startswith("data=") and "train=" not in line),
        *data["lm"],
        "trainer.val_check_interval=4",
        f"trainer.devices={devices}",
        "optimizer.lr=3e-2,1e-7,1e-6",
        "sweeps.method=search",
        "sweeps.sampler=grid",
        "sweeps.jobs=3",
        "sweeps.pruner=halving",
        f"hydra.launcher.slots={devices}",
        "name=rates",
    ]
    done = truesweep("train", "-m", *asked, cwd=workplace)
    assert done.code == 0, done.out + done.err
    best, *others = SweepDirectory(workplace / "outputs/sweeps/rates").jobs()
    assert (best.varies["optimizer.lr"], best.state, best.step) == (3e-2, "completed", 12)
    assert best.results.exists()
    for job in others:
        status = job.status
        assert (status["state"], status["exit_code"], status["step"]) == ("pruned", 0, 4)
        logs = [job.log(rank).read_text() for rank in range(devices)]
        assert [log.count("pruned after step 4") for log in logs] == [1] * devices
    storage = open_storage("study.journal", best.path.parent)
    made = optuna.load_study(study_name="rates", storage=storage)
    assert [t.state.name for t in made.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert "2 pruned" in done.out
