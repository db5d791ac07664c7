"""Jobs that share steps: what comes out is what each would have come to by itself."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import processes
from tests.commands.conftest import SMALL, TIMED, write_chats, write_data
from tests.sweeps.tiny import FIXED, MISHAPS
from truesweep.commands.sweep import print_jobs, sweep
from truesweep.jobs.extend import change
from truesweep.record.files import write_checksum, write_sums
from truesweep.record.rows import read
from truesweep.runs import branches
from truesweep.runs.branches import is_kept
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.local import LocalPool
from truesweep.sweeps.planning import SweepPlan, plan_sweep
from truesweep.sweeps.protocols import Listed
from truesweep.sweeps.request import ask
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.siblings import Either, started_by_itself
from truesweep.sweeps.start import add_jobs
from truesweep.sweeps.trunks import MOST_STATES, Trunks

WSD = ["scheduler=wsd", "scheduler.warmup=2", "trainer.val_check_interval=4"]
LENGTHS = "trainer.max_steps=12,16,24"
FSDP = ["trainer.devices=2", "trainer.strategy=fsdp"]
"""Weights that two ranks share."""
CLOCK = (*TIMED, "time", "tokens_per_second", "flops_per_second", "mfu")


def plan(folder: Path, *overrides: str, task: str = "lm", together: bool = True) -> SweepPlan:
    given = {override.partition("=")[0] for override in overrides}
    small = [*data(folder, overrides, task), *SMALL]
    kept = [override for override in small if override.partition("=")[0] not in given]
    return plan_sweep(ask([*kept, *overrides, "name=s"]), together)


def data(folder: Path, overrides: Sequence[str], task: str = "lm") -> list[str]:
    """What names the task and its data, unless the overrides name data."""
    named = write_chats(folder) if task == "sft" else write_data(folder)[task]
    return named[:1] if "data=mixture" in overrides else named


def shared(plan: SweepPlan) -> dict[int, tuple[int, int] | None]:
    """By the length of each job: the length of the one it goes on from, and the common steps."""
    steps = {job.id: job.steps for job in plan.jobs}
    trunks = {job.steps: job.trunk for job in plan.jobs}
    return {length: t and (steps[t[0]], t[1]) for length, t in trunks.items()}


def keep(job: Run, *steps: int) -> None:
    """Have a job keep states, as its training would."""
    job.metrics.write_text("")
    (job.model / "config.json").parent.mkdir(exist_ok=True)
    (job.model / "config.json").write_text("kept")
    write_sums(job.model)
    for step in steps:
        checkpoint = branches.checkpoint_path(job, step)
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text(f"kept {step}")
        write_checksum(checkpoint)
        branches.keep(job, step)


def test_lengths_share_the_steps_before_their_rates_part(workplace: Path) -> None:
    found = plan(workplace, *WSD, LENGTHS)
    # A fifth of the steps is the decay, whose first step still has the whole rate.
    assert shared(found) == {12: (24, 10), 16: (24, 13), 24: None}
    assert found.jobs[2].branches == (10, 13)
    assert "29 steps in place of 52" in " ".join(found.notes)


def test_a_constant_rate_parts_at_the_last_step(workplace: Path) -> None:
    rates = ["scheduler=constant", "scheduler.warmup=2", "trainer.val_check_interval=4"]
    assert shared(plan(workplace, *rates, LENGTHS)) == {12: (24, 11), 16: (24, 15), 24: None}


def test_cool_downs_share_what_comes_before_them(workplace: Path) -> None:
    found = plan(workplace, *WSD, "trainer.max_steps=20", "scheduler.decay=4,10")
    first, second = found.jobs
    assert (first.trunk, second.trunk) == (None, (first.id, 10))
    assert "1 job goes on from steps that another trains: 30 steps" in " ".join(found.notes)


def test_a_job_that_may_stop_earlier_takes_validations_until_then(workplace: Path) -> None:
    """It begins with all that the more patient one has after 7 steps, and may stop at the 8th."""
    patience = "callbacks.early_stopping.patience=2,4"
    two, four = plan(workplace, *WSD, "trainer.max_steps=24", patience).jobs
    assert (two.trunk, four.trunk, four.replays) == ((four.id, 7), None, ())
    assert two.replays == tuple((four.id, step) for step in (8, 12, 16, 20, 23))
    assert four.branches == (7, 8, 12, 16, 20, 23)


def test_one_that_never_stops_trains_for_those_that_may(workplace: Path) -> None:
    patience = "callbacks.early_stopping.patience=2,null"
    found = plan(workplace, *WSD, "trainer.max_steps=24", patience)
    two, never = found.jobs
    assert (two.trunk, two.shared_steps, never.shared_steps) == (None, 23, 0)
    assert two.replays == tuple((never.id, step) for step in (4, 8, 12, 16, 20, 23))
    assert "25 steps in place of 48" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("lm", ["data.eval_batch_size=4,8"]),
        ("lm", ["callbacks.checkpoint.monitor=val/loss,val/perplexity"]),
        ("lm", ["callbacks.checkpoint.mode=min,max"]),
        ("lm", ["callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=0,1"]),
        ("translation", ["task.val_generated=0,8"]),
        ("translation", ["task.beam_size=1,2"]),
        ("sft", ["task.max_new_tokens=4,8"]),
    ],
)
def test_jobs_with_other_validations_share_all_steps(
    workplace: Path, task: str, overrides: list[str]
) -> None:
    """All but the last, which each does by itself."""
    first, second = plan(workplace, *WSD, "trainer.max_steps=12", *overrides, task=task).jobs
    assert second.replays == ((first.id, 4), (first.id, 8), (first.id, 11))
    assert second.trunk is None


def test_who_validates_most_often_trains_for_the_others(workplace: Path) -> None:
    """So that fewer states are kept."""
    often = "trainer.val_check_interval=6,4,12"
    six, four, twelve = plan(workplace, *WSD[:2], "trainer.max_steps=24", often).jobs
    assert six.replays == tuple((four.id, step) for step in (6, 12, 18, 23))
    assert twelve.replays == ((four.id, 12), (four.id, 23))
    assert four.branches == (6, 12, 18, 23)


def test_a_job_begins_with_the_validations_of_another_that_has_the_same(workplace: Path) -> None:
    """Of jobs that share as many steps; that one has the state, though another trains its step."""
    patience = "callbacks.early_stopping.patience=2,4,null"
    two, four, never = plan(workplace, *WSD, "trainer.max_steps=24", patience).jobs
    assert (two.trunk, four.trunk, two.branches) == (None, (two.id, 7), (7,))
    assert two.replays == tuple((never.id, step) for step in (4, 7, 8, 12, 16, 20, 23))
    assert four.replays == tuple((never.id, step) for step in (8, 12, 16, 20, 23))


def test_each_state_is_of_the_job_that_trains_its_step(workplace: Path) -> None:
    courses = mix(workplace, *CURRICULA[:3])
    asked = [*WSD[:2], "trainer.max_steps=24", *courses, "trainer.val_check_interval=4,5"]
    first, _, second, _, third, last = plan(workplace, *asked).jobs
    assert (second.trunk, third.trunk) == ((first.id, 6), (second.id, 14))
    states = (first.id, 5), (second.id, 10), (third.id, 15), (third.id, 20), (third.id, 23)
    assert (last.trunk, last.replays) == (None, states)


@pytest.mark.parametrize("why", ["room", "callbacks"])
def test_steps_before_the_first_validation_are_shared_at_least(
    workplace: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where states do not fit on the disk, or callbacks of others would miss steps."""
    if why == "callbacks":
        monkeypatch.setattr("truesweep.sweeps.trunks.OWN", "another_package.")
    disk = "sweeps.disk=0.1MB" if why == "room" else "sweeps.disk=null"
    asked = [*WSD, "trainer.max_steps=24", "data.eval_batch_size=4,8", disk]
    first, second = plan(workplace, *asked).jobs
    assert (second.trunk, second.replays) == ((first.id, 3), ())


