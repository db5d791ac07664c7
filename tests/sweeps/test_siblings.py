"""Jobs of a search that share steps: what is found and decided is the same as without."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from tests.commands.conftest import SMALL, start
from tests.sweeps.test_trunks import WSD, assert_same, data, keep
from tests.sweeps.tiny import until
from truesweep.analysis.curves import Curve
from truesweep.analysis.thaw import Trial, first_rung
from truesweep.commands.resume import resume
from truesweep.commands.sweep import sweep
from truesweep.record import provenance
from truesweep.record.files import write_checksum, write_sums
from truesweep.record.study import open_storage
from truesweep.runs import branches
from truesweep.runs.run import BusyError, Run, write_entries
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.local import LocalPool
from truesweep.sweeps.planning import SweepPlan
from truesweep.sweeps.request import Asked, ask
from truesweep.sweeps.siblings import Siblings
from truesweep.sweeps.start import as_decided, make_source, prepare, record

SEARCH = ["sweeps.method=search", "sweeps.sampler=grid", "sweeps.pruner=null", "sweeps.jobs=4"]
LENGTHS = "trainer.max_steps=12,16,24"
RATES = "optimizer.lr=1e-3,1e-2"
INTERVAL = "trainer.val_check_interval=2"
MEDIAN = ["sweeps.pruner=median", "sweeps.pruner_startup=1", "sweeps.jobs=5"]
MEDIAN.append("optimizer.lr=1e-1,1e-3,1e-4")
SEEDS = ["optimizer.lr=1e-2", "sweeps.seeds=2", "sweeps.jobs=2"]


def asked_for(folder: Path, *overrides: str) -> list[str]:
    """The overrides of a small search in one slot; those that are given replace its own."""
    given = {override.partition("=")[0] for override in overrides}
    small = [*data(folder, overrides), *SMALL[:-4], "logger=none", *WSD, *SEARCH]
    kept = [override for override in small if override.partition("=")[0] not in given]
    return [*kept, *overrides, "name=s"]


def prepared(folder: Path, *overrides: str) -> tuple[Asked, SweepPlan]:
    asked = ask(asked_for(folder, *overrides))
    plan = prepare(asked, LocalPool(1), silent=True)
    return as_decided(asked, plan), plan


def made(folder: Path, *overrides: str) -> list[Run]:
    """All jobs that a search comes to, none of them trained."""
    asked, plan = prepared(folder, *overrides)
    source = make_source(asked, record(asked, {}, plan), {}, plan)
    return list(iter(source.ask, None))


def by_length(jobs: list[Run]) -> dict[int, tuple[list[int], dict[int, int]]]:
    """By the length of each: what it keeps, and up to where it may begin with others, by theirs."""
    lengths = {job.id: job.varies["trainer.max_steps"] for job in jobs}
    return {
        lengths[job.id]: (
            job.place["branches"],
            {lengths[name]: step for name, step in job.place["siblings"]},
        )
        for job in jobs
    }


def test_each_keeps_the_states_at_which_others_would_part_from_it(workplace: Path) -> None:
    assert by_length(made(workplace, "optimizer.lr=1e-3", LENGTHS)) == {
        12: ([10], {16: 10, 24: 10}),
        16: ([10, 13], {12: 10, 24: 13}),
        24: ([10, 13], {12: 10, 16: 13}),
    }


def test_points_share_only_with_those_that_agree_in_all_else(workplace: Path) -> None:
    jobs = made(workplace, RATES, "trainer.max_steps=12,24", "sweeps.seeds=2", "seed=1")
    about = {job.id: (job.varies["optimizer.lr"], job.varies["seed"]) for job in jobs}
    assert len({job.id for job in jobs}) == 8
    for job in jobs:
        ((name, step),) = job.place["siblings"]
        assert (about[name], step) == (about[job.id], 10)
        assert name != job.id


def test_a_job_that_is_decided_on_takes_no_step_beyond(workplace: Path) -> None:
    """The first time that it waits is after the first validation after its slice."""
    forecast = ["sweeps.pruner=forecast", "sweeps.pruner_warmup=5", "sweeps.jobs=2"]
    often = ["trainer.max_steps=40,80", "trainer.val_check_interval=2"]
    found = by_length(made(workplace, "optimizer.lr=1e-3", *often, *forecast))
    assert found == {40: ([6], {80: 6}), 80: ([6], {40: 6})}


def test_one_that_validates_at_other_steps_takes_their_states(workplace: Path) -> None:
    rare = "trainer.val_check_interval=4,6"
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=14", rare)
    assert first.place["replays"] == [[second.id, step] for step in (4, 8, 12, 13)]
    assert second.place["replays"] == [[first.id, step] for step in (6, 12, 13)]
    assert first.place["branches"] == [6, 12, 13]


@pytest.mark.parametrize(
    "overrides",
    [
        ["sweeps.share=false"],
        ["optimizer.lr=interval(1e-3,1e-2)", "sweeps.sampler=tpe"],
        ["scheduler=linear", "scheduler.warmup=0"],
        ["sweeps.disk=1MB"],
    ],
    ids=["off", "interval", "rates", "room"],
)
def test_a_search_keeps_nothing(workplace: Path, overrides: list[str]) -> None:
    """Nor says that it does, but where it depends on the room that is left."""
    asked = ["optimizer.lr=1e-3,1e-2", "trainer.max_steps=12,24", "sweeps.jobs=2", *overrides]
    jobs = made(workplace, *asked)
    assert len(jobs) == 2
    assert not any(job.place["branches"] or job.place["siblings"] for job in jobs)
    if overrides != ["sweeps.disk=1MB"]:
        assert "share steps" not in " ".join(prepared(workplace, *asked)[1].notes)


def test_a_climb_keeps_states_though_rates_lie_in_an_interval(workplace: Path) -> None:
    """It goes from a point to one that differs in one setting only."""
    climb = ["optimizer.lr=interval(1e-3,1e-2)", "trainer.max_steps=12,24", "sweeps.sampler=climb"]
    assert made(workplace, *climb)[0].place["branches"] == [10]


def test_a_job_keeps_so_many_states(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And looks for no more siblings than it can plan in a while."""
    monkeypatch.setattr("truesweep.sweeps.siblings.MOST_STATES", 2)
    asked = ["optimizer.lr=1e-3", "trainer.max_steps=24,16,18,20", "sweeps.jobs=1"]
    (job,) = made(workplace, *asked)
    assert len(job.place["siblings"]) == 3
    assert len(job.place["branches"]) == 2
    monkeypatch.setattr("truesweep.sweeps.siblings.MOST", 3)
    (job,) = made(workplace, *asked, "seed=2")
    assert not job.place["siblings"]


