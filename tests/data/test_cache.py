import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from truesweep.data.cache import cached, default_cache
from truesweep.errors import ConfigError


class Counted:
    """Writes and reads an entry, and counts both."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.written = 0
        self.seconds = seconds

    def write(self, folder: Path) -> None:
        time.sleep(self.seconds)
        self.written += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "data").write_text("content")

    def read(self, folder: Path) -> str:
        return (folder / "sub" / "data").read_text()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_an_entry_is_written_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    entry = Counted()
    assert [cached(tmp_path, "key", entry.write, entry.read) for _ in range(3)] == ["content"] * 3
    assert entry.written == 1
    assert names(tmp_path) == ["key"]


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "no manifest"])
def test_a_damaged_entry_is_written_again(tmp_path: Path, damage: str) -> None:
    entry = Counted()
    cached(tmp_path, "key", entry.write, entry.read)
    data = tmp_path / "key" / "sub" / "data"
    if damage == "changed":
        data.write_text("c0ntent")
    elif damage == "removed":
        data.unlink()
    elif damage == "added":
        data.with_name("more").write_text("")
    else:
        (tmp_path / "key" / "manifest.json").unlink()
    assert cached(tmp_path, "key", entry.write, entry.read) == "content"
    assert entry.written == 2
    assert cached(tmp_path, "key", entry.write, entry.read) == "content"
    assert entry.written == 2
    assert names(tmp_path) == ["key"]


def test_of_a_large_file_samples_are_read_or_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.cache._WHOLE", 100)
    monkeypatch.setattr("truesweep.data.cache._BLOCK", 1)
    entry = Counted()
    cached(tmp_path, "key", entry.write, entry.read)
    data = tmp_path / "key" / "sub" / "data"

    def large(folder: Path) -> None:
        entry.written += 1
        (folder / "large").write_bytes(bytes(1000))

    for full in (False, True, False):
        cached(tmp_path, "large", large, names, full)
    assert entry.written == 2
    data = tmp_path / "large" / "large"
    data.write_bytes(bytes(7) + b"x" + bytes(992))
    cached(tmp_path, "large", large, names)
    assert entry.written == 2
    cached(tmp_path, "large", large, names, full=True)
    assert entry.written == 3
    for changed in (bytes(1001), bytes(999) + b"x", b"x" + bytes(999)):
        data.write_bytes(changed)
        cached(tmp_path, "large", large, names)
        assert data.read_bytes() == bytes(1000)


def test_what_blocks_within_a_writer_is_no_lock(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise BlockingIOError("no more processes")

    with pytest.raises(ConfigError, match="no more processes"):
        cached(tmp_path, "key", write, names)


@pytest.mark.parametrize("damaged", [False, True])
def test_of_many_at_once_one_writes(tmp_path: Path, damaged: bool) -> None:
    if damaged:
        once = Counted()
        cached(tmp_path, "key", once.write, once.read)
        (tmp_path / "key" / "sub" / "data").write_text("")
    entry = Counted(seconds=0.1)
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(cached, tmp_path, "key", entry.write, entry.read) for _ in range(6)]
        assert [job.result() for job in jobs] == ["content"] * 6
    assert entry.written == 1
    assert names(tmp_path) == ["key"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        cached(tmp_path, "key", write, lambda folder: None)
    assert names(tmp_path) == []


def test_a_writer_goes_on_where_one_was_interrupted(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        if not (folder / "half").exists():
            (folder / "half").write_text("")
            raise KeyboardInterrupt
        (folder / "whole").write_text("")

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "key", write, names)
    assert sorted(cached(tmp_path, "key", write, names)) == ["half", "manifest.json", "whole"]
    assert names(tmp_path) == ["key"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    entry = Counted()
    with pytest.raises(ConfigError, match="TRUESWEEP_CACHE"):
        cached(tmp_path / "file", "key", entry.write, entry.read)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRUESWEEP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "truesweep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "truesweep"
    monkeypatch.setenv("TRUESWEEP_CACHE", str(tmp_path / "named"))
    assert default_cache() == tmp_path / "named"
