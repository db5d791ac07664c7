"""Planning of real sweeps on small data; nothing is trained."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.commands.conftest import SMALL, write_data
from truesweep.errors import ConfigError
from truesweep.jobs import plan as jobs_plan
from truesweep.jobs.names import NAME_LENGTH
from truesweep.jobs.parts import build_model, prepare_data
from truesweep.sweeps import planned, start
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.launchers import check_room, check_sweeper, make_executor
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.planning import JobMaker, base_seed, plan_sweep
from truesweep.sweeps.request import Asked, ask
from truesweep.sweeps.start import add_jobs, prepare

AskFor = Callable[..., Asked]


@pytest.fixture
def asked(workplace: Path) -> AskFor:
    """Asks for a sweep over small data."""
    small = [*write_data(workplace)["lm"], *SMALL]

    def ask_for(*overrides: str) -> Asked:
        given = {override.partition("=")[0] for override in overrides}
        kept = [override for override in small if override.partition("=")[0] not in given]
        return ask([*kept, *overrides])

    return ask_for


def values(asked: Asked) -> list[tuple[Any, ...]]:
    return [tuple(job.varies.values()) for job in plan_sweep(asked).jobs]


def test_a_grid_is_planned_whole(asked: AskFor) -> None:
    plan = plan_sweep(asked("optimizer.lr=1e-3,3e-3", "model.depth=1,2", "name=s"))
    assert [job.label for job in plan.jobs] == [
        "lr=0.001 depth=1",
        "lr=0.001 depth=2",
        "lr=0.003 depth=1",
        "lr=0.003 depth=2",
    ]
    first, second = plan.jobs[:2]
    assert first.config["name"] == "s"
    assert first.config["optimizer"]["lr"] == 1e-3
    assert first.parameters < second.parameters
    assert (first.steps, first.devices, first.nodes) == (12, 1, 1)
    assert len({job.id for job in plan.jobs}) == 4
    assert "optimizer.lr=0.001" in first.overrides
    assert plan.notes == []


def test_a_job_is_the_run_that_its_overrides_ask_for(asked: AskFor) -> None:
    (first, _) = plan_sweep(asked("model.depth=1,2", "name=s")).jobs
    alone = jobs_plan.plan(first.overrides)
    assert alone.config == first.config
    assert alone.id == first.id


def test_an_epochs_axis_takes_the_place_of_the_presets_steps(asked: AskFor) -> None:
    sweep = ask(["trainer.max_epochs=1,2", "model.width=32", "data.batch_size=512"])
    assert [job.config["trainer"]["max_steps"] for job in plan_sweep(sweep).jobs] == [None, None]


def test_all_problems_of_all_jobs_are_reported_at_once(asked: AskFor, workplace: Path) -> None:
    sweep = asked("model.depth=1,0", "model.heads=2,5", "optimizer.lr=1e-3,-1", "optimizer.x=1")
    with pytest.raises(ConfigError) as caught:
        plan_sweep(sweep)
    message = str(caught.value)
    assert "optimizer.x: no such key" in message
    assert "in all 8 jobs" in message
    assert "optimizer.lr: expected a number > 0, found -1 (swept)\n  in 4 of 8 jobs: " in message
    assert "depth=1 heads=2 lr=-1" in message
    assert "model.depth: expected an integer > 0, found 0" in message


def test_problems_with_the_data_name_their_jobs(asked: AskFor) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(asked("data.batch_size=8,100000", "model.depth=1,2"))
    assert "in 2 of 4 jobs: batch_size=100000 depth=1; batch_size=100000 depth=2" in str(
        caught.value
    )
    assert "fewer than one batch" in str(caught.value)


def test_duplicates_are_dropped_with_a_note(asked: AskFor) -> None:
    plan = plan_sweep(asked("optimizer.lr=1e-3,0.001,2e-3", "name=s"))
    assert [job.label for job in plan.jobs] == ["lr=0.001", "lr=0.002"]
    assert plan.ids == [plan.jobs[0].id, plan.jobs[0].id, plan.jobs[1].id]
    assert "lr=0.001 is lr=0.001" in plan.notes[0]


def test_every_point_has_its_seeds(asked: AskFor) -> None:
    sweep = asked("optimizer.lr=1e-3,2e-3", "sweeps.seeds=2", "seed=5", "name=s")
    assert base_seed(sweep) == 5
    assert values(sweep) == [(1e-3, 5), (2e-3, 5), (1e-3, 6), (2e-3, 6)]
    assert [job.config["seed"] for job in plan_sweep(sweep).jobs] == [5, 5, 6, 6]
    assert values(asked("optimizer.lr=1e-3", "sweeps.seeds=[3]", "name=s")) == [(3,)]


def test_a_space_is_paired_and_thinned(asked: AskFor) -> None:
    axes = ["optimizer.lr=1e-3,2e-3,3e-3", "model.depth=1,2,3", "data.batch_size=4,8"]
    thinned = [
        "sweeps.zip=[[optimizer.lr,model.depth]]",
        "sweeps.exclude=[{optimizer.lr: 1e-3, data.batch_size: 8}]",
    ]
    assert values(asked(*axes, *thinned)) == [
        (1e-3, 1, 4),
        (2e-3, 2, 4),
        (2e-3, 2, 8),
        (3e-3, 3, 4),
        (3e-3, 3, 8),
    ]


def test_random_points(asked: AskFor) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "model.depth=range(1,3)", "name=s"]
    sweep = asked(*space, "sweeps.method=random", "sweeps.jobs=4")
    assert len(values(sweep)) == 4
    assert values(asked(*space, "sweeps.method=random", "sweeps.jobs=6"))[:4] == values(sweep)
    few = plan_sweep(asked("model.depth=1,2", "sweeps.method=random", "sweeps.jobs=9"))
    assert len(few.jobs) == 2
    assert few.notes == ["the space has no more than 2 points"]


def test_a_search_is_checked_at_its_corners(asked: AskFor) -> None:
    space = ["model.depth=range(1,3)", "optimizer.lr=interval(-1,1)", "sweeps.method=search"]
    with pytest.raises(ConfigError, match=r"optimizer\.lr: expected a number > 0, found -1\.0"):
        plan_sweep(asked(*space, "sweeps.jobs=3"))


def test_a_grid_keeps_to_its_budget(asked: AskFor) -> None:
    with pytest.raises(ConfigError, match=r"3 points, more than sweeps\.jobs=2"):
        plan_sweep(asked("model.depth=1,2,3", "sweeps.jobs=2"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.depth=1"], "nothing varies"),
        (["name=a,b"], "name: belongs to the whole sweep"),
        (["sweeps=lm,lr_range"], "sweeps: belongs to the whole sweep"),
        (["seed=1,2", "sweeps.seeds=2"], "leave one of them out"),
        (["sweeps=lr_rnage"], "lr_range"),
        (["a.b=1,2", "sweeps.methd=grid"], r"sweeps\.methd: .*method"),
    ],
)
def test_what_makes_no_sweep_is_refused(asked: AskFor, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(*overrides)


def test_names_follow_from_keys_not_from_values(asked: AskFor) -> None:
    def name(*overrides: str) -> str:
        return ask(["model.width=32", *overrides]).name

    assert name("optimizer.lr=1,2", "model.depth=1,2") == "lm_width=32_lr_depth"
    assert name("optimizer.lr=3,4", "model.depth=3") == "lm_width=32_depth=3_lr"
    assert name("sweeps=lr_range") == "lm_width=32_lr_range"
    assert name("sweeps=lr_range", "optimizer.lr=1,2", "model.depth=1,2").endswith("range_depth")
    assert name("sweeps=translation") == "translation_width=32_translation"
    assert name("optimizer.lr=1,2", "name=mine") == "mine"
    keys = ["callbacks.checkpoint.every_n_steps", "trainer.gradient_clip_val", "model.dropout"]
    long = [f"{key}=1,2" for key in [*keys, "data.batch_size", "optimizer.weight_decay"]]
    assert len(name(*long)) <= NAME_LENGTH
    assert name(*long) != name(*long[:-1], "optimizer.weight_decays=1,2")


def test_of_sweeps_with_one_long_name_each_has_a_folder_of_its_own(asked: AskFor) -> None:
    fixed = ["scheduler.warmup=0", "optimizer.weight_decay=0.125", "data.eval_batch_size=16"]
    fixed += ["optimizer.lr=1e-3", "seed=1,2"]
    first, other = (asked(*fixed, f"task.label_smoothing={share}") for share in (0.1, 0.2))
    assert first.name == other.name  # as it was in version 0.1.0, and so the ids
    start.record(first, {}, plan_sweep(first))
    second = asked(*fixed, "task.label_smoothing=0.2")
    assert second.name != first.name
    assert len(second.name) <= NAME_LENGTH
    start.record(second, {}, plan_sweep(second))
    for share, name in ((0.1, first.name), (0.2, second.name)):
        more = [*fixed[:-1], "seed=1,2,3", f"task.label_smoothing={share}", "sweeps.retries=1"]
        assert asked(*more).name == name


def test_jobs_need_room_on_the_disk(
    asked: AskFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sweep(asked("model.depth=1,2"))
    check_disk(plan.jobs, tmp_path / "not/there")
    monkeypatch.setattr(planned, "BYTES_PER_PARAMETER", 10**15)
    with pytest.raises(ConfigError, match=r"2 jobs need about .* GB"):
        check_disk(plan.jobs, tmp_path / "not/there")


def test_jobs_need_devices(asked: AskFor, workplace: Path) -> None:
    plan = plan_sweep(asked("trainer.devices=1,3"))
    with pytest.raises(ConfigError, match="devices=3"):
        check_room(make_executor({"slots": 2}), plan.jobs)
    check_room(make_executor({"slots": 3}), plan.jobs)
    assert not (workplace / "outputs").exists()


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({"slot": 2}, r"hydra\.launcher\.slot: .*slots"),
        ({"slots": 0}, r"hydra\.launcher\.slots: expected an integer > 0"),
        ({"_target_": "hydra_plugins.truesweep.SlurmLauncher", "partitoin": "x"}, "partition"),
    ],
)
def test_a_wrong_launcher_is_refused(launcher: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_executor(launcher)


def test_more_values_add_jobs_and_keep_the_others(asked: AskFor, tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "s")
    first = add_jobs(sweep, plan_sweep(asked("model.depth=1,2", "name=s")).jobs, {})
    first[0].begin()
    again = add_jobs(sweep, plan_sweep(asked("model.depth=1,2,3", "name=s")).jobs, {})
    assert again[:2] == first
    assert [job.label for job in sweep.jobs()] == ["depth=1", "depth=2", "depth=3"]
    assert [job.job["number"] for job in sweep.jobs()] == [0, 1, 2]
    assert sweep.jobs()[0].status["state"] == "running"


def test_a_search_makes_the_jobs_that_a_grid_would(asked: AskFor, tmp_path: Path) -> None:
    sweep = asked("model.depth=1,2", "name=s")
    plan = plan_sweep(sweep)
    maker = JobMaker(sweep, SweepDirectory(tmp_path / "s"), {})
    job = maker({"model.depth": 2}, 0, {"number": 3})
    assert job.id == plan.jobs[1].id
    assert job.job["trial"] == {"number": 3}
    assert job.label == "depth=2"


def test_jobs_that_turn_out_to_be_the_same_are_planned_once(asked: AskFor) -> None:
    twice = "model.activation_checkpointing"
    plan = plan_sweep(asked(f"{twice}=auto,true,false", "seed=1,2", "name=s"))
    assert len(plan.jobs) == len({job.id for job in plan.jobs}) == 4
    assert {job.config["model"]["activation_checkpointing"] for job in plan.jobs} == {False, True}
    assert {*plan.ids} == {job.id for job in plan.jobs}
    assert [plan.ids.count(job.id) for job in plan.jobs] == [2, 2, 1, 1]
    (note,) = plan.notes
    assert note.startswith("left out, 2 the same as others: ")


def test_a_search_keeps_its_precision_on_another_machine(
    asked: AskFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = SweepDirectory(tmp_path / "s")

    def taken(depth: int, bf16: str | None, *overrides: str) -> Any:
        monkeypatch.setattr("truesweep.jobs.trainer.bf16_of_cpu", lambda: bf16)
        axes = ["model.depth=1,2,3,4", "name=s", *overrides]
        job = JobMaker(asked(*axes), directory, {})({"model.depth": depth}, 0, {"number": depth})
        return trainer_of(job).precision

    auto = "trainer.precision=auto"
    assert taken(1, "AMX", auto) == taken(2, None, auto) == "bf16-mixed"
    assert taken(3, None, "trainer.precision=32-true") == "32-true"


def test_what_jobs_share_is_made_once(asked: AskFor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"data": 0, "model": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(jobs_plan, "prepare_data", counted("data", prepare_data))
    monkeypatch.setattr(jobs_plan, "build_model", counted("model", build_model))
    axes = ["optimizer.lr=1,2", "data.batch_size=4,8", "model.depth=1,2", "seed=1,2"]
    assert len(plan_sweep(asked(*axes)).jobs) == 16
    assert calls == {"data": 2, "model": 2}


def test_many_points_are_planned_in_seconds(asked: AskFor) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "data.batch_size=4,8,16,32"]
    space += ["model.depth=range(1,5)", "sweeps.method=random", "sweeps.jobs=150"]
    began = time.process_time()
    assert len(plan_sweep(asked(*space)).jobs) == 150
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sweeps.objective=val/los"], r"=val/los: depth=1 will not report it; .*=val/loss; there"),
        (["sweeps.objective=val/bleu"], "will not report it"),
        (
            ["sweeps.objective=test/loss"],
            "one more validation split; set sweeps.objective=val/loss",
        ),
        (
            [
                *("sweeps.method=search", "sweeps.jobs=2", "sweeps.pruner=median"),
                "sweeps.objective=train/tokens",
            ],
            "is known at the end only, .*set sweeps.pruner=null",
        ),
    ],
)
def test_what_no_job_will_report_is_no_objective(
    asked: AskFor, overrides: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepare(asked("model.depth=1,2", "name=s", *overrides), None)


def test_a_cost_may_be_an_objective(asked: AskFor) -> None:
    both = ["sweeps.objective=[val/loss,parameters]", "sweeps.method=search", "sweeps.jobs=2"]
    assert len(prepare(asked("model.depth=1,2", "name=s", *both), None).jobs) == 2


def test_a_callback_waits_for_what_validations_report(asked: AskFor) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.checkpoint\.monitor=val/bleu is no metric"):
        plan_sweep(asked("model.depth=1,2", "callbacks.checkpoint.monitor=val/bleu"))


NAMED = [
    "+sweeps.space={optimizer.lr: [1e-3, 3e-3], model.dropout: [0.1, 0.2]}",
    "sweeps.zip=[[optimizer.lr,model.dropout]]",
    "sweeps.exclude=[{optimizer.lr: 3e-3, seed: 2}]",
    "name=s",
]


def test_a_named_space_is_changed_key_by_key(asked: AskFor) -> None:
    changed = asked(NAMED[0], "+sweeps.space.optimizer.lr=[1e-2,2e-2]", "name=s")
    assert values(changed) == [(1e-2, 0.1), (1e-2, 0.2), (2e-2, 0.1), (2e-2, 0.2)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.dropout=0.2", "seed=1,2"], [(1e-3, 1), (1e-3, 2), (3e-3, 1)]),
        (["seed=2"], [(1e-3, 0.1)]),
        (["seed=1"], [(1e-3, 0.1), (3e-3, 0.2)]),
        (["optimizer.lr=1e-3", "seed=2"], [(0.1,), (0.2,)]),
        (
            ["optimizer.lr=5e-3,6e-3", "seed=2,3"],
            [(5e-3, 0.1, 2), (5e-3, 0.1, 3), (6e-3, 0.2, 2), (6e-3, 0.2, 3)],
        ),
    ],
)
def test_pairs_and_exclusions_of_a_named_sweep_bear_fixed_keys(
    asked: AskFor, overrides: list[str], expected: list[tuple[Any, ...]]
) -> None:
    assert values(asked(*NAMED, *overrides)) == expected


def test_a_space_of_which_nothing_is_left_is_refused(asked: AskFor) -> None:
    with pytest.raises(ConfigError, match="every point of the space is excluded"):
        plan_sweep(asked("model.depth=1,2", "sweeps.exclude=[{model.depth: [1, 2]}]"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("'my sweep'", "my sweep"), ("a/b", "a/b"), ("..", None), ("a/../..", None)],
)
def test_a_name_is_a_folder_of_its_own(asked: AskFor, name: str, expected: str | None) -> None:
    if expected is not None:
        assert asked("model.depth=1,2", f"name={name}").name == expected
        return
    with pytest.raises(ConfigError, match="is no folder inside outputs/"):
        asked("model.depth=1,2", f"name={name}")


def test_room_is_kept_for_all_that_a_search_may_come_to(
    asked: AskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = asked("model.depth=1,2", "name=s", "sweeps.method=search", "sweeps.jobs=50")
    biggest = max(job.disk for job in plan_sweep(search).jobs)
    usage = SimpleNamespace(free=49 * biggest)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="the checkpoints of 50 jobs need about"):
        prepare(search, None)
    usage.free = 51 * biggest
    prepare(search, None)
    add_jobs(start.directory(search), plan_sweep(search).jobs[:2], {})
    usage.free = 49 * biggest
    prepare(search, None)  # two of the fifty have their room


def test_our_sweeper_has_no_settings_of_its_own(asked: AskFor) -> None:
    check_sweeper({"_target_": "hydra_plugins.truesweep.Sweeper"})
    with pytest.raises(ConfigError, match=r"hydra.sweeper.n_trials: no such key; .* sweeps.KEY"):
        check_sweeper({"_target_": "hydra_plugins.truesweep.Sweeper", "n_trials": 3})
    with pytest.raises(ConfigError, match=r"hydra.sweeper.params: .* sweeps.space.KEY=VALUES"):
        asked("hydra.sweeper.params={seed:'1,2'}")


def test_a_sweep_is_set_by_helper_values_and_other_keys(asked: AskFor) -> None:
    sizes = ["vars.most=3", "data.batch_size=4", "sweeps.method=random"]
    sweep = asked(*sizes, "seed=1,2,3,4,5", "sweeps.jobs='${eval:${vars.most}+${data.batch_size}}'")
    assert sweep.settings.jobs == 7
    composed = sweep.composer().compose({"seed": 1}).config  # where nothing else refers to it
    assert "vars" not in composed
