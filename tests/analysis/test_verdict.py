import math
import re
from typing import Any, get_args

import numpy as np
import pytest

from tests.analysis.curves import Kind, curve
from truesweep.analysis.curves import Curve, forecast
from truesweep.analysis.verdict import FORMER_KINDS, judge, read_verdict
from truesweep.record.files import dump_json

KINDS: tuple[Kind, ...] = get_args(Kind)

# Measured: `truesweep train trainer.max_steps=60` (linear to zero) and the same with 120 steps.
STEPS_60 = np.arange(6, 61, 6)
VAL_60 = np.array([2.7312, 2.3629, 2.1971, 2.0811, 2.0067, 1.9626, 1.9192, 1.8894, 1.867, 1.8561])
VAL_120_END = 1.6556
# The same at a constant rate.
VAL_60_CONSTANT = np.array(
    [2.7295, 2.3498, 2.1817, 2.0817, 2.0137, 1.9828, 1.9542, 1.9404, 1.908, 1.8885]
)


def rows_of(
    train: Any, val: Any = (), lr: Any = None, every: int = 10, **last: Any
) -> list[dict[str, Any]]:
    """Rows with a training loss each, and validations spread evenly over them."""
    rows: list[dict[str, Any]] = [
        {"step": 1 + i * every, "train/loss": float(x), "lr": 1e-3 if lr is None else float(lr[i])}
        for i, x in enumerate(train)
    ]
    for i, x in enumerate(val, start=1):
        rows[round(i * len(rows) / len(val)) - 1]["val/loss"] = float(x)
    rows[-1] |= last
    return rows


def measured(val: Any, lr: Any) -> list[dict[str, Any]]:
    start = [{"step": 1, "train/loss": 4.6, "lr": lr[0]}]
    return start + [
        {"step": int(s), "train/loss": float(v), "val/loss": float(v), "lr": float(r)}
        for s, v, r in zip(STEPS_60, val, lr, strict=True)
    ]


def healthy(n: int = 60) -> Any:
    return 1.5 + 3 * np.exp(-np.arange(n) / 6)


def test_fifty_curves_of_known_kind() -> None:
    draw = np.random.default_rng(1000)
    wrong = []
    for index in range(50):
        kind = KINDS[index % len(KINDS)]
        rows, steps_per_epoch = curve(kind, draw)
        found = judge(rows, steps_per_epoch=steps_per_epoch)
        if found.kind != kind:
            wrong.append((kind, found))
    assert len(wrong) <= 2, wrong


def test_a_schedule_run_to_its_end_can_still_be_too_short() -> None:
    linear = 0.02 * (1 - STEPS_60 / 61)
    found = judge(measured(VAL_60, linear), steps_per_epoch=1000)
    assert found.kind == "undertrained"
    twice = found.forecasts[-1]
    assert twice.low < VAL_120_END < twice.high
    # The end of the curve, prolonged, would have promised a tenth of that.
    assert VAL_60[-2] - VAL_60[-1] < 0.1 * (VAL_60[-1] - VAL_120_END)


def test_a_run_cut_off_at_a_constant_rate_would_still_improve() -> None:
    found = judge(measured(VAL_60_CONSTANT, np.full(10, 0.02)), steps_per_epoch=1000)
    assert found.kind == "undertrained"
    assert "twice the steps" in found.text


def test_forecasts_need_points() -> None:
    few = Curve(np.array([10, 20, 30, 40]), np.array([3.0, 2.5, 2.3, 2.2]))
    rates = Curve(np.array([10, 40]), np.array([1.0, 1.0]))
    assert forecast(few, rates, (2.0,)) == []


def test_overfitting_says_since_when_and_how_much_would_do() -> None:
    val = [3.0, 2.2, 2.0, 2.1, 2.3, 2.6]
    train = np.linspace(3, 0.2, 60)
    found = judge(rows_of(train, val), steps_per_epoch=50)
    assert (found.kind, found.since_step, found.best_loss) == ("overfitting", 291, 2.0)
    assert found.rise == pytest.approx(0.6)
    assert found.gap == pytest.approx(2.6 - 0.2, abs=0.2)
    assert found.sufficient_epochs == pytest.approx(291 / 50)
    assert "5.82 epochs would have sufficed" in found.text


