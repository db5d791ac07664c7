"""`truesweep sync`, as far as it goes without a server."""

import importlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truesweep.commands.sync import recorded_in, sync
from truesweep.errors import ConfigError
from truesweep.record.mirror import records_of

module = importlib.import_module("truesweep.commands.sync")  # the package's `sync` is the command


@pytest.fixture
def recorded(workplace: Path) -> Path:
    """A sweep's directory with the records of two jobs and of the whole."""
    for folder in ("one", "two", "."):
        (workplace / "mine" / folder / "wandb" / "offline-run-20260101_000000-id").mkdir(
            parents=True
        )
    for folder in ("one", "two"):
        (workplace / "mine" / folder / "config.yaml").write_text("seed: 0")
    return workplace / "mine"


def test_a_sweeps_records_are_its_jobs_and_its_own(recorded: Path) -> None:
    folders = recorded_in(recorded)
    assert folders == [recorded / "one", recorded / "two", recorded]
    assert all(len(records_of(folder)) == 1 for folder in folders)
    assert recorded_in(recorded / "one") == [recorded / "one"]


def test_a_closed_port_is_told_at_once(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "server_address", lambda: "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="does not answer"):
        sync([recorded])
    assert len(records_of(recorded)) == 1


def test_a_server_that_stalls_is_told_in_time(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(module, "server_address", lambda: address)
        began = time.monotonic()
        with pytest.raises(ConfigError, match="does not answer"):
            sync([recorded])
    assert time.monotonic() - began < 10


def test_what_was_never_recorded_cannot_be_sent(workplace: Path) -> None:
    (workplace / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match="no W&B record"):
        sync([workplace])
    with pytest.raises(ConfigError, match="none: does not exist; name one, such as"):
        sync([workplace / "none"])
    (workplace / "none").mkdir()
    with pytest.raises(ConfigError, match="neither a run's directory nor a sweep's; name one"):
        sync([workplace / "none"])


SENDS = """
import pathlib, sys
record = pathlib.Path(sys.argv[-1])
if "two" in str(record):
    sys.exit("wandb: ERROR [/x] not found")
(record / "run.wandb.synced").touch()
"""


def test_what_was_sent_and_what_was_not_is_told(
    recorded: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_require_server", lambda: None)
    (workplace / "packages").mkdir()
    (workplace / "packages/wandb.py").write_text(SENDS)
    monkeypatch.setenv("PYTHONPATH", str(workplace / "packages"))
    assert sync([recorded], as_json=True) == 1
    told = json.loads(capsys.readouterr().out)["records"]
    name = "wandb/offline-run-20260101_000000-id"
    assert [one["record"] for one in told] == [
        str(recorded / folder / name) for folder in ("one", "two", ".")
    ]
    assert [(one["sent"], one["reason"]) for one in told] == [
        (True, None),
        (False, "wandb: ERROR [/x] not found"),
        (True, None),
    ]
    assert sync([recorded]) == 1
    said = capsys.readouterr().out
    assert "2 of 3 records are with W&B." in said
    assert "ERROR [/x] not found" in said


def test_a_sweeps_dashboard_is_sent_after_its_records(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in recorded.rglob("offline-run-*"):
        (record / "run.wandb.synced").touch()
    asked = []
    monkeypatch.setattr(module, "_require_server", lambda: asked.append("server"))
    file = recorded / "workspace.json"
    file.write_text("{}")
    assert sync([recorded]) == 1
    said = capsys.readouterr().out
    assert "3 of 3 records are with W&B." in said
    assert f"workspace.json: {file} is damaged" in said
    assert f"Not sent: {file}" in said
    file.write_text('{"url": "https://wandb.ai/us/p?nw=1"}')
    assert sync([recorded]) == 0
    assert "Dashboard: https://wandb.ai/us/p?nw=1" in capsys.readouterr().out
    assert asked == ["server"]
    assert sync([recorded], as_json=True) == 0
    assert len(json.loads(capsys.readouterr().out)["dashboards"]) == 1


def test_nothing_heavy_is_imported_where_all_is_sent(recorded: Path) -> None:
    for record in recorded.rglob("offline-run-*"):
        (record / "run.wandb.synced").touch()
    script = (
        "import sys; from truesweep.commands import app; "
        "import atexit; atexit.register(lambda: print(*sys.modules)); app(['sync', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(recorded)], capture_output=True, text=True, check=True
    )
    said, modules, *_ = done.stdout.splitlines()
    assert said == "3 of 3 records are with W&B."
    assert not {"wandb", "torch", "pytorch_lightning", "hydra"} & set(modules.split())