def test_what_older_jobs_hold_leaves_less_room(workplace: Path) -> None:
    """The same jobs with another rate are added, and states would fit if the first held nothing."""
    asked = [*WSD, "trainer.max_steps=12", "data.eval_batch_size=4,8", "sweeps.disk=3MB"]
    first = plan(workplace, *asked, "optimizer.lr=1e-3")
    assert first.jobs[1].replays
    for job in add_jobs(SweepDirectory(workplace / "outputs/sweeps/s"), first.jobs, {}):
        (job.checkpoints / "last.ckpt").write_bytes(bytes(900_000))
    more = plan(workplace, *asked, "optimizer.lr=1e-3,1e-2").jobs
    assert [job.trunk for job in more] == [None, None, None, (more[1].id, 3)]
    assert not any(job.replays for job in more)


def test_so_many_validations_are_made_up_from_states(workplace: Path) -> None:
    often = ["trainer.val_check_interval=1", "data.eval_batch_size=4,8"]
    first, second = plan(workplace, *WSD[:2], "trainer.max_steps=24", *often).jobs
    assert [step for _, step in second.replays] == [*range(1, MOST_STATES + 1)]
    assert first.branches[-1] == second.shared_steps == MOST_STATES < 23


def test_how_often_a_job_is_saved_parts_nothing(workplace: Path) -> None:
    saved = "callbacks.checkpoint.every_n_steps=3,5"
    first, second = plan(workplace, *WSD, "trainer.max_steps=24", saved).jobs
    assert (first.trunk, second.trunk) == (None, (first.id, 23))


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("lm", ["callbacks.checkpoint.keep_optimizer=true,false"]),
        ("lm", ["callbacks.checkpoint.background=true,false"]),
        ("lm", ["task.sample_tokens=10,20"]),
        ("lm", ["callbacks.harness.limit=8,9"]),
        ("translation", ["task.shown=1,2"]),
        ("translation", ["task.val_generated=0", "task.beam_size=1,2"]),
        ("translation", ["task.val_generated=0", "task.bleu_tokenize=char,13a"]),
        ("sft", ["task.val_generated=0", "task.max_new_tokens=4,8"]),
    ],
)
def test_what_only_the_end_depends_on_parts_nothing(
    workplace: Path, task: str, overrides: list[str]
) -> None:
    steps = [*WSD, "trainer.max_steps=24"]
    first, second = plan(workplace, *steps, *overrides, task=task).jobs
    assert (first.trunk, second.trunk) == (None, (first.id, 23))