def test_the_plan_says_what_is_shared(workplace: Path) -> None:
    notes = " ".join(prepared(workplace, RATES, "trainer.max_steps=20,40")[1].notes)
    assert "points that differ in trainer.max_steps only share steps" in notes
    assert "after up to 16 of 20 steps" in notes
    pausing = ["sweeps.pruner=forecast", "trainer.max_steps=20,40", "trainer.val_check_interval=2"]
    notes = " ".join(prepared(workplace, RATES, *pausing)[1].notes)
    assert "after up to 2 of 20 steps" in notes
    declining = ["scheduler=linear", "scheduler.warmup=0", "trainer.max_steps=20,40"]
    assert "With scheduler=wsd" in " ".join(prepared(workplace, RATES, *declining)[1].notes)
    interval = "optimizer.lr=interval(1e-3,1e-2)"
    assert "wsd" not in " ".join(prepared(workplace, interval, *declining)[1].notes)


@pytest.mark.parametrize(
    ("total", "every", "slices"), [(100, 5, 0), (30, 4, 6), (7, 9, 0), (9, 2, 1)]
)
def test_where_a_training_waits_first(total: int, every: int, slices: int) -> None:
    due = [*range(every, total, every), total]
    rungs = [
        step
        for number, step in enumerate(due, 1)
        if Trial(Curve(np.array(due[:number]), np.ones(number)), np.ones(total)).is_first_rung(
            slices
        )
    ]
    assert rungs == [first_rung(total, every, slices)]


