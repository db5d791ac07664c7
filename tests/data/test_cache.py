import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from truesweep.data.cache import cached, default_cache
from truesweep.errors import ConfigError


class Counted:
    """Writes and reads an entry, and counts both."""

    def __init__(self, together: int = 1) -> None:
        self.written = 0
        self.barrier = threading.Barrier(together)

    def write(self, folder: Path) -> None:
        self.barrier.wait(10)
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


@pytest.mark.parametrize("damaged", [False, True])
def test_many_writers_at_once(tmp_path: Path, damaged: bool) -> None:
    if damaged:
        once = Counted()
        cached(tmp_path, "key", once.write, once.read)
        (tmp_path / "key" / "sub" / "data").write_text("")
    entry = Counted(together=6)  # all are in the middle of writing at the same time
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(cached, tmp_path, "key", entry.write, entry.read) for _ in range(6)]
        assert [job.result() for job in jobs] == ["content"] * 6
    assert entry.written == 6
    assert names(tmp_path) == ["key"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "key", write, lambda folder: None)
    assert names(tmp_path) == []


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
