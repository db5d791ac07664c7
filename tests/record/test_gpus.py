"""Which GPUs are asked about: those that CUDA would show, of all that the driver names."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from truesweep.jobs.trainer import TrainerSettings
from truesweep.record import gpus

CARDS = [("GPU-aaaa-0001", "7.5", 15360), ("GPU-aabb-0002", "9.0", 81559), ("GPU-cccc-0003", "", 0)]
LIST = """\
GPU 0: Tesla T4 (UUID: GPU-aaaa-0001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-aabb-0002)
  MIG 1g.10gb     Device  0: (UUID: MIG-1111-aaaa)
  MIG 3g.40gb     Device  1: (UUID: MIG-2222-bbbb)
  MIG 1g.10gb+me  Device  2: (UUID: MIG-2222-cccc)
GPU 2: Strange (UUID: GPU-cccc-0003)
"""
T4, H100 = 15360 * 2**20, 81559 * 2**20


@pytest.fixture(autouse=True)
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver's tool of that name which knows three cards."""
    lines = {"name": "a card", "compute_cap": "{1}", "memory.total": "{2} MiB"}
    folder = tmp_path / "bin"
    folder.mkdir()
    cases = [f"-L) cat <<'END'\n{LIST}END\n;;"]
    for field, form in lines.items():
        of = [f"{card[0]}, {form.format(*card) if card[1] else '[N/A]'}" for card in CARDS]
        text = "\n".join(of)
        cases.append(f"--query-gpu=uuid,{field}) cat <<'END'\n{text}\nEND\n;;")
    listed = "\n".join(cases)
    script = f'#!/bin/sh\ncase "$1" in\n{listed}\n*) exit 2;;\nesac\n'
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus._output.cache_clear()
    yield
    gpus._output.cache_clear()


@pytest.mark.parametrize(
    ("named", "capabilities", "memory"),
    [
        (None, [7.5, 9.0], [T4, H100]),
        ("", [], []),
        ("-1", [], []),
        ("1", [9.0], [H100]),
        ("1, 0", [9.0, 7.5], [H100, T4]),
        ("0,7,1", [7.5], [T4]),  # CUDA stops where there is none
        ("2", [], []),
        ("GPU-aabb-0002", [9.0], [H100]),
        ("GPU-aab,GPU-aaa", [9.0, 7.5], [H100, T4]),
        ("GPU-aa", [], []),  # either
        ("MIG-2222-bbbb", [9.0], [40 * 10**9]),
        ("MIG-1111-aaaa,MIG-2222-cccc", [9.0, 9.0], [10 * 10**9] * 2),
        ("MIG-2222", [], []),
        ("MIG-GPU-aabb-0002/1/0", [9.0], []),
        ("nonsense", [], []),
    ],
)
def test_it_is_those_that_cuda_would_show(
    named: str | None,
    capabilities: list[float],
    memory: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.capabilities() == capabilities
    assert gpus.gpu_memory() == memory


def test_without_an_order_the_newest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.capabilities() == [9.0]


@pytest.mark.parametrize(("named", "precision"), [("1", "bf16-mixed"), ("0", "16-mixed")])
def test_the_precision_is_that_of_the_cards_that_may_be_used(
    named: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    settings = TrainerSettings(accelerator="gpu")
    assert settings.native_precision()[0] == precision
    assert settings.memory() == (H100 if named == "1" else T4)


def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not gpus.capabilities()
    assert not gpus.gpu_memory()
    assert not gpus.ask("name")
