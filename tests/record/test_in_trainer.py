"""Lightning takes the logger and the checkpoint files as its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel

from truesweep.errors import DataError
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import verify_checksum
from truesweep.record.loggers import MetricsFile
from truesweep.record.rows import read


class Model(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs: Any = super().training_step(batch, batch_idx)
        assert isinstance(self.logger, MetricsFile)
        step = self.global_step + 1
        self.logger.log_metrics({"train/loss": outputs["loss"], "tokens": 8 * step}, step=step)
        return outputs


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_trainer_writes_rows_and_whole_checkpoints(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=0,
        logger=MetricsFile(tmp_path),
        plugins=[CheckpointFiles()],
        callbacks=[
            ModelCheckpoint(tmp_path / "checkpoints", filename="last", every_n_train_steps=2)
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Model()
    trainer.fit(model)
    rows = read(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["tokens"]) for row in rows] == [(1, 8), (2, 16), (3, 24), (4, 32)]

    path = tmp_path / "checkpoints" / "last.ckpt"
    assert verify_checksum(path)
    loaded = CheckpointFiles().load_checkpoint(path)
    assert loaded["global_step"] == 4
    assert torch.equal(loaded["state_dict"]["layer.weight"], model.layer.weight)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        trainer.fit(model, ckpt_path=str(path))


def test_ranks_that_share_weights_read_no_damaged_checkpoint_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "last.ckpt"
    CheckpointFiles().save_checkpoint({"state_dict": {"weight": torch.arange(100.0)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(torch.tensor(50.0).numpy().tobytes(), b"\0\0\0\1"))
    assert torch.load(path)["state_dict"]["weight"][50] != 50
    settings = TrainerSettings(accelerator="cpu", devices=2, strategy="fsdp", max_steps=1)
    trainer = settings.make(
        callbacks=[], loggers=[], checkpoint_io=CheckpointFiles(), directory=str(tmp_path)
    )
    with pytest.raises(DataError, match="damaged"):
        trainer.strategy.load_checkpoint(path, weights_only=True)