def test_a_task_of_somebody_else_says_itself_what_only_its_end_depends_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that inherits it may use these keys in a step."""
    monkeypatch.setattr("truesweep.sweeps.trunks.OWN", "another_package.")
    asked = [*WSD, "trainer.max_steps=24", "task.shown=1,2"]
    assert not any(job.trunk for job in plan(workplace, *asked, task="translation").jobs)


def test_jobs_with_other_classes_of_callbacks_share_nothing(workplace: Path) -> None:
    """They may do something at every step, whatever their name in the configuration."""
    asked = [*WSD, "trainer.max_steps=24", "allowed_packages=[pytorch_lightning]"]
    targets = "pytorch_lightning.callbacks.Timer", "truesweep.callbacks.EarlyStopping"
    asked.append(f"callbacks.early_stopping._target_={','.join(targets)}")
    assert not any(job.branches for job in plan(workplace, *asked).jobs)


MIXTURE = ["data=mixture", "data.sources.a.train=text.txt", "data.sources.b.train=more.txt"]
MIXTURE += ["data.sources.b.weight=1"]


def mix(folder: Path, *courses: str) -> list[str]:
    """A mixture of two sources, and the shares that the first one is to have."""
    (folder / "more.txt").write_text("some other words\n" * 40 + "and none of these at all\n" * 40)
    return [*MIXTURE, f"data.sources.a.weight={','.join(courses)}"]


CURRICULA = "{0:1,6:3}", "{0:1,6:4,14:1}", "{0:1,6:4,14:2}", "2"


def test_curricula_share_what_comes_before_they_part(workplace: Path) -> None:
    found = plan(workplace, *WSD, "trainer.max_steps=24", *mix(workplace, *CURRICULA))
    first, second, third, other = found.jobs
    assert first.trunk is other.trunk is None
    assert second.trunk == (first.id, 6)
    assert third.trunk == (second.id, 14)
    assert [job.branches for job in found.jobs] == [(6,), (14,), (), ()]
    assert "76 steps in place of 96" in " ".join(found.notes)


def test_what_a_mixture_goes_through_as_often_as_it_may_parts_at_the_end(workplace: Path) -> None:
    """Of 80 windows and some of the first source, one in two, until it has ended."""
    often = ["data.sources.a.weight=1", "data.sources.a.epochs=1,2"]
    found = plan(workplace, *WSD, "trainer.max_steps=24", *mix(workplace)[:-1], *often)
    first, second = found.jobs
    assert first.mix is not None
    (before, _), shares = first.mix.places.before(24 * 8), second.trunk
    assert shares == (first.id, (2 * int(before) - 1) // 8)


def test_overfitting_to_the_first_batches_of_curricula_shares_nothing(workplace: Path) -> None:
    asked = [*mix(workplace, *CURRICULA), "trainer.max_steps=24", "trainer.overfit_batches=2"]
    assert not any(job.trunk for job in plan(workplace, *WSD, *asked).jobs)


def test_each_combination_shares_among_its_own(workplace: Path) -> None:
    found = plan(workplace, *WSD, "trainer.max_steps=12,24", "seed=1,2")
    seeds = {job.id: job.config["seed"] for job in found.jobs}
    pairs = [(job.config["seed"], seeds[job.trunk[0]]) for job in found.jobs if job.trunk]
    assert sorted(pairs) == [(1, 1), (2, 2)]


def test_weights_that_are_shared_otherwise_than_was_tried_share_no_steps(workplace: Path) -> None:
    asked = ["trainer.devices=2", "trainer.strategy=fsdp,fsdp_cpu_offload"]
    found = plan(workplace, *WSD, LENGTHS, *asked).jobs
    tried = [job for job in found if job.config["trainer"]["strategy"] == "fsdp"]
    assert [job.trunk is not None for job in tried] == [True, True, False]
    assert not any(job.trunk or job.branches for job in found if job not in tried)


@pytest.mark.parametrize(
    "overrides",
    [
        ["scheduler=linear", "scheduler.warmup=0", WSD[2]],
        ["scheduler=wsd", "trainer.val_check_interval=4", "scheduler.warmup=0.25"],
        [*WSD, "data.batch_size=4,8"],
        [*WSD, "sweeps.share=false"],
    ],
    ids=["rates", "warm-up", "batches", "off"],
)
def test_what_parts_early_shares_nothing(workplace: Path, overrides: list[str]) -> None:
    lengths = [] if "data.batch_size=4,8" in overrides else ["trainer.max_steps=12,24"]
    found = plan(workplace, *overrides, *lengths)
    assert len(found.jobs) == 2
    assert all(job.trunk is None and not job.branches for job in found.jobs)
    said = "scheduler=wsd" in " ".join(found.notes)
    assert said == (bool(lengths) and "sweeps.share=false" not in overrides)


def test_what_is_there_already_keeps_nothing_waiting(workplace: Path) -> None:
    """A longer job that is added later keeps no states for jobs that have theirs."""
    first = plan(workplace, *WSD, "trainer.max_steps=12,16")
    add_jobs(SweepDirectory(workplace / "outputs/sweeps/s"), first.jobs, {})
    more = plan(workplace, *WSD, "trainer.max_steps=12,16,20,24")
    assert shared(more) == {12: None, 16: None, 20: (24, 16), 24: None}
    assert more.jobs[3].branches == (16,)


@pytest.mark.parametrize("together", [True, False], ids=["driver", "others"])
@pytest.mark.parametrize("made", [1, 2, 3])
def test_a_command_that_is_killed_while_it_makes_its_jobs_shares_as_it_would_have(
    workplace: Path, made: int, together: bool
) -> None:
    """So does a job whose directory was deleted."""
    asked = [*WSD, "trainer.max_steps=12,16", "data.eval_batch_size=3,4"]
    first = plan(workplace, *asked, together=together).jobs
    add_jobs(SweepDirectory(workplace / "outputs/sweeps/s"), first[:made], {})
    again = {job.id: job for job in plan(workplace, *asked, together=together).jobs}
    for job in first[made:]:
        assert again[job.id] == job
    assert any(job.replays or job.siblings for job in first[made:])


def test_where_one_stops_early_the_others_go_on_from_its_last_state(workplace: Path) -> None:
    patience = "callbacks.early_stopping.patience=2"
    jobs = prepare(workplace, "shared", *WSD, LENGTHS, patience)[0].jobs()
    first, second, longest = jobs
    trunks = Trunks(jobs)
    assert not trunks.is_ready(first, jobs)
    keep(longest, 8)
    longest.update_status(state="completed", step=8, saved_step=8)
    trunks.tidy(longest)
    assert trunks.is_ready(first, [first, second])
    assert trunks.branch(first) == (longest.id, 8)
    assert is_kept(longest, 8)
    assert trunks.branch(second) == (longest.id, 8)
    assert not is_kept(longest, 8)


def test_states_that_are_kept_for_none_are_removed_in_the_end(workplace: Path) -> None:
    jobs = prepare(workplace, "shared", *WSD, "trainer.max_steps=12,24")[0].jobs()
    (jobs[1].path / "branches" / "11").mkdir(parents=True)
    Trunks(jobs).tidy()
    assert not is_kept(jobs[1], 11)
    (jobs[1].path / "branches" / "11").mkdir(parents=True)
    (jobs[0].path / "job.json").write_text("{")  # whose states are not known
    Trunks(jobs).tidy()
    assert is_kept(jobs[1], 11)


def test_a_job_that_is_to_be_tried_again_finds_its_states(workplace: Path) -> None:
    """Another one that needs them ends in between."""
    asked = [*WSD, "trainer.max_steps=12", "data.eval_batch_size=3,4,5"]
    jobs = prepare(workplace, "shared", *asked)[0].jobs()
    first, failed, ended = jobs
    (first.path / "branches" / "8").mkdir(parents=True)
    failed.update_status(state="failed", saved_step=4)
    ended.update_status(state="completed", saved_step=12)
    trunks = Trunks(jobs)
    trunks.tidy(ended)
    assert is_kept(first, 8)
    trunks.tidy()
    assert not is_kept(first, 8)


def test_a_job_that_cannot_be_read_ends_no_sweep(workplace: Path) -> None:
    """Nor a state that it may need, once its file is put back."""
    asked = [*WSD, "trainer.max_steps=12", "data.eval_batch_size=3,4,5"]
    first, damaged, ended = jobs = prepare(workplace, "shared", *asked)[0].jobs()
    (first.path / "branches" / "8").mkdir(parents=True)
    (damaged.path / "status.json").write_text("{")
    ended.update_status(state="completed", saved_step=12)
    trunks = Trunks(jobs)
    assert trunks.is_ready(damaged, jobs)  # to be told of
    trunks.tidy(ended)
    trunks.tidy()
    assert is_kept(first, 8)


def test_jobs_of_a_driver_and_of_others_share_in_one_sweep(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some were begun with by a driver, and `--jobs json` has added others."""
    found = plan(workplace, *WSD, "trainer.max_steps=12,24")
    sweep = SweepDirectory(workplace / "outputs/sweeps/s")
    short, long = add_jobs(sweep, found.jobs, {})
    printed(workplace, capsys, "trainer.max_steps=32,48", "name=s")
    more = [job for job in sweep.jobs() if job.varies["trainer.max_steps"] > 24]
    either = Either(sweep, sweep.jobs())
    assert not either.is_ready(short, [short, long, *more])
    assert all(either.is_ready(job, [short, long, *more]) for job in [long, *more])
    for job, step in ((long, 10), (more[0], 26)):
        job.update_status(state="completed", saved_step=job.varies["trainer.max_steps"])
        (job.path / "branches" / str(step)).mkdir(parents=True)
        either.tidy(job)
    either.tidy()
    with started_by_itself(long):
        pass
    assert is_kept(long, 10)
    assert is_kept(more[0], 26)
    for job in (short, more[1]):
        job.update_status(state="completed", saved_step=job.varies["trainer.max_steps"])
    either.tidy()
    assert not is_kept(long, 10)
    assert not is_kept(more[0], 26)


