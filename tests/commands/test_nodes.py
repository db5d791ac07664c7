"""One run on several nodes, typed by hand as for torchrun; here both are this machine."""

import os
import socket
from pathlib import Path

import pytest

from tests import processes
from tests.commands.conftest import SMALL, truesweep

pytestmark = pytest.mark.slow


def test_the_same_command_on_each_node_makes_one_run(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["classification"], *SMALL, "trainer.max_steps=6", "name=nodes"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"NNODES": "2", "MASTER_ADDR": "localhost"}
        place["MASTER_PORT"] = str(free.getsockname()[1])
    command = ["-m", "truesweep", "train", *asked]
    command += ["trainer.num_nodes=2", "trainer.devices=1"]
    nodes = [
        processes.Process(command, cwd=workplace, env={**os.environ, **place, "NODE_RANK": rank})
        for rank in ("1", "0")
    ]
    assert [node.wait(300) for node in nodes] == [0, 0]
    (run,) = (workplace / "outputs/nodes").iterdir()
    assert (run / "results.json").exists()
    assert {log.name for log in (run / "logs").iterdir()} == {"rank0.log", "rank1.log"}


def test_a_node_alone_is_told_what_is_missing(data: dict[str, list[str]], workplace: Path) -> None:
    done = truesweep("train", *data["lm"], *SMALL, "trainer.num_nodes=2", cwd=workplace)
    assert done.code == 2
    assert "NNODES, NODE_RANK" in done.err
    assert not (workplace / "outputs").exists()
