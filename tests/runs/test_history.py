import gc
import json
import math
import weakref
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.report.conftest import rows
from truesweep.runs.history import lttb, read_history


def write(path: Path, made: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in made))
    return path


def test_curves_and_clock(tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "metrics.jsonl", rows()), 100)
    val = history.curves["val/loss"]
    assert (val.steps, val.lowest, val.recorded) == ([5, 10], 2.1, 2)
    assert len(history.curves["train/loss"].steps) == 10
    assert (history.clock[0], history.clock[-1]) == ((1, 100, 0.5), (10, 1000, 5.0))
    assert set(history.curves) == {"train/loss", "val/loss"}


def test_without_a_file_there_are_no_curves(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl", 100).curves == {}


def test_what_is_not_finite_breaks_the_line_and_is_no_extreme(tmp_path: Path) -> None:
    made = [{"step": i, "train/loss": loss} for i, loss in enumerate([3.0, 2.0, "NaN", "NaN", 4.0])]
    curve = read_history(write(tmp_path / "metrics.jsonl", made), 100).curves["train/loss"]
    assert curve.values == [3.0, 2.0, None, 4.0]
    assert (curve.lowest, curve.highest, curve.recorded) == (2.0, 4.0, 5)


def test_a_metric_that_was_never_finite_is_known(tmp_path: Path) -> None:
    made = [{"step": 1, "train/loss": "NaN"}]
    curve = read_history(write(tmp_path / "metrics.jsonl", made), 100).curves["train/loss"]
    assert (curve.values, curve.lowest) == ([None], None)


def test_a_damaged_record_is_a_problem_of_its_run_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    problem = read_history(path, 100).problem
    assert problem is not None
    assert "line 2" in problem


def test_many_points_become_few_and_losses_keep_the_most(tmp_path: Path) -> None:
    made = [
        {"step": i, "train/loss": math.cos(i), "lr": math.sin(i), "tokens": i, "time": i}
        for i in range(1000)
    ]
    history = read_history(write(tmp_path / "metrics.jsonl", made), 200)
    assert len(history.curves["train/loss"].steps) == 200
    assert len(history.curves["lr"].steps) == 50
    assert len(history.clock) <= 48
    assert history.clock[-1][0] == 999


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", rows())
    first = read_history(path, 100)
    assert read_history(path, 100) is first
    with path.open("a") as file:
        file.write('{"step": 11, "tokens": 1100, "time": 5.5, "train/loss": 1.0}\n')
    assert read_history(path, 100).last["step"] == 11
    path.unlink()
    assert read_history(path, 100).last == {}


def test_of_a_file_that_grows_only_the_last_state_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", rows())
    earlier = weakref.ref(read_history(path, 100))
    with path.open("a") as file:
        file.write('{"step": 11, "tokens": 1100, "time": 5.5, "train/loss": 1.0}\n')
    later = weakref.ref(read_history(path, 100))
    gc.collect()
    assert earlier() is None
    assert later() is read_history(path, 100)
    assert read_history(path, 5) is not later()


def test_few_points_all_stay() -> None:
    assert lttb([1, 2, 3], [1, 1, 1], 3) == [0, 1, 2]


@pytest.mark.parametrize("count", [5, 11, 100, 2000])
@pytest.mark.parametrize("points", [3, 4, 10])
def test_as_many_as_asked_in_order_with_both_ends(count: int, points: int) -> None:
    kept = lttb(range(count), [math.sin(i) for i in range(count)], points)
    assert len(kept) == min(points, count)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, count - 1)


def test_a_spike_stays() -> None:
    values = [0.0] * 1000
    values[617] = 50.0
    assert 617 in lttb(range(1000), values, 20)


def test_the_shape_stays() -> None:
    x = list(range(2000))
    y = [4 * math.exp(-i / 300) + 1 for i in x]
    kept = lttb(x, y, 60)
    worst = 0.0
    for a, b in pairwise(kept):
        for i in range(a, b + 1):
            on_line = y[a] + (y[b] - y[a]) * (i - a) / (b - a)
            worst = max(worst, abs(on_line - y[i]))
    assert worst < 0.01  # of a range of 4