# -- while jobs run --------------------------------------------------------------------------------


def test_states_are_kept_for_those_that_may_come(workplace: Path) -> None:
    """Until they have begun, or the search is over and nobody works on it."""
    first, second, third = made(workplace, "optimizer.lr=1e-3", LENGTHS)
    siblings = Siblings(SweepDirectory(first.path.parent))
    for step in (10, 13):
        (second.path / "branches" / str(step)).mkdir(parents=True)
    second.update_status(state="completed", saved_step=16)
    first.update_status(state="paused", saved_step=4)
    away = third.path.rename(workplace / "not made yet")
    siblings.tidy(second)
    assert branches.kept(second) == [10, 13]
    away.rename(third.path)
    siblings.tidy(second)
    assert branches.kept(second) == [10, 13]
    with third.claim():
        third.update_status(state="running", saved_step=4)
        siblings.tidy()  # by another driver
        assert branches.kept(second) == [10, 13]
        siblings.tidy(first)
    assert not branches.kept(second)
    (second.path / "branches" / "13").mkdir(parents=True)
    third.update_status(state="completed", saved_step=24)
    siblings.tidy()
    assert not (second.path / "branches").exists()


def test_a_state_that_vanishes_is_not_begun_with(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver removes it while a job takes it."""
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    state = first.path / "branches" / "10"
    (state / "model").mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt", "metrics.jsonl"):
        (state / name).write_text("kept")
    copy = branches._copy

    def copies(there: Path, run: Run) -> bytes:
        record = copy(there, run)
        branches.forget(first, 10)
        return record

    siblings = Siblings(SweepDirectory(first.path.parent))
    monkeypatch.setattr(branches, "_copy", copies)
    assert siblings.branch(second) is None
    assert not second.status
    assert not list(second.checkpoints.iterdir())
    assert not second.metrics.exists()


@pytest.mark.parametrize(
    ("name", "gone"), [("last.ckpt", False), ("last.ckpt", True), ("best.ckpt", False)]
)
def test_a_state_that_is_damaged_is_not_begun_with(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, gone: bool
) -> None:
    """The one before it is."""
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    for step in ("5", "10"):
        state = first.path / "branches" / step
        (state / "model").mkdir(parents=True)
        for file in ("last.ckpt", "best.ckpt"):
            (state / file).write_text(f"kept {step}")
            write_checksum(state / file)
        (state / "metrics.jsonl").write_text("")
    damaged = first.path / "branches/10" / name
    damaged.unlink() if gone else damaged.write_text("else")
    siblings = Siblings(SweepDirectory(first.path.parent))
    assert siblings.branch(second) == (first.id, 5)
    said = " ".join(capsys.readouterr().out.split())
    assert f"branches/10/{name} is missing or damaged" in said
    assert (second.checkpoints / "last.ckpt").read_text() == "kept 5"


@pytest.mark.parametrize("name", ["metrics.jsonl", "val.npz", "model/config.json"])
def test_what_belongs_to_a_state_is_as_it_was_kept(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Its record among it: half of a curve would be taken for the whole."""
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    rows = "".join(f'{{"step": {step}}}\n' for step in range(1, 11))
    first.metrics.write_text(rows)
    for file in (first.path / "scores" / "val.npz", first.model / "config.json"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("kept")
    write_sums(first.model)
    for step in (5, 10):
        checkpoint = branches.checkpoint_path(first, step)
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text(f"kept {step}")
        write_checksum(checkpoint)
        branches.keep(first, step)
    damaged = first.path / "branches/10" / name
    text = damaged.read_text()
    damaged.unlink()  # which others may have, too, by other names
    damaged.write_text(text[:-3])
    assert branches.is_whole(first, 10) == (name != "metrics.jsonl")
    assert Siblings(SweepDirectory(first.path.parent)).branch(second) == (first.id, 5)
    said = " ".join(capsys.readouterr().out.split())
    assert f"branches/10/{name} is missing or damaged (by its checksum), so {second.id}" in said
    assert second.metrics.read_text() == rows


def test_a_state_is_kept_for_one_whose_steps_its_keeper_would_not_wait_for(
    workplace: Path,
) -> None:
    """Twelve steps are most of a short job, and hardly any of a long one."""
    jobs = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=15,200", "sweeps.jobs=2")
    short, long = sorted(jobs, key=lambda job: int(job.varies["trainer.max_steps"]))
    assert long.place["branches"] == [12]
    assert dict(long.place["siblings"]) == {short.id: 0}
    keep(long, 12)
    long.update_status(state="completed", saved_step=200)
    siblings = Siblings(SweepDirectory(long.path.parent))
    siblings.tidy(long)
    assert siblings.branch(short) == (long.id, 12)
    siblings.tidy(short)
    assert not branches.kept(long)


@pytest.mark.parametrize("change", ["data", "torch", "own code"])
def test_a_state_of_something_else_is_not_begun_with(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """Files, packages and code may change between a search and its resume."""
    (workplace / "own.py").write_text("x = 1")
    monkeypatch.syspath_prepend(workplace)
    lengths = ["optimizer.lr=1e-3", "trainer.max_steps=12,24", "allowed_packages=[own]"]
    first, second = made(workplace, *lengths)
    branches.begin(first, 0)
    keep(first, 10)
    if change == "data":
        origin = second.read_provenance()
        other = origin["data"] | {"fingerprint": "of other files"}
        write_entries(second.path / "provenance.json", origin | {"data": other})
    elif change == "torch":
        now = provenance.packages() | {"torch": "99.0"}
        monkeypatch.setattr(provenance, "packages", lambda: now)
    else:
        (workplace / "own.py").write_text("x = 2")
    siblings = Siblings(SweepDirectory(first.path.parent))
    assert siblings.branch(second) is None
    said = " ".join(capsys.readouterr().out.split())
    why = {"data": "is of other data", "torch": "which is 99.0 now", "own code": "with own source"}
    assert why[change] in said
    assert f"so {second.id} does not go on from it" in said
    assert not second.status
    assert branches.is_kept(first, 10)


def test_what_two_programs_have_trained_is_not_begun_with(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was resumed with another version of a package keeps a state after that."""
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    with monkeypatch.context() as before:
        before.setattr(provenance, "packages", lambda: {"torch": "1.0"})
        branches.begin(first, 0)
    branches.begin(first, 6)
    branches.begin(first, 8)
    keep(first, 10)
    assert [one.get("torch") == "1.0" for one in first.read_provenance()["programs"]] == [
        True,
        False,
    ]
    siblings = Siblings(SweepDirectory(first.path.parent))
    assert siblings.branch(second) is None
    branches.begin(first, 0)  # all anew
    branches.forget(first, 10)
    keep(first, 10)
    assert siblings.branch(second) == (first.id, 10)


@pytest.mark.parametrize("gone", [False, True])
def test_a_kill_while_a_state_is_taken_over_spoils_nothing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """It is taken over anew, or, where it is not there any more, the job begins by itself."""
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    keep(first, 10)
    siblings = Siblings(SweepDirectory(first.path.parent))

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(Run, "update_status", killed)
        with pytest.raises(KeyboardInterrupt):
            siblings.branch(second)
    assert second.metrics.exists()
    assert second.state == "queued"
    if gone:
        branches.forget(first, 10)
    assert siblings.branch(second) == (None if gone else (first.id, 10))
    assert ("branched" in second.read_provenance()) == (not gone)
    assert any(second.checkpoints.iterdir()) == (not gone)
    assert second.metrics.exists() == (not gone)


def test_a_state_for_which_there_is_no_room_is_not_begun_with(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    keep(first, 10)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(branches, "note", full)
    assert Siblings(SweepDirectory(first.path.parent)).branch(second) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "branches/10 cannot be taken over (OSError: [Errno 28] No space left" in said
    assert not second.status
    assert not any(second.checkpoints.iterdir())


def test_a_job_that_cannot_be_read_ends_no_search(workplace: Path) -> None:
    """Nor a state that it may need, once its file is put back."""
    first, second, third = made(workplace, "optimizer.lr=1e-3", LENGTHS)
    keep(second, 10)
    for job in (first, second):
        job.update_status(state="completed", saved_step=job.varies["trainer.max_steps"])
    (third.path / "status.json").write_text("{")
    siblings = Siblings(SweepDirectory(first.path.parent))
    siblings.tidy(second)
    assert branches.is_kept(second, 10)
    assert siblings.branch(third) is None


def test_one_that_another_driver_has_begun_is_busy(workplace: Path) -> None:
    first, second = made(workplace, "optimizer.lr=1e-3", "trainer.max_steps=12,24")
    keep(first, 10)
    with second.claim(), pytest.raises(BusyError, match="is being worked on"):
        Siblings(SweepDirectory(first.path.parent)).branch(second)


def search(folder: Path, *overrides: str, kill: bool = False) -> SweepDirectory:
    """Run a search; where its driver is killed when there is a state, it is resumed."""
    asked = [*asked_for(folder, *overrides), "sweeps.parallel=1"]
    path = folder / "outputs/sweeps/s"
    driver = start(["-m", *asked], folder) if kill else None
    if driver is not None:
        until(lambda: any(branches.kept(job) for job in SweepDirectory(path).jobs()))
        driver.kill()
        driver.wait()
        until(lambda: not any(job.alive for job in SweepDirectory(path).jobs()))
    assert (resume(path) if kill else sweep(asked, [], False)) == 0
    return SweepDirectory(path)


def told(found: SweepDirectory) -> list[tuple[Any, ...]]:
    """What the study knows of each trial."""
    storage = open_storage(str(found.journal), Path())
    trials = optuna.load_study(study_name="s", storage=storage).trials
    return [(t.params, t.state.name, t.values, t.intermediate_values) for t in trials]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "kill", "saved"),
    [
        (["trainer.max_steps=24,16,12", "sweeps.jobs=6"], True, [10, 10, 13, 13]),
        (["trainer.max_steps=10,20", "sweeps.pruner=forecast", INTERVAL], True, [2, 2]),
        (["trainer.max_steps=12,24", *MEDIAN], False, [4, 4]),
        (["trainer.max_steps=14", "trainer.val_check_interval=4,6", *SEEDS], False, [13, 13]),
    ],
    ids=["all", "forecast", "median", "validations"],
)
def test_a_search_finds_and_decides_what_it_would_by_itself(
    workplace: Path, overrides: list[str], kill: bool, saved: list[int]
) -> None:
    """The driver of some is killed on the way."""
    asked = [RATES, *overrides]
    shared = search(workplace, *asked, kill=kill)
    shared = SweepDirectory(shared.path.rename(workplace / "shared"))
    apart = search(workplace, *asked, "sweeps.share=false")
    alone = {job.id: job for job in apart.jobs()}
    assert [job.id for job in shared.jobs()] == list(alone)
    for job in shared.jobs():
        other = alone[job.id]
        assert (job.state, job.step) == (other.state, other.step)
        if job.status:
            assert_same(job, other)
        assert not (job.path / "branches").exists()
    assert told(shared) == told(apart)
    begun = [job.read_provenance().get("branched") for job in shared.jobs()]
    assert sorted(one["step"] for one in begun if one) == saved
