import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule as Task
from pytorch_lightning.utilities import rank_zero_only

from truesweep.callbacks import TakeUp
from truesweep.errors import DataError
from truesweep.record import loggers as module
from truesweep.record.files import checksum_of_start
from truesweep.record.loggers import MetricsFile
from truesweep.record.rows import read


class Clock:
    """Stands in for the `time` module."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def steps(directory: Path) -> list[int]:
    return [row["step"] for row in read(directory / "metrics.jsonl")]


def test_a_row_a_step(tmp_path: Path, clock: Clock) -> None:
    file = MetricsFile(tmp_path)
    assert not file.path.exists(), "nothing is written before there is something to write"
    clock.now += 2.5
    file.log_metrics({"train/loss": torch.tensor(1.5), "tokens": 640}, 10)
    clock.now += 2.5
    file.log_metrics({"lr": 0.1}, 20)
    assert [json.loads(line) for line in file.path.read_text().splitlines()] == [
        {"step": 10, "tokens": 640, "time": 2.5, "train/loss": 1.5},
        {"step": 20, "tokens": 640, "time": 5.0, "lr": 0.1},
    ]


def test_what_is_logged_for_the_same_step_joins_its_row(tmp_path: Path, clock: Clock) -> None:
    file = MetricsFile(tmp_path)
    file.log_metrics({"train/loss": 1.0}, 1)
    file.log_metrics({"train/loss": 0.123456789, "tokens": 64}, 2)
    file.log_metrics({"val/loss": 2.0}, 2)
    file.log_metrics({"train/loss": 0.5}, 2)  # a shorter row over a longer one
    file.log_metrics({"train/loss": 4.0}, 3)
    rows = read(file.path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[1] == {"step": 2, "tokens": 64, "time": 0.0, "train/loss": 0.5, "val/loss": 2.0}


def test_resuming_leaves_no_gap_and_no_double(tmp_path: Path, clock: Clock) -> None:
    first = MetricsFile(tmp_path)
    for step in range(1, 8):
        clock.now += 1.0
        first.log_metrics({"train/loss": 1.0 / step, "tokens": 10 * step}, step)
    clock.now += 500.0  # between the kill and the resume
    second = MetricsFile(tmp_path)
    second.truncate(5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    clock.now += 1.0
    second.log_metrics({"train/loss": 0.0}, 6)
    last = read(second.path)[-1]
    assert (last["step"], last["time"], last["tokens"]) == (6, 6.0, 50)


def test_a_record_that_changed_before_its_checkpoint_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.callbacks.job.steps_done", lambda trainer: trainer.step)
    first, task = MetricsFile(tmp_path), Task()
    for step in range(1, 5):
        first.log_metrics({"train/loss": 0.5}, step)
    state = TakeUp(first).state_dict()
    first.log_metrics({"val/loss": 1.0}, 4)  # joins the last row, after the checkpoint
    first.log_metrics({"train/loss": 0.5}, 5)
    trainer: Any = SimpleNamespace(step=4, is_global_zero=True)

    def resume() -> None:
        again = TakeUp(MetricsFile(tmp_path))
        again.load_state_dict(state)
        again.on_train_start(trainer, task)

    resume()
    assert steps(tmp_path) == [1, 2, 3, 4]
    whole = first.path.read_text()
    first.path.write_text(whole.replace("0.5", "0.7", 1))
    with pytest.raises(DataError, match=r"metrics\.jsonl: is not what .* step 4"):
        resume()
    first.path.unlink()
    resume()
    assert not first.path.exists()


def test_resuming_from_the_start_or_without_a_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.truncate(3)
    assert not file.path.exists()
    file.log_metrics({"train/loss": 1.0}, 1)
    file.truncate(0)
    file.log_metrics({"train/loss": 2.0}, 1)
    assert [row["train/loss"] for row in read(file.path)] == [2.0]


@pytest.mark.parametrize(
    "torn", ['{"step": 3, "tr', '{"step": 3, "x": 1}', ".25}\n", "\x00\x00\x00"]
)
def test_a_torn_last_line_is_dropped_and_mended(tmp_path: Path, torn: str) -> None:
    MetricsFile(tmp_path).log_metrics({"x": 1.0}, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert steps(tmp_path) == [1]
    MetricsFile(tmp_path).log_metrics({"x": 2.0}, 2)
    assert steps(tmp_path) == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[2]\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2, is not .* b'\[2\]"):
        read(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("step", "tokens", "time"), ({}, "x", None, True)),
        *itertools.product(["train/loss"], ({}, {"a": None}, [1.0], "x")),
    ],
)
def test_a_line_of_what_are_no_numbers_is_named(tmp_path: Path, name: str, value: object) -> None:
    row = {"step": 1, "tokens": 8, "time": 0.5, "train/loss": 1.0}
    lines = [json.dumps(row), json.dumps({**row, name: value}), json.dumps({**row, "step": 3})]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match="line 2, is not a JSON object of numbers with a step"):
        read(path)


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    file.log_metrics({"a": math.nan, "b": torch.tensor(math.inf), "c": -math.inf}, 1)
    raw = file.path.read_text()
    json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    row = read(file.path)[0]
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    file = MetricsFile(tmp_path)
    file.log_metrics({"x": 1.0}, 1)
    file.truncate(0)
    assert not file.path.exists()


def test_what_changes_in_settled_rows_does_not_agree_with_what_is_told_of_them(
    tmp_path: Path,
) -> None:
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        file.log_metrics({"loss": 1.5}, step)
        settled = file.settled()
        assert settled is not None
        assert checksum_of_start(file.path, settled[0]) == settled[1]
    file.truncate(2)
    settled = file.settled()
    assert settled is not None
    assert checksum_of_start(file.path, settled[0]) == settled[1]
    file.path.write_text(file.path.read_text().replace("1.5", "1.6", 1))
    file.log_metrics({"loss": 1.5}, 3)
    settled = file.settled()
    assert settled is not None
    assert checksum_of_start(file.path, settled[0]) != settled[1]