def test_a_job_of_a_driver_that_is_started_alone_leaves_others_their_states(
    workplace: Path,
) -> None:
    asked = [*WSD, "trainer.max_steps=12,16", "data.eval_batch_size=3,4"]
    jobs = prepare(workplace, "shared", *asked)[0].jobs()
    one = next(job for job in jobs if job.place["replays"])
    keeper = Run(one.path.parent / one.place["replays"][0][0])
    needed = next(job for job in jobs if (job.place["trunk"] or [""])[0] == keeper.id)
    step = needed.place["trunk"][1]
    (keeper.path / "branches" / str(step)).mkdir(parents=True)
    with started_by_itself(one):
        one.update_status(state="completed", saved_step=16)
    assert is_kept(keeper, step)


def printed(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[list[str]]:
    """The commands of a sweep's jobs, of three lengths unless the overrides say otherwise."""
    given = {override.partition("=")[0] for override in [*WSD, LENGTHS]}
    small = [*write_data(folder)["lm"], *SMALL[:-4], "logger=none"]
    kept = [line for line in small if line.partition("=")[0] not in given]
    assert print_jobs("json", [*kept, *WSD, LENGTHS, *overrides], []) == 0
    return [job["command"][1:] for job in json.loads(capsys.readouterr().out)["jobs"]]


def test_jobs_that_others_start_begin_with_what_is_there(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The longest is printed first, since the others go on from it."""
    paths = [Path(command[-1]) for command in printed(workplace, capsys, "name=s")]
    jobs = [Run(path) for path in paths]
    assert [job.varies["trainer.max_steps"] for job in jobs] == [24, 16, 12]
    assert [job.place["branches"] for job in jobs] == [[10, 13], [10, 13], [10]]
    names = [job.id for job in jobs]
    assert dict(jobs[0].place["siblings"]) == {names[1]: 13, names[2]: 10}
    assert not any(job.place["trunk"] for job in jobs)
    asked = ask([*write_data(workplace)["lm"], *SMALL[:6], *WSD, LENGTHS, "name=t"])
    assert "29 steps in place of 52" in " ".join(plan_sweep(asked, together=False).notes)
    printed(workplace, capsys, "name=off", "sweeps.share=false")
    alone = SweepDirectory(workplace / "outputs/sweeps/off").jobs()
    assert not any(job.place["siblings"] or job.place["branches"] for job in alone)


# -- trained -----------------------------------------------------------------------------------


@pytest.fixture
def mishaps(workplace: Path) -> Iterator[Path]:
    before = list(sys.path)
    (workplace / "mishaps.py").write_text(MISHAPS)
    sys.path.insert(0, str(workplace))
    yield workplace
    sys.path[:] = before


def train(folder: Path, name: str, *overrides: str, task: str = "lm") -> tuple[int, list[Run]]:
    """Train a sweep's jobs; its exit code and the jobs."""
    sweep, settings = prepare(folder, name, *overrides, task=task)
    return drive(sweep, Listed(sweep.jobs()), LocalPool(2), settings), sweep.jobs()


def shared_and_apart(folder: Path, *overrides: str) -> list[Run]:
    """Train a sweep's jobs, and each by itself, which must come to the same; those that share."""
    code, jobs = train(folder, "shared", *overrides)
    assert (code, train(folder, "apart", *overrides, "sweeps.share=false")[0]) == (0, 0)
    for job, alone in zip(jobs, SweepDirectory(folder / "apart").jobs(), strict=True):
        assert_same(job, alone)
    return jobs


def prepare(
    folder: Path, name: str, *overrides: str, task: str = "lm"
) -> tuple[SweepDirectory, Sweep]:
    """A sweep whose jobs wait to be trained, and its settings."""
    small = [*data(folder, overrides, task), *SMALL[:-4], "logger=none"]
    asked = ask([*small, *overrides, "name=s"])
    sweep = SweepDirectory(folder / name)
    sweep.ask([], [], asked.settings, {})
    add_jobs(sweep, plan_sweep(asked).jobs, {})
    return sweep, asked.settings


def rows(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in read(run.metrics)]


def same(first: Any, second: Any) -> bool:
    """Whether two states are the same bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def assert_same(first: Run, second: Run) -> None:
    results = [
        {k: v for k, v in r.read_results().items() if k not in CLOCK} for r in (first, second)
    ]
    assert results[0] == results[1]
    assert rows(first) == rows(second)
    for name in ("best.ckpt", "last.ckpt"):
        states = [torch.load(r.checkpoints / name, weights_only=True) for r in (first, second)]
        for part in ("state_dict", "optimizer_states", "global_step"):
            assert same(states[0].get(part), states[1].get(part)), (name, part)
    for split in ("val", "test"):
        scores = [r.read_scores(split) for r in (first, second)]
        assert scores[0].keys() == scores[1].keys()
        assert all(np.array_equal(scores[0][k], scores[1][k]) for k in scores[0])


@pytest.mark.slow
def test_jobs_that_others_start_end_as_they_would_by_themselves(
    mishaps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their commands, the first of which is killed, and repeated when the second has ended."""
    kill = ["+callbacks.mishap.how=kill", "+callbacks.mishap.at=12", "+callbacks.mishap.once=true"]
    commands = printed(mishaps, capsys, *FIXED, *kill, "name=s")
    codes = [processes.run(commands[i], cwd=mishaps).returncode for i in (0, 1, 0, 2)]
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    longest, *others = [Run(Path(command[-1])) for command in commands]
    branched = [job.read_provenance()["branched"] for job in others]
    assert branched == [{"run": longest.id, "step": 10}] * 2  # 13 was not there yet
    assert "branched" not in longest.read_provenance()
    assert not any((job.path / "branches").exists() for job in (longest, *others))

    asked = [*FIXED, *kill, *WSD, LENGTHS]
    alone = train(mishaps, "apart", *asked, "sweeps.share=false", "sweeps.retries=1")[1]
    for job in (longest, *others):
        (same_steps,) = (one for one in alone if one.varies == job.varies)
        assert_same(job, same_steps)


@pytest.mark.slow
def test_jobs_of_another_launcher_go_on_from_each_other(workplace: Path) -> None:
    given = {override.partition("=")[0] for override in [*WSD, LENGTHS]}
    small = [*write_data(workplace)["lm"], *SMALL[:-4], "logger=none"]
    kept = [line for line in small if line.partition("=")[0] not in given]
    assert sweep([*kept, *WSD, LENGTHS, "name=s", "hydra/launcher=basic"], [], False) == 0
    jobs = SweepDirectory(workplace / "outputs/sweeps/s").jobs()
    longest = jobs[0].id
    branched = [job.read_provenance().get("branched") for job in jobs]
    assert branched == [None, {"run": longest, "step": 13}, {"run": longest, "step": 10}]
    alone = train(workplace, "apart", *WSD, LENGTHS, "sweeps.share=false")[1]
    for job in jobs:
        (same_steps,) = (one for one in alone if one.varies == job.varies)
        assert_same(job, same_steps)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_each_job_ends_as_it_would_by_itself(mishaps: Path, dropout: float) -> None:
    """The one that trains for all is killed on its way, after it has kept the first state."""
    kill = ["+callbacks.mishap.how=kill", "+callbacks.mishap.at=12", "+callbacks.mishap.once=true"]
    asked = [*FIXED, *kill, "sweeps.retries=1", *WSD, LENGTHS, f"model.dropout={dropout}"]
    code, jobs = train(mishaps, "shared", *asked)
    apart = [*asked, "sweeps.share=false"]
    assert (code, train(mishaps, "apart", *apart)[0]) == (0, 0)
    alone = {run.id: run for run in SweepDirectory(mishaps / "apart").jobs()}
    longest = jobs[2]
    for job, step in zip(jobs, (10, 13, None), strict=True):
        assert_same(job, alone[job.id])
        branched = job.read_provenance().get("branched")
        assert branched == (step and {"run": longest.id, "step": step})
    assert not (longest.path / "branches").exists()


@pytest.mark.slow
def test_jobs_train_by_themselves_where_the_longest_cannot(mishaps: Path) -> None:
    fail = ["+callbacks.mishap.how=fail", "+callbacks.mishap.at=5"]
    code, jobs = train(mishaps, "shared", *FIXED, *fail, *WSD, "trainer.max_steps=12,24")
    assert code == 1
    assert [(job.state, job.step) for job in jobs] == [("failed", 4), ("failed", 4)]
    assert all("branched" not in job.read_provenance() for job in jobs)


@pytest.mark.slow
def test_jobs_of_other_patience_stop_as_they_would_by_themselves(workplace: Path) -> None:
    """Nothing is an improvement, so that each stops as early as it may.

    The second begins with what the first has after 7 steps, which the third has trained.
    """
    asked = [*WSD, "trainer.max_steps=24", "callbacks.early_stopping.patience=2,4,null"]
    asked.append("callbacks.early_stopping.min_delta=100")
    jobs = shared_and_apart(workplace, *asked)
    assert [job.step for job in jobs] == [12, 20, 24]
    branched = [job.read_provenance().get("branched") for job in jobs]
    never = jobs[2].id
    assert branched == [{"run": never, "step": 12}, {"run": never, "step": 20}, None]
    assert not any((job.path / "branches").exists() for job in jobs)


@pytest.mark.slow
def test_jobs_that_stop_before_they_part_train_these_steps_once(workplace: Path) -> None:
    """Nothing is an improvement, so that each stops at its third validation."""
    stops = ["callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=100"]
    asked = [*WSD[:2], "trainer.val_check_interval=2", "trainer.max_steps=12,24", *stops]
    jobs = shared_and_apart(workplace, *asked)
    assert [job.step for job in jobs] == [6, 6]
    assert jobs[0].read_provenance()["branched"] == {"run": jobs[1].id, "step": 6}
    assert not any((job.path / "branches").exists() for job in jobs)


@pytest.mark.slow
def test_jobs_that_a_callback_of_ones_own_ends_do_so_by_themselves(workplace: Path) -> None:
    """It would not end again at once what goes on from the step at which it has ended another."""
    stops = ["callbacks.stop._target_=tests.callbacks.test_validation.StopAt"]
    stops += ["callbacks.stop.step=5", "allowed_packages=[tests]"]
    asked = [*WSD[:2], "trainer.val_check_interval=2", "trainer.max_steps=12,24", *stops]
    jobs = shared_and_apart(workplace, *asked)
    assert [job.step for job in jobs] == [5, 5]


@pytest.mark.slow
def test_jobs_that_are_saved_at_other_steps_end_the_same(workplace: Path) -> None:
    asked = [*WSD, "trainer.max_steps=10", "callbacks.checkpoint.every_n_steps=3,5"]
    code, jobs = train(workplace, "shared", *asked)
    assert (code, train(workplace, "apart", *asked, "sweeps.share=false")[0]) == (0, 0)
    apart = SweepDirectory(workplace / "apart").jobs()
    for job, alone in zip(jobs, apart, strict=True):
        assert_same(job, alone)
    assert jobs[1].read_provenance()["branched"] == {"run": jobs[0].id, "step": 9}
    ids = {job.status.get("wandb_id", job.identity[:16]) for job in [*jobs, *apart]}
    assert len(ids) == 4  # each is another run of W&B, be it of the same configuration


@pytest.mark.slow
def test_a_job_that_is_made_longer_trains_for_no_other(workplace: Path) -> None:
    """Its rates are not those that the other was to share."""
    asked = [*WSD, "trainer.max_steps=14", "data.eval_batch_size=3,4"]
    sweep, settings = prepare(workplace, "shared", *asked)
    change(sweep.jobs()[0], ["trainer.max_steps=24"])
    assert drive(sweep, Listed(sweep.jobs()), LocalPool(2), settings) == 0
    assert train(workplace, "apart", *asked, "sweeps.share=false")[0] == 0
    first, second = sweep.jobs()
    assert [job.step for job in (first, second)] == [24, 14]
    assert second.place["replays"]
    assert "branched" not in second.read_provenance()
    assert_same(second, SweepDirectory(workplace / "apart").jobs()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("lm", ["callbacks.checkpoint.keep_optimizer=true,false", "task.sample_tokens=4"]),
        ("translation", ["task.val_generated=0", "task.beam_size=1,2", "task.max_new_tokens=4"]),
    ],
)
def test_jobs_that_end_otherwise_train_the_same(
    workplace: Path, task: str, overrides: list[str]
) -> None:
    asked = [*WSD, "trainer.max_steps=10", *overrides]
    code, jobs = train(workplace, "shared", *asked, task=task)
    assert (code, train(workplace, "apart", *asked, "sweeps.share=false", task=task)[0]) == (0, 0)
    for job, alone in zip(jobs, SweepDirectory(workplace / "apart").jobs(), strict=True):
        assert_same(job, alone)
        assert job.tables.read_bytes() == alone.tables.read_bytes()
    assert jobs[1].read_provenance()["branched"] == {"run": jobs[0].id, "step": 9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "overrides", "states"),
    [
        ("lm", ["trainer.val_check_interval=4,6", "trainer.log_every_n_steps=3"], [6, 12, 13]),
        ("lm", ["callbacks.checkpoint.monitor=val/loss,val/bits_per_byte"], [4, 8, 12, 13]),
        ("translation", ["task.val_generated=6", "task.beam_size=1,2"], [4, 8, 12, 13]),
        ("lm", ["trainer.val_check_interval=4,6", "trainer.devices=2"], [6, 12, 13]),
        ("lm", ["trainer.val_check_interval=4,6", *FSDP], [6, 12, 13]),
    ],
    ids=["interval", "monitor", "beams", "ranks", "sharded"],
)
def test_jobs_with_other_validations_train_the_same(
    workplace: Path, task: str, overrides: list[str], states: list[int]
) -> None:
    """The second job validates states that the first has kept, and trains the last step."""
    keep = ["callbacks.checkpoint.keep_optimizer=true", "data.eval_batch_size=3"]
    asked = [*WSD, "trainer.max_steps=14", *keep, *overrides]
    code, jobs = train(workplace, "shared", *asked, task=task)
    assert (code, train(workplace, "apart", *asked, "sweeps.share=false", task=task)[0]) == (0, 0)
    for job, alone in zip(jobs, SweepDirectory(workplace / "apart").jobs(), strict=True):
        assert_same(job, alone)
        times = [row["time"] for row in read(job.metrics)]
        assert times == sorted(times)
    first, second = jobs
    assert second.place["replays"] == [[first.id, step] for step in states]
    assert second.read_provenance()["branched"] == {"run": first.id, "step": 13}
    assert not (first.path / "branches").exists()


