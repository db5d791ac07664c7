"""`truesweep sync`, as far as it goes without a server."""

import importlib
import socket
import time
from pathlib import Path

import pytest

from truesweep.commands.sync import recorded_in, records_of, sync
from truesweep.errors import ConfigError

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
    with pytest.raises(ConfigError, match="neither a run's directory nor a sweep's"):
        sync([workplace / "none"])