def test_a_metric_that_still_improves_is_not_overfitted() -> None:
    rows = rows_of(np.linspace(3, 0.2, 60), [3.0, 2.2, 2.0, 2.1, 2.3, 2.6])
    f1 = iter([0.2, 0.5, 0.7, 0.75, 0.77, 0.79])
    for row in rows:
        if "val/loss" in row:
            row["val/f1_macro"] = next(f1)
    known: dict[str, Any] = {"steps_per_epoch": 50, "monitor": "val/f1_macro"}
    assert judge(rows, **known, mode="max").kind == "healthy"
    rows[-1]["val/f1_macro"] = rows[9]["val/f1_macro"] = 0.8  # back where it was at the start
    assert judge(rows, **known, mode="max").kind == "overfitting"


def test_validation_that_trembles_has_not_turned() -> None:
    draw = np.random.default_rng(0)
    kinds = []
    for _ in range(40):
        val = 2.0 + 0.012 * draw.standard_normal(20)
        val[:5] += [2.0, 1.0, 0.5, 0.2, 0.1]
        kinds.append(judge(rows_of(healthy(), val), steps_per_epoch=10).kind)
    assert kinds.count("healthy") >= 38


def test_a_number_that_is_none() -> None:
    train = healthy()
    train[40:] = math.nan
    found = judge(rows_of(train), steps_per_epoch=100)
    assert (found.kind, found.since_step) == ("diverged", 401)
    assert "not a number since step 401" in found.text


def test_one_bad_step_is_no_divergence() -> None:
    train = healthy()
    train[30] = math.nan
    assert judge(rows_of(train, skipped_steps=1.0), steps_per_epoch=1000).kind == "healthy"
    assert judge(rows_of(train, skipped_steps=90.0), steps_per_epoch=1000).kind == "diverged"


def test_a_spike_is_no_divergence_but_a_level_is() -> None:
    train = healthy()
    train[50:52] += 5
    assert judge(rows_of(train), steps_per_epoch=1000).kind == "healthy"
    train[50:] = 4.0
    found = judge(rows_of(train), steps_per_epoch=1000)
    assert found.kind == "diverged"
    assert found.since_step is not None
    assert 400 < found.since_step <= 501


def test_what_explodes_at_once_has_diverged_even_if_it_comes_down_again() -> None:
    train = np.concatenate([[4.6], np.geomspace(9000, 3.2, 20), np.full(20, 3.2)])
    found = judge(rows_of(train), steps_per_epoch=1000)
    assert found.kind == "diverged"
    assert "came back to 3.200 only" in found.text
    recovered = np.concatenate([[4.6, 9.0, 8.0, 7.5], healthy()])
    assert judge(rows_of(recovered), steps_per_epoch=1000).kind == "healthy"


def test_a_spike_at_the_very_end_is_no_divergence() -> None:
    train = healthy()
    train[-2:] += 5
    assert judge(rows_of(train), steps_per_epoch=1000).kind == "healthy"
    train[-4:] = 4.0
    assert judge(rows_of(train), steps_per_epoch=1000).kind == "diverged"
    # Validation was taken of the same weights, and knows better.
    calm = [2.5, 1.9, 1.7, 1.66, 1.65, 1.646, 1.644, 1.643]
    assert judge(rows_of(train, calm), steps_per_epoch=1000).kind == "healthy"
    assert judge(rows_of(train, [*calm[:-1], 4.0]), steps_per_epoch=1000).kind == "diverged"