KILLED = """
import os, shutil, signal
from pathlib import Path

import pytorch_lightning as pl


class Killed(pl.Callback):
    def __init__(self, at: int, spoil: str):
        self.at, self.spoil = at, spoil

    def on_validation_end(self, trainer, module):
        run = Path(trainer.default_root_dir)
        step = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        if step != self.at or Path("hit").exists():
            return
        if "branched" in (run / "provenance.json").read_text():
            Path("hit").touch()
            for folder in run.parent.glob(f"*/branches/{step}"):
                if self.spoil == "lose":
                    shutil.rmtree(folder)
                if self.spoil == "damage":
                    (folder / "last.ckpt").write_bytes(b"")
                if self.spoil == "curve":
                    record = folder / "metrics.jsonl"
                    record.write_bytes(record.read_bytes()[:-9])
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "spoil"), [(4, "nothing"), (8, "lose"), (8, "damage"), (8, "curve")]
)
def test_a_job_that_is_killed_goes_on_as_it_would_by_itself(
    mishaps: Path, monkeypatch: pytest.MonkeyPatch, at: int, spoil: str
) -> None:
    """It has nothing yet to resume from; or it has, and trains what is left without a state."""
    (mishaps / "killed.py").write_text(KILLED)
    monkeypatch.setattr("truesweep.sweeps.trunks.OWN", "")  # this callback misses nothing
    asked = [*WSD, "trainer.max_steps=14", "data.eval_batch_size=3,4", "sweeps.retries=1"]
    asked += ["trainer.log_every_n_steps=2", "allowed_packages=[killed]"]
    asked += ["+callbacks.killed._target_=killed.Killed", f"+callbacks.killed.at={at}"]
    asked.append(f"+callbacks.killed.spoil={spoil}")
    code, jobs = train(mishaps, "shared", *asked)
    assert (mishaps / "hit").exists()
    assert (code, train(mishaps, "apart", *asked, "sweeps.share=false")[0]) == (0, 0)
    for job, alone in zip(jobs, SweepDirectory(mishaps / "apart").jobs(), strict=True):
        assert_same(job, alone)
    first, second = jobs
    branched = {"run": first.id, "step": 4 if at == 8 else 13}
    assert second.read_provenance()["branched"] == branched


@pytest.mark.slow
def test_curricula_end_as_they_would_by_themselves(workplace: Path) -> None:
    """Two of them; the third goes on from the second, which has gone on from the first."""
    asked = [*WSD, "trainer.max_steps=24", *mix(workplace, *CURRICULA[:3])]
    jobs = shared_and_apart(workplace, *asked)
    branched = [job.read_provenance().get("branched") for job in jobs]
    first, second, _ = (job.id for job in jobs)
    assert branched == [None, {"run": first, "step": 6}, {"run": second, "step": 14}]
    assert not any((job.path / "branches").exists() for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_branch_too(workplace: Path, strategy: str) -> None:
    asked = ["trainer.devices=2", f"trainer.strategy={strategy}", *WSD, "trainer.max_steps=8,10"]
    jobs = shared_and_apart(workplace, *asked)
    assert jobs[0].read_provenance()["branched"]["step"] == 6
