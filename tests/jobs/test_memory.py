"""Out of memory: the same step again, in smaller micro-batches."""

from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, data, truesweep
from truesweep.record.rows import read

__all__ = ["data"]

LITTLE_MEMORY = '''
import pytorch_lightning as pl
import torch


class LittleMemory(pl.Callback):
    """Refuses forward passes of more than so many rows, as a full device does."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_train_start(self, trainer, module):
        module.model.register_forward_pre_hook(self.refuse, with_kwargs=True)

    def refuse(self, model, args, given):
        if model.training and len(given["input_ids"]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
'''


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_that_does_not_fit_is_done_in_smaller_parts(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    (workplace / "little.py").write_text(LITTLE_MEMORY)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    asked = [*data["lm"], *SMALL, "optimizer=adamw", f"trainer.devices={devices}"]
    limited = ["allowed_packages=[little]", "callbacks.little._target_=little.LittleMemory"]
    done = truesweep(
        "train", *asked, *limited, "callbacks.little.rows=1", "name=little", cwd=workplace
    )
    assert done.code == 0, done.out + done.err
    assert "Out of memory: going on with data.micro_batch_size=1" in done.err
    done = truesweep("train", *asked, "name=plenty", cwd=workplace)
    assert done.code == 0, done.out + done.err
    rows, wanted = (
        read(next((workplace / "outputs").glob(f"{name}/*/metrics.jsonl")))
        for name in ("little", "plenty")
    )
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    losses = [row["train/loss"] for row in rows]
    assert losses == pytest.approx([row["train/loss"] for row in wanted], rel=1e-5)


def test_one_row_that_does_not_fit_ends_the_run(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "little.py").write_text(LITTLE_MEMORY)
    monkeypatch.setenv("PYTHONPATH", str(workplace))
    limited = ["allowed_packages=[little]", "callbacks.little._target_=little.LittleMemory"]
    done = truesweep(
        "train", *data["lm"], *SMALL, *limited, "callbacks.little.rows=0", cwd=workplace
    )
    assert done.code == 1
    assert "out of memory" in done.err
