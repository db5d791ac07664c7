"""Checkpoints that are whole, undamaged and hold nothing that could run."""

import copy
import pickle
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor
from typing_extensions import override

from truesweep.errors import DataError
from truesweep.record.files import checksum_path, replacing, verify_checksum

_OF_TRAINING = ("optimizer_states", "lr_schedulers")
"""Lightning's keys."""


class CheckpointFiles(CheckpointIO):
    """Checkpoints for Lightning: written atomically with a checksum, loaded only if that agrees.

    Every load is `weights_only`, so a checkpoint cannot run code and holds plain values only.

    Args:
        background: Whether a thread writes them while training goes on, from a copy in this
            machine's memory. None: where they hold tensors of another device.
    """

    def __init__(self, background: bool | None = False) -> None:
        self.background = background
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._waiting: list[Future[None]] = []

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save `checkpoint` to `path`, and its checksum beside it; see `is_written`.

        Raises:
            OSError: This file cannot be written, or one that was written in the background.
        """
        away = [tensor for tensor in _tensors(checkpoint) if tensor.device.type != "cpu"]
        if bool(away) if self.background is None else self.background:
            self.wait()  # so that there is one copy in memory at a time
            checkpoint = _copy(checkpoint, away)
            self._waiting.append(self._thread.submit(_write, checkpoint, Path(path)))
        else:
            _write(checkpoint, Path(path))

    def save_again(self, path: Path, other: Path) -> None:
        """Save what was just saved to `path` to another file, too; `save_checkpoint` tells more."""
        if self._waiting:
            self._waiting.append(self._thread.submit(_write_again, path, other))
        else:
            _write_again(path, other)

    def is_written(self) -> bool:
        """Whether all that was to be saved is.

        Raises:
            OSError: A file could not be written.
        """
        while self._waiting and self._waiting[0].done():
            self._waiting.pop(0).result()
        return not self._waiting

    def wait(self) -> None:
        """Let the background finish; raises what `is_written` does."""
        while self._waiting:
            self._waiting.pop(0).result()

    @override
    def teardown(self) -> None:
        """Leave nothing to be written."""
        self.wait()

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,
        mmap: bool = False,
    ) -> dict[str, Any]:
        """Load a checkpoint; `weights_only` is always true, whatever is passed.

        Args:
            path: The checkpoint.
            map_location: Where its tensors go.
            weights_only: Ignored.
            mmap: Whether tensors are read only when they are looked at.

        Raises:
            DataError: the file is missing, damaged, without checksum, or holds more than tensors
                and plain values.
        """
        self.wait()
        path = Path(path)
        require_valid(path)
        try:
            checkpoint: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True, mmap=mmap
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


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A kill leaves its temporary file behind; nobody else writes this target.
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    with replacing(path, checksum=True) as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, which torch does not name
                raise error.__context__ from None
            raise


def _write_again(path: Path, other: Path) -> None:
    # No link, so that there is another one when a disk damages the one.
    with replacing(other, checksum=True) as file, path.open("rb") as written:
        shutil.copyfileobj(written, file)


def _copy(checkpoint: dict[str, Any], away: list[Tensor]) -> dict[str, Any]:
    """What a checkpoint holds now, in this machine's memory; tensors that share theirs still do.

    Args:
        checkpoint: With tensors that training goes on to change.
        away: Those of another device, which are copied to pinned memory.
    """
    places: dict[tuple[Any, ...], Tensor] = {}
    copies: dict[int, Any] = {}
    for tensor in away:
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place not in places:
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            places[place] = host.copy_(tensor, non_blocking=True)
        copies[id(tensor)] = places[place]
    if away:
        torch.accelerator.synchronize()
    return copy.deepcopy(checkpoint, copies)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def drop_optimizer(path: Path) -> None:
    """Take from a checkpoint what only a training that goes on needs."""
    checkpoint = CheckpointFiles().load_checkpoint(path)
    if has_optimizer(checkpoint):
        kept = {key: value for key, value in checkpoint.items() if key not in _OF_TRAINING}
        CheckpointFiles().save_checkpoint(kept, path)


def has_optimizer(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a training can go on from what a checkpoint holds."""
    return _OF_TRAINING[0] in checkpoint


def require_valid(path: Path) -> None:
    """See that a checkpoint is there, and as it was written.

    Raises:
        DataError: It is not.
    """
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
