import json
import math
import os
import pickle
import random
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from truesweep.errors import DataError
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import (
    changed_since_summed,
    checksum_path,
    dump_json,
    replacing,
    sealed,
    unsealed,
    verify_checksum,
    write_atomic,
    write_checksum,
    write_json,
    write_sums,
)

KILLS = 20


def kills(work: Callable[[int], None]) -> Iterator[None]:
    """Kill processes that do `work(1)`, `work(2)`, … at random moments behind one of the first."""
    durations = []
    for _ in range(3):  # the disk is now fast and now slow
        started = time.monotonic()
        work(0)
        durations.append(time.monotonic() - started)
    for seed in range(KILLS):
        kill_while(work, seed % 3, 2 * max(durations) * random.Random(seed).random())
        yield


def kill_while(work: Callable[[int], None], done: int, seconds: float) -> None:
    """Kill a process so many seconds after it has worked so many times."""
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside torch's threads
        child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # a pool of threads does not survive the fork
        try:
            for number in count(1):
                work(number)
                os.write(tell, b".")
        finally:
            os._exit(1)
    for _ in range(done):
        assert os.read(told, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    os.close(told)
    os.close(tell)


def checkpoint(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((50_000,), float(step))}


def test_a_kill_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    target, lines = tmp_path / "status.json", 100_000
    seen = set()
    for _ in kills(lambda number: write_atomic(target, f"{number}\n" * lines)):
        content = target.read_text().splitlines()
        assert len(content) == lines
        assert len(set(content)) == 1
        seen.add(content[0])
    assert len(seen) > 1, "no kill came after a write"


def test_a_kill_leaves_a_valid_checkpoint(tmp_path: Path) -> None:
    target, files = tmp_path / "last.ckpt", CheckpointFiles()
    seen = set()
    for _ in kills(lambda step: files.save_checkpoint(checkpoint(step), target)):
        loaded = files.load_checkpoint(target)
        assert torch.equal(loaded["weights"], checkpoint(loaded["step"])["weights"])
        seen.add(loaded["step"])
    assert len(seen) > 1, "no kill came after a save"
    files.save_checkpoint(checkpoint(1), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "config.yaml"
    write_atomic(target, b"old")
    with pytest.raises(TypeError, match="bytes-like"), replacing(target) as file:
        file.writelines([b"ne", None])  # type: ignore[list-item]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_no_file_to_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (".", tmp_path):
        with pytest.raises(IsADirectoryError):
            write_json(folder, {})


def test_files_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    plain.write_text("")
    write_atomic(atomic, "")
    assert atomic.stat().st_mode == plain.stat().st_mode


def test_json_is_strict_and_keeps_every_value(tmp_path: Path) -> None:
    value = {
        "a": [1, math.nan, math.inf, -math.inf],
        "b": torch.tensor(2.5),
        "c": tmp_path,
        "d": "é",
    }
    write_json(tmp_path / "results.json", value)
    text = (tmp_path / "results.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert strict["a"] == [1, "NaN", "Infinity", "-Infinity"]
    assert (strict["b"], strict["c"], strict["d"]) == (2.5, str(tmp_path), "é")
    assert [float(item) for item in strict["a"][2:]] == [math.inf, -math.inf]
    with pytest.raises(TypeError):
        dump_json({"a": object()})


def test_a_checksum_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"weights")
    write_checksum(path)
    assert verify_checksum(path)
    command = ["sha256sum", "--check", "--strict", checksum_path(path).name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    CheckpointFiles().save_checkpoint(checkpoint(3), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not verify_checksum(path)
    with pytest.raises(DataError, match=r"best\.ckpt does not match its checksum"):
        CheckpointFiles().load_checkpoint(path)


def test_during_a_replacement_both_contents_are_announced(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for content in (b"old", b"new"):
        with replacing(path, checksum=True) as file:
            file.write(content)
    announced = checksum_path(path).read_text()
    path.write_bytes(b"old")
    assert not verify_checksum(path), "the old content is valid no longer"
    write_checksum(path)
    checksum_path(path).write_text(announced + checksum_path(path).read_text())
    assert verify_checksum(path), "a kill between the two writes"


def test_what_is_no_valid_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    files, path = CheckpointFiles(), tmp_path / "best.ckpt"
    with pytest.raises(DataError, match=r"There is no checkpoint .*best\.ckpt"):
        files.load_checkpoint(path)
    path.write_bytes(pickle.dumps({"step": 1}))
    assert not verify_checksum(path)
    with pytest.raises(DataError, match=r"sha256sum best\.ckpt > best\.ckpt\.sha256"):
        files.load_checkpoint(path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("hostile",))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": Hostile()}, path)
    write_checksum(path)
    with pytest.raises(DataError, match="could run code"):
        CheckpointFiles().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "hostile").exists()


def test_a_checkpoint_is_removed_with_its_checksum(tmp_path: Path) -> None:
    files = CheckpointFiles()
    files.save_checkpoint(checkpoint(1), tmp_path / "deep" / "old.ckpt")
    files.remove_checkpoint(tmp_path / "deep" / "old.ckpt")
    assert list((tmp_path / "deep").iterdir()) == []
    files.remove_checkpoint(tmp_path / "deep")
    assert not (tmp_path / "deep").exists()


def test_a_folder_whose_files_have_changed(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a", "below/b"):
        (tmp_path / name).write_text(name)
    assert changed_since_summed(tmp_path) == []  # nobody has summed it
    write_sums(tmp_path)
    assert changed_since_summed(tmp_path) == []
    (tmp_path / "below/b").write_text("c")
    (tmp_path / "a").unlink()
    assert changed_since_summed(tmp_path) == ["a", "below/b"]
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff")
    assert changed_since_summed(tmp_path) == ["SHA256SUMS"]


@pytest.mark.parametrize(
    ("load", "dump"), [(json.loads, dump_json), (yaml.safe_load, yaml.safe_dump)]
)
def test_entries_hold_their_own_checksum(
    load: Callable[[str], Any], dump: Callable[[Any], str]
) -> None:
    entries = {"a": 1e-05, "b": ["é", -0.0, math.nan, None], "c": {"d": True}}
    kept = load(dump(sealed(entries)))
    assert dump_json(unsealed(kept)) == dump_json(entries)
    assert dump_json(unsealed(load(dump(sealed(kept))))) == dump_json(entries)
    assert unsealed(kept | {"a": 1e-06}) is None
    assert unsealed({key: value for key, value in kept.items() if key != "c"}) is None
    assert unsealed(kept | {"e": None}) is None
    assert unsealed(entries) == entries  # of an earlier version


def test_a_checksum_is_kept_in_step_with_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    assert not checksum_path(path).exists()
    write_json(path, {"a": 2}, checksum=True)
    write_json(path, {"a": 3})
    assert verify_checksum(path)
