"""Checkpoints that are whole, undamaged and hold nothing that could run."""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO
from typing_extensions import override

from truesweep.errors import DataError
from truesweep.record.files import checksum_path, replacing, verify_checksum

_OF_TRAINING = ("optimizer_states", "lr_schedulers")
"""Lightning's keys."""


class CheckpointFiles(CheckpointIO):
    """Checkpoints for Lightning: written atomically with a checksum, loaded only if that agrees.

    Every load is `weights_only`, so a checkpoint cannot run code and holds plain values only.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save `checkpoint` to `path`, and its checksum beside it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A kill leaves its temporary file behind; nobody else writes this target.
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        with replacing(path, checksum=True) as file:
            torch.save(checkpoint, file)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load a checkpoint; `weights_only` is always true, whatever is passed.

        Raises:
            DataError: the file is missing, damaged, without checksum, or holds more than tensors
                and plain values.
        """
        path = Path(path)
        _require_valid(path)
        try:
            checkpoint: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True
            )
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{path} holds objects other than tensors and plain values, and could run code: "
                "it was not loaded. Save plain values only."
            ) from error
        return checkpoint

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, file or directory, and its checksum."""
        path = Path(path)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)


def drop_optimizer(path: Path) -> None:
    """Take from a checkpoint what only a training that goes on needs."""
    checkpoint = CheckpointFiles().load_checkpoint(path)
    if has_optimizer(checkpoint):
        kept = {key: value for key, value in checkpoint.items() if key not in _OF_TRAINING}
        CheckpointFiles().save_checkpoint(kept, path)


def has_optimizer(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a training can go on from what a checkpoint holds."""
    return _OF_TRAINING[0] in checkpoint


def _require_valid(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"There is no checkpoint {path}: name one that exists.")
    if not checksum_path(path).exists():
        raise DataError(
            f"{path} has no checksum beside it: copy {checksum_path(path).name} too, or, if you "
            f"trust the file, run `sha256sum {path.name} > {checksum_path(path).name}` there."
        )
    if not verify_checksum(path):
        raise DataError(
            f"{path} does not match its checksum: it is damaged. Use another checkpoint, "
            "or continue the run from an older one."
        )
