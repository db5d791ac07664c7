"""A search's start: by the law, by earlier sweeps, and what the data say of it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import SMALL, write_data
from tests.sweeps.search_driver import DEPTH, LR, MODEL, complete, search
from truesweep.config.space import Axis
from truesweep.errors import ConfigError
from truesweep.record.files import write_json
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.launchers import make_executor
from truesweep.sweeps.prior import BATCH, RATE, Trained, find_prior
from truesweep.sweeps.request import ask
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.start import as_decided, prepare, record

BATCHES = Axis(BATCH, values=(4, 8, 16, 32, 64, 128))
WIDE = Axis(RATE, "float", low=1e-5, high=1.0, log=True)


def climbed(
    folder: Path, start: dict[str, Any], of: Callable[[dict[str, Any]], float], **settings: Any
) -> list[Run]:
    """The jobs of a climb over rates and batch sizes."""
    source = search(
        folder, [WIDE, BATCHES], sampler="climb", start=start, **{"jobs": 16, **settings}
    )
    done = []
    while (job := source.ask()) is not None:
        complete(job, val_loss=of(dict(job.varies)))
        source.tell(job)
        done.append(job)
    assert source.exhausted
    return done


def bowl(rate: float, batch: float) -> Callable[[dict[str, Any]], float]:
    """Least at a rate and a batch size; a factor of two from it costs 0.1."""

    def loss(point: dict[str, Any]) -> float:
        return 2 + sum(
            math.log2(point[key] / best) ** 2 / 10 for key, best in ((RATE, rate), (BATCH, batch))
        )

    return loss


def test_a_climb_starts_where_it_is_told_and_ends_at_the_least(tmp_path: Path) -> None:
    truth = bowl(0.01, 16)
    done = climbed(tmp_path / "s", {RATE: 0.008, BATCH: 16}, truth)
    assert dict(done[0].varies) == {RATE: 0.008, BATCH: 16}
    best = min(done, key=lambda job: truth(dict(job.varies)))
    assert dict(best.varies)[RATE] == pytest.approx(0.01, rel=0.01)
    assert len(done) == 7  # the start, four neighbours, two steps below, the vertex
    for i, value in enumerate([1e-5, 1.0]):  # at an end there is one neighbour
        assert climbed(tmp_path / str(i), {RATE: value, BATCH: 4}, bowl(value, 4))


def test_a_step_of_the_batch_takes_the_rate_along(tmp_path: Path) -> None:
    done = climbed(tmp_path / "s", {RATE: 0.02, BATCH: 16}, bowl(0.02, 16))
    batches = {job.varies[BATCH]: job.varies[RATE] for job in done}
    assert batches[8] == pytest.approx(0.02 / 2**0.5, rel=1e-3)
    assert batches[32] == pytest.approx(0.02 * 2**0.5, rel=1e-3)
    named = search(tmp_path / "t", [BATCHES, MODEL], sampler="climb", start={BATCH: 16}, jobs=4)
    assert [job.varies[BATCH] for job in iter(named.ask, None)] == [16, 32, 8, 16]  # no rate varies


def test_data_overrule_a_start_that_is_wrong_by_ten(tmp_path: Path) -> None:
    truth = bowl(0.01, 16)
    right = climbed(tmp_path / "right", {RATE: 0.009, BATCH: 16}, truth)
    for i, rate in enumerate([0.001, 0.1]):
        wrong = climbed(tmp_path / str(i), {RATE: rate, BATCH: 16}, truth)
        best = min(truth(dict(job.varies)) for job in wrong)
        assert best < 2.01
        near = next(n for n, job in enumerate(wrong, 1) if truth(dict(job.varies)) < 2.1)
        assert near <= 6
        assert len(wrong) <= len(right) + 4


def test_a_vertex_that_is_no_better_is_the_last_job(tmp_path: Path) -> None:
    known = {0.06: 2.9952, 0.02: 2.9688, 0.006667: 2.9814}  # seen, with the noise of one seed

    def loss(at: dict[str, Any]) -> float:
        return known.get(float(at[RATE]), 2.9828) + float(at[BATCH] != 16)

    done = climbed(tmp_path / "s", {RATE: 0.02, BATCH: 16}, loss)
    assert len(done) == 7
    assert dict(done[-1].varies)[RATE] == pytest.approx(0.0165, rel=0.01)


def test_a_bump_below_rates_that_are_too_high_does_not_end_a_climb(tmp_path: Path) -> None:
    truth = bowl(0.025, 16)
    known = {0.249: 2.5861, 0.747: 2.6324, 0.083: 2.6507}  # seen

    def loss(at: dict[str, Any]) -> float:
        return known.get(float(at[RATE]), truth(at)) + float(at[BATCH] != 16)

    done = climbed(tmp_path / "s", {RATE: 0.249, BATCH: 16}, loss)
    best = min(done, key=lambda job: loss(dict(job.varies)))
    assert dict(best.varies)[RATE] == pytest.approx(0.025, rel=0.2)


def test_a_climb_goes_on_where_it_was(tmp_path: Path) -> None:
    truth = bowl(0.02, 32)
    whole = climbed(tmp_path / "s", {RATE: 0.001, BATCH: 8}, truth)
    first = climbed(tmp_path / "t", {RATE: 0.001, BATCH: 8}, truth, jobs=5)
    rest = climbed(tmp_path / "t", {RATE: 0.001, BATCH: 8}, truth)
    assert [job.varies for job in [*first, *rest]] == [job.varies for job in whole]


def test_what_runs_and_what_failed_is_not_tried_again(tmp_path: Path) -> None:
    source = search(tmp_path / "s", [LR, DEPTH, MODEL], sampler="climb", jobs=20)
    asked = []
    while (job := source.ask()) is not None:
        asked.append(job)
    assert len(asked) == 7  # the middle of the space, its neighbours, two steps below
    assert not source.exhausted
    for i, job in enumerate(asked):
        job.begin()
        if i % 2:
            job.end("failed", 1)
        else:
            write_json(job.results, {"val/loss": 1.0 + i})
            job.end("completed", 0)
        source.tell(job)
    assert source.ask() is None
    assert source.exhausted
    with pytest.raises(ConfigError, match="climb knows one objective"):
        search(tmp_path / "m", sampler="climb", objective=["val/loss", "val/perplexity"])


def test_a_start_is_any_samplers(tmp_path: Path) -> None:
    source = search(tmp_path / "s", [LR, DEPTH, MODEL], start={RATE: 0.02, "model": "qwen3"})
    job = source.ask()
    assert job is not None
    # Of the depth, which the start says nothing of, the middle.
    assert dict(job.varies) == {RATE: 0.02, "model.depth": 4, "model": "qwen3"}
    with pytest.raises(ConfigError, match=r"sweeps\.start needs sweeps\.method=search"):
        Sweep(start="prior")


def trained(tokens: float = 1e6, optimizer: str = "adamw", **model: Any) -> Trained:
    config = {
        "optimizer": {"_target_": f"truesweep.optim.{optimizer}"},
        "model": model,
        "data": {"max_length": 100},
    }
    return Trained(config, 1e6, tokens)


def test_the_law_is_the_papers() -> None:
    # 1.79 N^-0.713 D^0.307 and 0.58 D^0.571, by hand.
    assert trained().law == pytest.approx({RATE: 0.006559, BATCH: 15.47}, rel=1e-3)
    sizes: dict[str, Any] = {"width": 256, "depth": 8, "base_width": 128, "base_depth": 2}
    plain, mup, completep = (
        trained(parametrization=how, **sizes).law[RATE] for how in ("standard", "mup", "completep")
    )
    assert (mup / plain, completep / plain) == pytest.approx((4**0.713, 16**0.713))
    assert trained(optimizer="muon").law[RATE] == 0.02
    assert RATE not in trained(optimizer="sgd").law


def test_earlier_sweeps_of_like_jobs_say_where_to_start(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(workplace)
    asked = ask(
        [
            *("sweeps=auto", "task=lm", "data=files", "data.train=text.txt", *SMALL),
            *("optimizer=adamw", "trainer.max_steps=null", "name=new"),
        ]
    )
    plan = prepare(asked, make_executor({}))
    start = plan.decided["start"]
    said = " ".join(capsys.readouterr().out.split())
    assert f"optimizer.lr={start[RATE]:.4g}" in said
    assert "by the step law for" in said
    fixed = [replace(job, varies={}) for job in plan.jobs]
    assert find_prior(SweepDirectory(workplace / "outputs/sweeps/x"), fixed).point == {}
    begun = as_decided(asked, plan)
    assert begun.settings.start == start
    job = sorted(plan.jobs, key=lambda job: (job.parameters, job.tokens))[len(plan.jobs) // 2]

    # Sweeps of half the training whose best rate is ten times the law's.
    for name, optimizer in (("mine", "adamw"), ("other", "muon")):
        target = {"_target_": f"truesweep.optim.{optimizer}"}
        rate = 10 * Trained(job.config, job.parameters, job.tokens / 2).law[RATE]
        made = SweepDirectory(workplace / "outputs/sweeps" / name)
        made.ask([], [], Sweep(direction="minimize"), {}, [])
        for factor in (0.3, 1, 3):
            config = {**job.config, "optimizer": {**target, "lr": rate * factor}}
            varies = {RATE: rate * factor}
            run = made.add(config, [], varies, label="", number=0, provenance=job.origin)
            complete(run)
            results = {"val/loss": 2 + abs(math.log(factor)), "train/tokens": job.tokens / 2}
            write_json(run.results, {**results, "parameters": job.parameters})
        made.write_jobs(made.jobs(), Sweep(direction="minimize"))
    own = SweepDirectory(workplace / "outputs/sweeps/new")
    found = find_prior(own, plan.jobs)
    assert found.point[RATE] == pytest.approx(10 * start[RATE], rel=0.01)
    assert "by 1 finished sweep of like jobs" in found.text
    record(begun, {}, plan)  # what has begun keeps its start
    assert find_prior(own, plan.jobs).point == start
    (workplace / "outputs/sweeps/mine/jobs.jsonl").write_text("damaged")
    assert find_prior(SweepDirectory(workplace / "outputs/sweeps/next"), plan.jobs).point == start
