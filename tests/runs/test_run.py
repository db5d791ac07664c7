"""A run's directory: whole or not there, and read by whoever may read."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from truesweep.errors import ConfigError, DataError
from truesweep.runs import run as module
from truesweep.runs.run import UNFINISHED, Run


def make(path: Path) -> Run:
    return Run.create(path, config="seed: 1\n", overrides=[], provenance={}, job={})


def test_a_kill_while_a_directory_is_made_leaves_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s/abc"

    @contextmanager
    def hidden(*, prefix: str, suffix: str, dir: Path) -> Iterator[str]:
        folder = dir / f"{prefix}left{suffix}"
        folder.mkdir()
        yield str(folder)  # and is never removed, as by a process that was killed

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(module, "TemporaryDirectory", hidden)
        patched.setattr(module, "_rename", killed)
        with pytest.raises(RuntimeError, match="killed"):
            make(path)
    (left,) = path.parent.iterdir()
    assert (left / "abc/config.yaml").exists()
    assert not list(path.parent.glob("*/config.yaml"))  # where a sweep looks for its jobs
    make(path)
    assert sorted(p.name for p in path.iterdir()) == [
        *("checkpoints", "config.yaml", "job.json", "logs", "overrides.yaml", "provenance.json")
    ]
    assert left.exists()  # it may be a living process's
    os.utime(left, (0, time.time() - 2 * module.SECONDS_TO_MAKE))
    make(tmp_path / "s/def")
    assert not left.exists()
    assert not list(path.parent.glob(f".*{UNFINISHED}"))


def test_a_directory_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    run = make(tmp_path / "abc")
    run.begin()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(ConfigError, match=r"exists \(running\)"):
        make(run.path)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").touch()
    with pytest.raises(ConfigError, match="is no run's directory"):
        make(tmp_path / "notes")


def test_whether_a_run_is_alive_is_seen_by_those_who_may_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path / "abc")
    opened = os.open

    def read_only(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    assert not run.alive  # and no lock is made
    assert not (run.path / ".lock").exists()
    monkeypatch.undo()
    with run.claim():
        monkeypatch.setattr(os, "open", read_only)
        assert run.alive
        monkeypatch.undo()
    monkeypatch.setattr(os, "open", read_only)
    assert not run.alive


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    run = make(tmp_path / "abc")
    (run.path / "status.json").write_text(text)
    with pytest.raises(DataError, match=r"abc/status\.json: "):
        _ = run.status
