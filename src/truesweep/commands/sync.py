"""`truesweep sync`."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from truesweep.errors import ConfigError
from truesweep.terminal import console

SECONDS_TO_ANSWER = 10
"""How long the server may take to show that it is there."""
SECONDS_TO_SEND = 600
"""How long one record may take; W&B's own command goes on for ever where the network is dead."""


def sync(directories: Sequence[Path]) -> int:
    """Send the local W&B records of runs and of sweeps' jobs; 1 if one could not be sent.

    A record holds its run's id and its whole curve, so it arrives as the one run that it is.
    """
    out = console()
    folders = [folder for directory in directories for folder in recorded_in(directory)]
    records = [record for folder in folders for record in records_of(folder)]
    if not records:
        raise ConfigError(
            f"{', '.join(map(str, directories))}: no W&B record; the runs had logger=none"
        )
    _require_server()
    failed = [record for record in records if not _sent(record, out)]
    out.print(f"{len(records) - len(failed)} of {len(records)} records are with W&B.")
    for record in failed:
        out.print(f"Not sent: {record}", soft_wrap=True)
    return int(bool(failed))


def _require_server() -> None:
    """Find out in time that a server cannot be reached.

    Raises:
        ConfigError: It does not answer.
    """
    address = server_address()
    try:
        urllib.request.urlopen(address, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return  # an answer, if only to a page that is not there
    except OSError as error:
        raise ConfigError(
            f"{address} does not answer ({error}); the records stay where they are. Try again when "
            "the network is back"
        ) from None


def server_address() -> str:
    """The server of W&B's settings and environment."""
    import wandb

    return str(wandb.setup().settings.base_url)


def recorded_in(directory: Path) -> list[Path]:
    """A run's directory, or a sweep's and those of its jobs.

    Raises:
        ConfigError: It is neither.
    """
    if (directory / "config.yaml").is_file():
        return [directory]
    jobs = sorted(config.parent for config in directory.glob("*/config.yaml"))
    if not jobs:
        raise ConfigError(f"{directory}: neither a run's directory nor a sweep's")
    return [*jobs, directory]


def records_of(folder: Path) -> list[Path]:
    """The folders of W&B's records that lie in a directory."""
    return [
        path
        for path in sorted((folder / "wandb").glob("*run-*"))
        if path.is_dir() and not path.is_symlink()
    ]


def _sent(record: Path, out: Console) -> bool:
    """Whether W&B's own command has sent a record, or had done so before."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "--include-online", str(record)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_SEND
        )
    except subprocess.TimeoutExpired:
        out.print(f"{record.name}: not sent within {SECONDS_TO_SEND} s")
        return False
    if done.returncode == 0 and any(record.glob("*.synced")):
        return True
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    out.print(f"{record.name}: {said[-1].strip() if said else 'W&B gave no reason'}")
    return False