def test_nothing_learned() -> None:
    flat = 4.6 + 0.01 * np.random.default_rng(0).standard_normal(60)
    assert "Diverged: nothing was learned" in judge(rows_of(flat), steps_per_epoch=100).text
    rows = rows_of(healthy(), [3.1, 3.0, 3.0])
    flat_rows = rows_of(flat, [5.0, 4.9, 4.8])
    assert judge(flat_rows, steps_per_epoch=100, baseline=4.7).kind == "diverged"
    falling = judge(rows, steps_per_epoch=100, baseline=2.9)
    assert falling.kind == "undertrained"
    assert (
        "the validation loss of 3.000 is no better yet than a trivial model's on the same split, "
        "2.900." in falling.text
    )
    assert judge(rows, steps_per_epoch=1000, baseline=3.1).kind == "healthy"


def test_what_validation_has_learned_is_learned_however_the_batches_tremble() -> None:
    trembling = [0.13, 0.11, -0.06 + 0.1, 0.16, 0.14]
    found = judge(rows_of(trembling, [0.151, 0.084, 0.079, 0.041, 0.022]), steps_per_epoch=100)
    assert found.kind != "diverged"
    still = judge(rows_of(trembling, [0.151, 0.152, 0.15, 0.151, 0.151]), steps_per_epoch=100)
    assert "nothing was learned" in still.text


def test_two_batches_that_tremble_are_no_explosion() -> None:
    trembling = [0.082, 0.052, 0.032, 0.293, 0.183]
    assert judge(rows_of(trembling, [0.083, 0.05]), steps_per_epoch=100).kind != "diverged"


def test_validation_below_the_training_loss_is_said_to_be_below() -> None:
    val = [2.998, 3.109, 3.129, 3.098, 3.12, 3.125, 3.13, 3.14, 3.15, 3.16]
    text = judge(rows_of(np.linspace(3.4, 3.2, 10), val), steps_per_epoch=1).text
    assert "Overfitting" in text
    assert re.search(r"3\.160, 0\.0\d+ below the training loss\. 1 epoch would", text)


def test_a_healthy_run_has_nothing_said_of_it_and_plain_figures() -> None:
    found = judge(
        rows_of(healthy(), [2.5, 1.9, 1.7, 1.66, 1.65, 1.646, 1.644, 1.643]), steps_per_epoch=100
    )
    assert (found.kind, found.text) == ("healthy", "")
    figures = found.to_dict()
    assert figures["best_loss"] == 1.643
    assert "since_step" not in figures
    dump_json(figures)


def test_a_record_with_nothing_in_it() -> None:
    assert judge([], steps_per_epoch=1).kind == "unjudged"
    assert judge([{"step": 1, "train/loss": 4.0, "lr": 0.1}], steps_per_epoch=1).kind == "unjudged"


@pytest.mark.parametrize("val", [[], [2.5], [2.5, 2.4], [4, 3.3, 2.7, 2.2], [2.0, 2.01, 2.03]])
def test_a_few_validations_that_say_nothing_are_not_called_healthy(val: list[float]) -> None:
    found = judge(rows_of(healthy(), val), steps_per_epoch=100)
    assert found.kind == "unjudged"
    assert f"Unjudged: {len(val)} validation" in found.text
    assert "trainer.val_check_interval" in found.text
    # Over a single epoch the training loss tells as much.
    assert judge(rows_of(healthy(), val), steps_per_epoch=1000).kind == "healthy"


def test_validations_within_the_warm_up_are_as_good_as_none() -> None:
    warming = np.linspace(0.0001, 0.001, 60)
    val = [2.5, 1.9, 1.7, 1.66, 1.65, 1.646]
    assert judge(rows_of(healthy(), val, lr=warming), steps_per_epoch=100).kind == "unjudged"


