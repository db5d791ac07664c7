"""Runs on several ranks of one machine; those of GPUs skip where there is none."""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.commands.conftest import SMALL, TIMED, truesweep, typed
from tests.tasks.on_ranks import start
from truesweep.commands.train import create_run
from truesweep.jobs.plan import plan
from truesweep.jobs.rank import run_rank

pytestmark = pytest.mark.slow


def results(folder: Path) -> dict[str, float]:
    (run,) = folder.iterdir()
    loaded = json.loads((run / "results.json").read_text())
    return {k: v for k, v in loaded.items() if isinstance(v, float) and k not in TIMED}


@pytest.mark.parametrize(
    ("task", "optimizer"),
    [("lm", "adamw"), ("lm", "sgd"), ("lm", "muon"), ("translation", "adamw")],
)
def test_a_sharded_model_learns_the_same(
    data: dict[str, list[str]], workplace: Path, task: str, optimizer: str
) -> None:
    asked = [*data[task], *SMALL, "model.dropout=0", "data.micro_batch_size=2"]
    asked.append(f"optimizer={optimizer}")
    shared = [*asked, "trainer.devices=2", "trainer.strategy=fsdp", "name=sharded"]
    done = truesweep("train", *shared, cwd=workplace)
    assert done.code == 0, done.out + done.err
    done = truesweep("train", *asked, "name=whole", cwd=workplace)
    assert done.code == 0, done.out + done.err
    sharded, whole = results(workplace / "outputs/sharded"), results(workplace / "outputs/whole")
    assert sharded == pytest.approx(whole, rel=1e-4)
    (run,) = (workplace / "outputs/sharded").iterdir()
    export = typed if task == "lm" else truesweep
    done = export("export", str(run), "out", cwd=workplace)
    assert done.code == 0, done.err


def start_rank(ranks: int) -> str:
    """What a rank that starts from its own directory says against it."""
    try:
        run_rank(f"outputs/{os.environ['RANK']}")
    except RuntimeError as error:
        return str(error)
    return "trained"


def test_ranks_of_a_job_refuse_to_train_different_things(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, "trainer.devices=2"]
    for rank in range(2):
        create_run(plan([*asked, f"optimizer.lr=0.{rank + 1}"]), Path("outputs", str(rank)))
    said = start(workplace, 2, start_rank)
    assert said[0] == said[1]
    assert "the ranks hold different configurations" in said[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("task", ["lm", "translation", "classification"])
def test_a_gpu_trains(data: dict[str, list[str]], workplace: Path, task: str) -> None:
    asked = [*data[task], *SMALL, "trainer=gpu", "trainer.accelerator=gpu", "name=x"]
    done = truesweep("train", *asked, cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert results(workplace / "outputs/x")["test/loss"] > 0
