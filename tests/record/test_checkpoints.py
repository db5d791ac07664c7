"""Checkpoints that a thread writes while training goes on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from truesweep.record import checkpoints
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import verify_checksum


def state() -> dict[str, Any]:
    """A checkpoint with two tensors that are one, in the entries that Lightning uses."""
    weight = torch.arange(12.0).reshape(3, 4)
    moments = [{"step": torch.tensor(3.0), "exp_avg": weight + 1}]
    return {"state_dict": {"in": weight, "out": weight}, "optimizer_states": moments, "epoch": 1}


def loaded(path: Path) -> dict[str, Any]:
    return CheckpointFiles().load_checkpoint(path)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Lets files be written once it is set."""
    let, save = Event(), torch.save

    def wait_and_save(*args: Any) -> None:
        assert let.wait(30)
        save(*args)

    monkeypatch.setattr(torch, "save", wait_and_save)
    return let


def test_a_file_holds_the_moment_when_it_was_saved(tmp_path: Path, held: Event) -> None:
    files, checkpoint, path = CheckpointFiles(background=True), state(), tmp_path / "last.ckpt"
    expected = state()
    files.save_checkpoint(checkpoint, path)
    with torch.no_grad():  # training goes on, in place
        checkpoint["state_dict"]["in"].mul_(2)
        checkpoint["optimizer_states"][0]["step"] += 1
        checkpoint["epoch"] = 2
    assert not files.is_written()
    assert not path.exists()
    held.set()
    files.wait()
    assert files.is_written()
    assert verify_checksum(path)
    written = loaded(path)
    assert written["epoch"] == 1
    assert written["optimizer_states"][0]["step"] == 3
    assert torch.equal(written["state_dict"]["in"], expected["state_dict"]["in"])
    CheckpointFiles().save_checkpoint(expected, tmp_path / "direct.ckpt")
    assert path.stat().st_size == (tmp_path / "direct.ckpt").stat().st_size  # what was one, is one


def test_files_come_in_the_order_of_saving(tmp_path: Path, held: Event) -> None:
    files, best, last = CheckpointFiles(background=True), tmp_path / "best", tmp_path / "last"
    files.save_checkpoint(state(), best)
    files.save_again(best, last)
    assert not last.exists()
    held.set()
    files.wait()
    assert last.read_bytes() == best.read_bytes()
    assert verify_checksum(last)
    assert not last.samefile(best)


def test_what_could_not_be_written_is_raised(tmp_path: Path, held: Event) -> None:
    files, path = CheckpointFiles(background=True), tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "checkpoints").write_text("in the way")
    held.set()
    files.save_checkpoint(state(), path)
    with pytest.raises(FileExistsError):
        files.save_checkpoint(state(), path)
    files.save_checkpoint(state(), path)
    with pytest.raises(FileExistsError):
        files.teardown()
    files.teardown()  # said once


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch says that it has found there: a position that it did not expect."""

    @contextmanager
    def replacing(_: Path, checksum: bool) -> Iterator[BinaryIO]:
        file = Path("/dev/full").open("wb")  # noqa: SIM115  # closing it raises once more
        try:
            yield file
        finally:
            with suppress(OSError):
                file.close()

    monkeypatch.setattr(checkpoints, "replacing", replacing)
    with pytest.raises(OSError, match="No space left on device"):
        CheckpointFiles().save_checkpoint({"weight": torch.zeros(20_000)}, tmp_path / "last.ckpt")


def test_only_tensors_of_another_device_are_written_in_the_background_by_themselves(
    tmp_path: Path, held: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = CheckpointFiles(background=None), tmp_path / "last.ckpt"
    held.set()
    files.save_checkpoint(state(), path)
    assert path.exists()
    copied: list[list[Tensor]] = []

    def copy(_: dict[str, Any], away: list[Tensor]) -> dict[str, Any]:
        copied.append(away)
        return {}

    monkeypatch.setattr(checkpoints, "_copy", copy)
    elsewhere = torch.empty(2, device="meta")
    files.save_checkpoint({"state_dict": {"w": elsewhere}}, path)
    files.wait()
    assert copied == [[elsewhere]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_a_gpu_come_to_memory_as_they_are(tmp_path: Path) -> None:
    files, path = CheckpointFiles(background=None), tmp_path / "last.ckpt"
    weight = torch.randn(64, 64, device="cuda")
    files.save_checkpoint({"state_dict": {"in": weight, "out": weight}}, path)
    expected = weight.cpu()
    weight.zero_()
    files.wait()
    written = loaded(path)["state_dict"]
    assert torch.equal(written["in"], expected)
    assert written["in"].data_ptr() == written["out"].data_ptr()
