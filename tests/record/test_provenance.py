import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from truesweep import compat
from truesweep.record.provenance import collect, git


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "model.py").write_text("depth = 4\n")
    run("git", "init", "--initial-branch", "trunk")
    run("git", "add", "model.py")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    run("git", *author, "commit", "--no-verify", "--message", "Begin")
    return tmp_path


def test_the_code_is_named_by_commit_branch_and_difference(repository: Path) -> None:
    clean = git()
    assert clean == {"commit": run("git", "rev-parse", "HEAD"), "branch": "trunk", "diff": None}
    hashes = set()
    for depth in (5, 6):
        (repository / "model.py").write_text(f"depth = {depth}\n")
        changed = git()
        assert changed is not None
        assert changed["diff"] is not None
        hashes.add(changed["diff"])
    assert len(hashes) == 2


def test_outside_a_repository_there_is_no_code_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git() is None


def test_everything_is_plain_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = collect(["truesweep", "train"], {"train": "sha256:1"})
    assert json.loads(json.dumps(found)) == found
    assert (found["command"], found["data"]) == (["truesweep", "train"], {"train": "sha256:1"})
    assert found["packages"]["torch"] == version("torch")
    assert found["python"] == platform.python_version()
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory"] > 2**28
    assert found["hardware"]["cpu"]


def test_versions_that_were_not_tried_stand_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect([], {})["untried"] == []
    monkeypatch.setitem(compat.TRIED, "optuna", ("99.0", "99.0"))
    assert collect([], {})["untried"] == [f"optuna {version('optuna')} (tried: 99.0)"]
