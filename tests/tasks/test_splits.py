"""The same samples as one batch, as micro-batches and on two ranks: the same losses and weights."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests import processes
from tests.commands.conftest import write_data
from tests.rounding import FP64, assert_same_training
from tests.tasks.splits import CASES, LORA, Trained, train

pytestmark = pytest.mark.numbers

EPS32 = torch.finfo(torch.float32).eps
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start_rank(rank: int, folder: Path, port: int) -> processes.Process:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0}
    environment = {k: str(v) for k, v in (places | rendezvous).items()}
    return processes.Process(
        ["-m", "tests.tasks.splits", str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
    )


@dataclass(frozen=True)
class Ranks:
    """Two ranks that train every case, beside this process."""

    processes: list[processes.Process]
    folder: Path

    def trained(self, case: tuple[str, ...], rank: int) -> Trained:
        assert [process.wait(200) for process in self.processes] == [0, 0]
        found: Trained = torch.load(self.folder / f"{'-'.join(case)}-{rank}.pt")
        return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    write_data(folder)
    started = Ranks([start_rank(rank, folder, port) for rank in range(2)], folder)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_no_split_changes_losses_or_weights(
    case: tuple[str, ...], ranks: Ranks, workplace: Path
) -> None:
    whole = train(*case, FP64, "data.micro_batch_size=64")
    assert len(whole["losses"]) == 5
    micro_batches = train(*case, FP64, "data.micro_batch_size=16")
    for found in (micro_batches, ranks.trained(case, 0), ranks.trained(case, 1)):
        assert_same_training(found, whole)


def test_dropout_counts(workplace: Path) -> None:
    """Else the test above would say nothing about it."""
    for dropped, kept in (([], ["model.dropout=0"]), (LORA, [*LORA, "adapter.dropout=0"])):
        losses = [train("lm", "muon", *rate)["losses"][-1] for rate in (dropped, kept)]
        assert abs(losses[0] - losses[1]) > 1e-4


def test_dropped_tokens_do_not_depend_on_the_split(workplace: Path) -> None:
    overrides = ["task.token_dropout=0.3", "trainer.max_steps=2"]
    whole, split, other = (
        train("classification", "adamw", *overrides, *more)
        for more in (["data.micro_batch_size=64"], ["data.micro_batch_size=7"], ["seed=1"])
    )
    # Of about 1, in fp32: sums of 64 samples' terms, after one step that differs by as much.
    torch.testing.assert_close(split["losses"], whole["losses"], rtol=0, atol=64 * EPS32 / 2)
    assert not torch.allclose(other["losses"], whole["losses"], rtol=0, atol=1e-4)
