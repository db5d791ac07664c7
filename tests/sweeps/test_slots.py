import os
from pathlib import Path

import pytest
import torch

from truesweep.sweeps.local import (
    Slot,
    Slots,
    cpu_slots,
    environment,
    gpu_slots,
    usable_cores,
    visible_gpus,
)
from truesweep.sweeps.local import _quota as quota
from truesweep.tasks.devices import JOBS_ON_GPU


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8, 16)))


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_slots_share_out_the_cores_that_may_be_used(eight_cores: None, count: int) -> None:
    shares = [slot.cores for slot in cpu_slots(count).all]
    assert sorted(core for share in shares for core in share) == list(range(8, 16))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_slots_than_cores_share_them(eight_cores: None) -> None:
    assert [len(slot.cores) for slot in cpu_slots(20).all] == [1] * 20


def test_by_default_there_is_a_slot_a_core_and_memory_for_each(
    eight_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.sweeps.local.memory", lambda: 2**40)
    assert len(cpu_slots()) == 8
    monkeypatch.setattr("truesweep.sweeps.local.memory", lambda: 6 * 2**30)
    assert len(cpu_slots()) == 3


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 2)])
def test_a_control_groups_quota_counts(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert quota(tmp_path / "cpu.max") == cores
    assert quota(tmp_path / "none") is None
    assert usable_cores()


def test_only_the_gpus_that_are_visible_count(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    assert visible_gpus() == ["0", "1", "2", "3"]
    gpus(monkeypatch, 2, "5, GPU-1f")
    assert visible_gpus() == ["5", "GPU-1f"]
    gpus(monkeypatch, 0, "")
    assert len(gpu_slots()) == 0


def test_a_job_of_several_gpus_gets_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    slots = gpu_slots(4)  # two jobs a GPU
    own = environment({JOBS_ON_GPU: "7"}, slots.all[:1])
    assert own == {"CUDA_VISIBLE_DEVICES": "0", JOBS_ON_GPU: "2"}
    assert JOBS_ON_GPU not in environment({JOBS_ON_GPU: "7"}, gpu_slots().all[:1])
    assert slots.largest == 2
    first = slots.take(1)
    pair = slots.take(2)
    assert {slots.all[number].gpu for number in pair} == {"0", "1"}
    assert not slots.fits(2)
    assert slots.fits(1)
    slots.give_back(first)
    assert slots.fits(2)


def test_slots_are_taken_once() -> None:
    slots = Slots([Slot(frozenset([core])) for core in range(3)])
    taken = slots.take(2)
    assert slots.fits(1)
    assert not slots.fits(2)
    assert not set(taken) & set(slots.take(1))
    slots.give_back(taken)
    assert slots.fits(2)


def test_a_job_inherits_nothing_of_another_jobs_place() -> None:
    inherited = {"RANK": "1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x", "SLURM_PROCID": "0"}
    kept = {"PATH": "/bin", "RANKING": "x", "LOCAL_DIRECTORY": "x"}
    given = environment(inherited | kept | {"CUDA_VISIBLE_DEVICES": "0,1"}, [Slot(frozenset())])
    assert given == kept | {"CUDA_VISIBLE_DEVICES": ""}
    slots = [Slot(frozenset(), "5"), Slot(frozenset(), "GPU-1f")]
    assert environment({}, slots) == {"CUDA_VISIBLE_DEVICES": "5,GPU-1f"}
