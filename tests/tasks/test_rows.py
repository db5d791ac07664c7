"""Micro-batches from the memory that there is; a GPU's alone is measured, so one is made up here.

Its memory is a function of the rows of a pass; the passes are real.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands.conftest import SMALL, write_data, write_preferences
from tests.rounding import FP64
from tests.tasks.on_ranks import start
from tests.tasks.test_step import SGD, fit, parts_of
from truesweep.data.module import DataModule
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import checked
from truesweep.models import activations
from truesweep.tasks import Task, training
from truesweep.tasks.devices import (
    JOBS_ON_GPU,
    RESERVE,
    STATES,
    Gauge,
    is_out_of_memory,
    rows_that_fit,
)

GROWTH: dict[str, Callable[[int], float]] = {
    "along a line": lambda rows: 100 + 10 * rows,
    "faster with many": lambda rows: max(400, 20 * rows),
    "slower with many": lambda rows: 100 + min(300, 100 * rows) + rows,
    "not at all": lambda rows: 500,
    "to an end": lambda rows: 100 + 10 * rows if rows <= 29 else math.inf,
    "without an end": lambda rows: 2000,
}


@pytest.mark.parametrize(
    ("growth", "found"),
    [
        ("along a line", 86),  # 90 would fit: 3 parts of 256 that are alike
        ("faster with many", 43),
        ("slower with many", 256),
        ("not at all", 256),
        ("to an end", 22),
        ("without an end", 1),
    ],
)
def test_rows_are_as_many_as_were_seen_to_fit(growth: str, found: int) -> None:
    tried: list[int] = []

    def peak(rows: int) -> float:
        tried.append(rows)
        return GROWTH[growth](rows)

    assert rows_that_fit(peak, room=1000, most=256) == found
    assert found in tried, "nothing is taken that was not tried"
    assert len(tried) == len(set(tried)) <= 6


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_never_more_than_there_are(most: int) -> None:
    assert rows_that_fit(lambda rows: rows, room=1000, most=most) == most
    assert rows_that_fit(lambda rows: rows, room=1, most=most) == 1


ROOM, A_ROW = 10_000_000, 1_000_000


class MadeUp(Gauge):
    """A device whose memory a pass takes by its rows; every pass is noted."""

    passes: list[int] = []
    free = ROOM

    @staticmethod
    def measures(device: torch.device) -> bool:
        return True

    def _free(self) -> int:
        return self.free

    def _total(self) -> int:
        return 12_345 + ROOM

    def _held(self) -> int:
        return 12_345

    def forget_peak(self) -> None:
        self.passes.clear()

    def _peak(self) -> int:
        return 12_345 + A_ROW * self.passes[-1]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Has trainings measure such a device; the rows of all passes that they try."""
    original, tried = DataModule.widest, list[int]()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    monkeypatch.setattr("truesweep.tasks.training.Gauge", MadeUp)

    def widest(self: DataModule, rows: int) -> Any:
        MadeUp.passes.append(rows)
        tried.append(rows)
        return original(self, rows)

    monkeypatch.setattr(DataModule, "widest", widest)
    yield tried
    MadeUp.passes.clear()


