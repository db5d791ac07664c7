"""What a run leaves for W&B, and runs without it."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch

from tests.commands.conftest import SMALL, start, truesweep, wait_for_rows
from truesweep.commands.train import train
from truesweep.record.rows import read

COMPILED = ["model=gpt2", "model.depth=1", "trainer.max_steps=2", "name=x"]


def test_the_wandb_record_holds_what_metrics_hold(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*data["lm"], *SMALL, "logger=wandb", "name=x", "optimizer.lr=0.03"]
    asked += ["callbacks.progress.seconds_between_lines=0"]
    assert train(asked, [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    (record,) = (run / "wandb").glob("offline-run-*/*.wandb")
    leet = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(record)]
    shown = subprocess.run(leet, capture_output=True, text=True, check=True).stdout
    speeds = ("tokens_per_second", "flops_per_second")
    for name in ("train/loss", "val/loss", "lr", "grad_norm", *speeds, "tokens"):
        assert name in shown
    assert "0.03" in shown
    last = read(run / "metrics.jsonl")[-1]["val/loss"]
    assert f"{last:.6f}"[:7] in shown
    results = json.loads((run / "results.json").read_text())
    assert results["test/loss"] > 0
    rates = [row[speeds[1]] for row in read(run / "metrics.jsonl") if speeds[1] in row]
    assert results["train/flops_per_second"] == median(rates)
    assert "train/mfu" not in results, "of a processor nobody knows the peak"
    (line, *_) = [line for line in capsys.readouterr().out.splitlines() if "tokens/s" in line]
    assert re.search(r"tokens/s  [\d.]+ .?FLOP/s", line)


@pytest.mark.slow
def test_three_kills_leave_one_wandb_run_with_every_step_once(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, "logger=wandb", "name=x", "trainer.max_steps=4000"]
    asked += ["trainer.val_check_interval=1000", "callbacks.checkpoint.every_n_steps=20"]
    process = start(asked, workplace)
    run = wait_for_rows(workplace / "outputs/x", rows=30)
    for rows in (80, 130, 180):
        process.kill()
        process.wait()
        process = start([str(run)], workplace, "resume")
        wait_for_rows(workplace / "outputs/x", rows)
    process.terminate()
    assert process.wait(60) == 143
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run / "wandb")]
    shown = subprocess.run(leet, capture_output=True, text=True, check=True).stdout
    rows_shown = [
        r["history"]["item"] for r in map(json.loads, shown.splitlines()) if r["type"] == "history"
    ]
    kept = read(run / "metrics.jsonl")
    assert len(kept) >= 180
    assert [row["step"] for row in rows_shown] == [row["step"] for row in kept]
    assert [row["train/loss"] for row in rows_shown] == [row["train/loss"] for row in kept]
    steps = [row["step"] for row in kept]
    assert steps == [1, *range(2, steps[-1] + 1, 2)]


def test_a_run_needs_neither_wandb_nor_datasets(
    data: dict[str, list[str]], workplace: Path
) -> None:
    code = (
        "import sys\n"
        "for name in ('wandb', 'datasets'): sys.modules[name] = None\n"
        f"sys.argv[1:] = {['train', *data['lm'], *SMALL, 'name=x']!r}\n"
        "from truesweep.commands import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("compiler")
def test_a_run_of_compiled_layers_has_the_keys_of_an_uncompiled_one(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, *COMPILED, "trainer.compile=layers"]
    done = truesweep("train", *asked, cwd=workplace)  # torch's compiler warns
    assert done.code == 0, done.out + done.err
    assert_has_plain_keys(workplace)


def test_a_compiled_run_has_the_keys_of_an_uncompiled_one(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever compiles it: here, nobody does."""
    monkeypatch.setattr("truesweep.jobs.compiling.no_cpu_compiler", lambda: None)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    assert train([*data["lm"], *SMALL, *COMPILED, "trainer.compile=true"], [], None, False) == 0
    assert_has_plain_keys(workplace)


def assert_has_plain_keys(workplace: Path) -> None:
    (run,) = (workplace / "outputs/x").iterdir()
    keys = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not [key for key in keys if "_orig_mod" in key]


@pytest.mark.parametrize(
    "optimizer",
    [
        ["optimizer=adamw", "optimizer.weight_decay=0.2"],
        ["optimizer=sgd", "scheduler=cosine"],
        ["optimizer._target_=torch.optim.NAdam", "optimizer.lr=1e-3", "scheduler=wsd"],
        ["optimizer=muon", "scheduler=constant", "callbacks.early_stopping.patience=1"],
    ],
    ids=["adamw", "sgd", "nadam", "muon"],
)
def test_optimizers_and_schedules_train(
    data: dict[str, list[str]], workplace: Path, optimizer: list[str]
) -> None:
    assert train([*data["lm"], *SMALL, *optimizer, "name=x"], [], None, False) == 0
