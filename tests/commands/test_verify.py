"""`truesweep verify`: what it proves, and that it can fail to."""

from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, truesweep

pytestmark = pytest.mark.slow

NOISE = '''
import os

import pytorch_lightning as pl
import torch


class Noise(pl.Callback):
    """Something that no seed governs."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        with torch.no_grad():
            next(module.model.parameters()).add_(1e-3 * os.urandom(1)[0])
'''


def trained(data: dict[str, list[str]], workplace: Path, *overrides: str) -> Path:
    asked = [*data["lm"], *SMALL, "optimizer=adamw", "name=x", *overrides]
    done = truesweep("train", *asked, cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/x").iterdir()
    return run


def test_a_run_is_proved_to_depend_on_its_configuration_alone(
    data: dict[str, list[str]], workplace: Path
) -> None:
    run = trained(data, workplace, "model.dropout=0")
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    done = truesweep("verify", str(run), "--steps", "4", cwd=workplace)
    assert done.code == 0, done.out + done.err
    verdicts = [line for line in done.out.splitlines() if "identical" in line or "equal" in line]
    assert [line.split("│")[1].strip() for line in verdicts] == [
        "trained again",
        "stopped after 2 steps and resumed",
        "in micro-batches of 2",
        "with 2 workers",
        "on 2 devices",
    ]
    assert ["identical" in line for line in verdicts] == [True, True, False, True, False]
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_what_no_seed_governs_is_found(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "noise.py").write_text(NOISE)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    run = trained(
        data, workplace, "allowed_packages=[noise]", "callbacks.noise._target_=noise.Noise"
    )
    done = truesweep("verify", str(run), "--steps", "2", cwd=workplace)
    assert done.code == 1
    assert done.out.count("differs") == 5