TASKS = {
    "lm": ["model=llama", "model.dropout=0.1", "optimizer=muon"],
    "translation": ["model.dropout=0.1", "data.packing=false", "optimizer=adamw"],
    "classification": ["optimizer=adamw"],
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("made_up")
def test_measuring_changes_nothing_but_the_size_of_micro_batches(
    task: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    measure = Task._rows_that_fit

    def watched(self: Task) -> int:
        before = _state(self)
        rows = measure(self)
        assert all(torch.equal(a, b) for a, b in zip(before, _state(self), strict=True))
        assert all(weight.grad is None for weight in self.parameters())
        found.update(rows=rows, room=ROOM * (1 - RESERVE) - STATES * 4 * _numbers(self))
        return rows

    monkeypatch.setattr(Task, "_rows_that_fit", watched)
    asked = [*TASKS[task], f"model.width={32 if task == 'lm' else 48}"]
    parts = parts_of(task, workplace, *asked)
    weights = fit(parts, workplace)
    fitting = math.floor(found["room"] / A_ROW)
    assert 1 < fitting < 16
    assert parts.data.micro_batch_size == found["rows"]
    assert found["rows"] == -(-64 // -(-64 // fitting))
    given = parts_of(task, workplace, *asked, f"data.micro_batch_size={found['rows']}")
    same = fit(given, workplace)
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def _state(task: Task) -> list[torch.Tensor]:
    """Weights, buffers, and where torch's generator stands."""
    assert not task.trainer.optimizers[0].state
    return [*(v.clone() for v in task.state_dict().values()), torch.get_rng_state()]


def _numbers(task: Task) -> int:
    return sum(w.numel() for w in task.model.parameters() if w.requires_grad)


def test_what_was_measured_is_kept_for_the_same_shapes(
    made_up: list[int], workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(workplace / "cache"))
    caplog.set_level(logging.INFO)
    rows = []
    for asked in ([], ["seed=2"], ["model.depth=1"]):
        made_up.clear()
        parts = parts_of("lm", workplace, *asked)
        fit(parts, workplace)
        tried = [n for n in made_up if n > 1]
        assert bool(tried) == (asked != ["seed=2"])
        rows.append(parts.data.micro_batch_size)
    assert rows[0] == rows[1] > 2
    assert f"Micro-batches of {rows[0]} of 64 rows take 0.01 of 0.01 GiB" in caplog.text
    kept = sorted((workplace / "cache/memory").iterdir())
    assert len(kept) == 2
    peaks = {int(n): taken for n, taken in json.loads(kept[0].read_text()).items()}
    assert peaks == {n: n * A_ROW for n in peaks}
    for file in kept:
        file.write_text('{"1": [')
    made_up.clear()
    fit(parts_of("lm", workplace), workplace)
    assert max(made_up) == rows[0]


def test_with_less_memory_than_at_first_fewer_rows_are_taken(
    made_up: list[int], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(workplace / "cache"))
    parts = parts_of("lm", workplace)
    fit(parts, workplace)
    monkeypatch.setattr(MadeUp, "free", ROOM // 2)
    less = parts_of("lm", workplace)
    fit(less, workplace)
    assert 1 < less.data.micro_batch_size < parts.data.micro_batch_size


def test_jobs_that_share_a_gpu_take_their_share_of_its_memory(
    made_up: list[int], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for sharers in (1, 4):
        monkeypatch.setenv(JOBS_ON_GPU, str(sharers))
        parts = parts_of("lm", workplace, "trainer.max_steps=1", "model.depth=1")
        fit(parts, workplace)
        rows.append(parts.data.micro_batch_size)
    assert 1 < 3 * rows[1] <= rows[0]


@pytest.mark.parametrize("asked", ["data.micro_batch_size=5", "model=auto"])
def test_where_there_is_nothing_to_choose_nothing_is_measured(
    made_up: list[int], workplace: Path, asked: str
) -> None:
    alone = [asked, "model.architecture=mamba2", "model.heads=2"] if asked == "model=auto" else []
    parts = parts_of("lm", workplace, *(alone or [asked]), "trainer.max_steps=1")
    parts.data.alone = bool(alone)
    fit(parts, workplace)
    assert not made_up
    assert parts.data.micro_batch_size == (1 if alone else 5)


def test_hidden_words_and_preferences_are_measured_too(made_up: list[int], workplace: Path) -> None:
    asked = ["task=mlm", "model=bert"]
    fit(parts_of("lm", workplace, *asked, "trainer.max_steps=1"), workplace)
    assert max(made_up) > 2
    made_up.clear()
    preferences = [*write_preferences(workplace), "model=gpt2", "trainer.max_steps=1"]
    fit(parts_of("lm", workplace, *preferences), workplace)
    assert max(made_up) > 2


def of_written(*overrides: str) -> Parts:
    """`parts_of` data that lie in the current folder: ranks write nothing over each other's."""
    named = ["task=lm", "data=files", "data.train=text.txt"]
    return build(checked([*named, *SMALL, *SGD, *overrides]))


def measured_by_ranks(ranks: int) -> list[int]:
    """What each rank takes where the first one has the most memory, and the passes it tries."""
    own, tried = DataModule.widest, list[int]()

    class Less(MadeUp):
        free = ROOM // (1 + int(os.environ["RANK"]))

    def widest(self: DataModule, rows: int) -> Any:
        Less.passes.append(rows)
        tried.append(rows)
        return own(self, rows)

    DataModule.widest = widest  # type: ignore[method-assign]
    torch.cuda.get_device_name = lambda _=None: "a card"  # type: ignore[assignment]
    setattr(training, "Gauge", Less)  # noqa: B010  # which it does not export
    parts = of_written(FP64, f"trainer.devices={ranks}", "trainer.max_steps=1")
    fit(parts, Path())
    return [parts.data.micro_batch_size, *tried]


def sharded(ranks: int) -> list[int]:
    """What each of several ranks that share weights takes, and the passes it tries."""
    tried = list[int]()
    DataModule.widest = lambda self, rows: tried.append(rows)  # type: ignore
    setattr(training, "Gauge", MadeUp)  # noqa: B010
    shared = [f"trainer.devices={ranks}", "trainer.strategy=fsdp"]
    parts = of_written(*shared, "model.dropout=0", "trainer.max_steps=1")
    fit(parts, Path())
    return [parts.data.micro_batch_size, *tried]


@pytest.mark.slow
def test_where_ranks_share_weights_nothing_is_measured(workplace: Path) -> None:
    write_data(workplace)
    found: list[Any] = list(start(workplace, 2, sharded))
    assert found == [[32], [32]]


@pytest.mark.slow
def test_ranks_agree_on_what_fits_all_of_them(workplace: Path) -> None:
    write_data(workplace)
    found: list[Any] = list(start(workplace, 2, measured_by_ranks))
    first, second = found
    assert first == second
    assert 1 < first[0] < ROOM // A_ROW / 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_keeps_about_what_is_foretold_of_layers(workplace: Path) -> None:
    """A processor's operations are counted, and a GPU's loss is of few logits here."""
    wide = ["model.width=512", "model.depth=12", "model.heads=8", "data.max_length=512"]
    parts = parts_of("lm", workplace, "model=llama", *wide)
    nn.Module.to(parts.task.model, "cuda")
    ids = torch.ones(8, 512, dtype=torch.long, device="cuda")
    held = []
    for rows in (4, 8):
        with torch.autocast("cuda", torch.bfloat16):
            kept = parts.task.model.base_model(input_ids=ids[:rows], use_cache=False)
        held.append(torch.cuda.memory_allocated())
        del kept
    found = activations(parts.task.model, 512, torch.bfloat16)
    assert (held[1] - held[0]) / 4 == pytest.approx(found.sample, rel=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_as_many_rows_as_it_holds(workplace: Path, caplog: Any) -> None:
    """Of a step that does not fit as a whole: 64 GiB or more of activations."""
    caplog.set_level(logging.INFO)
    asked = ["trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "trainer.compile=false"]
    wide = ["model.width=1024", "model.depth=24", "model.heads=16", "data.max_length=1024"]
    parts = parts_of("lm", workplace, *asked, *wide, "data.batch_size=512", "trainer.max_steps=2")
    fit(parts, workplace)
    size = parts.data.micro_batch_size
    assert 1 < size < 512
    assert "Out of memory" not in caplog.text
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    assert 0.4 * total < peak < total


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_memory_runs_out_in_many_words(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
