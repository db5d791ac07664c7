"""Trainings on a made-up card: its devices, waits, memory and ways are a GPU's, its kernels not."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.on_card import START, TRAININGS
from tests.processes import ROOT
from truesweep.compat import cpp_compilers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiler"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="torch has a card's code itself"),
]
WAITED_FOR = {"tasks/training.py", "precision/amp.py", "tasks/progress.py"}
"""Where a step waits of a precision whose scaler looks at gradients."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torch is to find when it is imported."""
    made = tmp_path_factory.mktemp("card") / "card.so"
    root = Path(torch.__file__).parent
    compiler = next(found for name in cpp_compilers() if (found := shutil.which(name)))
    subprocess.run(
        [
            *(compiler, "-std=c++20", "-shared", "-fPIC", f"-I{root}/include", "-o", str(made)),
            *(str(ROOT / "tests/card.cpp"), f"-L{root}/lib", "-ltorch_cpu", "-lc10"),
            f"-Wl,-rpath,{root}/lib",
        ],
        check=True,
    )
    return made


def start(library: Path, what: str, **environment: str) -> "subprocess.Popen[str]":
    """A process that finds something out, in the current folder."""
    file = f"found-{environment.get('RANK', 0)}.json"
    return subprocess.Popen(
        [sys.executable, "-c", START, str(library), what, file],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: "subprocess.Popen[str]", rank: int = 0) -> dict[str, Any]:
    """What it has found."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    found: dict[str, Any] = json.loads(Path(f"found-{rank}.json").read_text())
    return found


def test_a_step_is_done_on_the_card_and_not_waited_for(library: Path, workplace: Path) -> None:
    found = ended(start(library, "trainings,planted"))
    trained, planted = found["trainings"], found["planted"]
    assert len(trained) == sum(map(len, TRAININGS.values()))
    for name, waits in trained.items():
        assert isinstance(waits, list), f"{name}: {waits}"
        where = {wait.partition(" at ")[2].partition(":")[0] for wait in waits}
        assert where == (WAITED_FOR if name.endswith("scaled") else set()), f"{name}: {waits}"
    assert "Expected all tensors to be on the same device: aten.mul.Tensor" in planted["beside"]
    for fault, operation in {"asked": "aten._local_scalar_dense.default", "copied": "copy"}.items():
        assert {wait.partition(":")[0] for wait in planted[fault]} == {
            f"{operation} at tests/on_card.py"
        }


def test_numbers_are_those_of_a_processor(library: Path, workplace: Path) -> None:
    found = ended(start(library, "numbers,evaluations"))
    for name, problem in found["numbers"].items():
        assert problem is None, f"{name}: {problem}"
    assert len(found["evaluations"]) == 4
    for name, (on_processor, on_card) in found["evaluations"].items():
        assert isinstance(on_card, dict), f"{name}: {on_card}"
        assert on_card == pytest.approx(on_processor, rel=1e-6), name


def test_memory_and_checkpoints_of_a_card(library: Path, workplace: Path) -> None:
    found = ended(start(library, "memory,runs"))
    memory, runs = found["memory"], found["runs"]
    assert (memory["halved"], memory["measured"]) == (2, 2)
    assert runs["card: step"] == runs["without waiting: step"] == 4
    assert runs["card: arrived"]
    assert not runs["without waiting: arrived"]
    assert runs["card"] == pytest.approx(runs["processor"], rel=1e-4)


def test_ranks_tell_each_other_by_their_cards(library: Path, workplace: Path) -> None:
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        start(library, "ranks", **world, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)
    ]
    first, second = (ended(process, rank)["ranks"] for rank, process in enumerate(processes))
    assert "No backend type associated with device type cpu" in first["alone"]
    assert first["alone"].splitlines()[-1] == second["alone"].splitlines()[-1]
    alone = ended(start(library, "alone"))["alone"]
    assert first["figures"] == pytest.approx(alone, rel=1e-4)