@pytest.mark.parametrize(
    "val", [[2.0, 3.0], [2.0, 2.1], [3.0, 2.0, 2.2], [4, 2, 2.5, 3.2], [4, 2.5, 2, 2.3, 2.8]]
)
def test_a_few_validations_say_that_a_run_overfits_where_the_rise_is_large(
    val: list[float],
) -> None:
    draw = np.random.default_rng(0)
    train = np.linspace(3, 0.2, 60) + 0.02 * draw.standard_normal(60)
    found = judge(rows_of(train, val), steps_per_epoch=100)
    assert (found.kind, found.best_loss) == ("overfitting", min(val))
    # Not where training went up as well, nor where it trembles as much, or what it does is unknown.
    level = np.concatenate([train[:20], np.linspace(2.0, 2.3, 40)])
    assert judge(rows_of(level, val), steps_per_epoch=100).kind != "overfitting"
    wild = train + (max(val) - min(val)) * draw.standard_normal(60)
    assert judge(rows_of(wild, val), steps_per_epoch=100).kind != "overfitting"
    if len(val) < 5:
        rows = rows_of(train, val)
        unseen = [
            {"step": row["step"], "val/loss": row["val/loss"]} for row in rows if "val/loss" in row
        ]
        assert judge([rows[0], *unseen], steps_per_epoch=100).kind == "unjudged"


def test_verdicts_of_earlier_versions_go_by_todays_names() -> None:
    said = "Stopped too early: at step 400 the loss, about 1.467, was still falling."
    kept = {"kind": "improving", "text": said, "best_step": 400}
    now = "Undertrained: at step 400 the loss, about 1.467, was still falling."
    assert read_verdict(kept) == {"kind": "undertrained", "text": now, "best_step": 400}
    assert read_verdict({"kind": "unknown"}) == {"kind": "unjudged", "text": ""}
    assert read_verdict(None) == read_verdict("improving") == {}
    for kind in FORMER_KINDS.values():
        assert read_verdict({"kind": kind, "text": "x"}) == {"kind": kind, "text": "x"}


FALLING = {
    "at first": lambda x: 2 + 3.2 * np.exp(-4 * x),
    "evenly": lambda x: 5.2 - 2.5 * x,
    "at once": lambda x: np.where(x < 0.3, 5.2, 2.5),
    "late": lambda x: 5.2 - 3 * np.clip(x - 0.5, 0, 1),
}


@pytest.mark.parametrize("points", range(3, 15))
@pytest.mark.parametrize("fall", FALLING)
def test_a_loss_that_falls_has_not_diverged_however_few_points_there_are(
    fall: str, points: int
) -> None:
    draw = np.random.default_rng(points)
    losses = FALLING[fall](np.linspace(0.05, 1, points)) + draw.normal(0, 0.03, points)
    rows = rows_of(losses, losses[1::2], np.linspace(1e-3, 0, points), every=2)
    assert judge(rows, steps_per_epoch=100).kind not in ("diverged", "overfitting")


@pytest.mark.parametrize("points", range(6, 15))
def test_a_loss_that_rises_again_has_diverged_of_few_points_too(points: int) -> None:
    x = np.linspace(0.05, 1, points)
    losses = 2 + 3.2 * np.exp(-8 * x) + 3 * np.clip(x - 0.5, 0, 1)
    assert judge(rows_of(losses, losses[1::2]), steps_per_epoch=100).kind == "diverged"


def test_a_fall_that_would_pass_zero_is_not_foretold() -> None:
    losses = np.linspace(4, 0.3, 12)
    found = judge(rows_of(losses, losses, np.full(12, 1e-3)), steps_per_epoch=1000)
    assert found.kind == "undertrained"
    assert all(one.loss > 0 for one in found.forecasts)
    assert "(0" not in found.text
    assert "still falling, too steeply to say where it would end" in found.text


def test_a_run_whose_best_validation_beats_a_trivial_model_is_not_told_that_it_does_not() -> None:
    val = [0.6, 0.4538, 0.47, 0.465, 0.4631, 0.46]
    train = [0.7, 0.55, 0.5, 0.48, 0.47, 0.46]
    found = judge(rows_of(train, val), steps_per_epoch=100, baseline=0.4563)
    assert "no better" not in found.text
    worse = judge(rows_of(train, [v + 0.01 for v in val]), steps_per_epoch=100, baseline=0.4563)
    assert "0.4638 is no better yet than a trivial model's on the same split, 0.4563." in worse.text
