"""`truesweep sync`."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from truesweep.errors import ConfigError
from truesweep.record.dashboard import FILE, read
from truesweep.record.files import dump_json
from truesweep.record.mirror import records_of
from truesweep.runs.run import Run
from truesweep.terminal import console

SECONDS_TO_ANSWER = 10
"""How long the server may take to show that it is there."""
SECONDS_TO_SEND = 600
"""How long one record may take; W&B's own command goes on for ever where the network is dead."""


@dataclass(frozen=True)
class Sent:
    """What became of one record, or of a sweep's dashboard.

    Args:
        record: Its folder, or the dashboard's file.
        sent: Whether it is with W&B.
        reason: Why it is not.
    """

    record: str
    sent: bool
    reason: str | None = None


def sync(directories: Sequence[Path], as_json: bool = False) -> int:
    """Send the local W&B records of runs and of sweeps' jobs; 1 if one could not be sent.

    A record holds its run's id and its whole curve, so it arrives as the one run that it is. One
    that was sent is not sent again. After them come the dashboards of sweeps.
    """
    folders = [folder for directory in directories for folder in recorded_in(directory)]
    found = [record.resolve() for folder in folders for record in records_of(folder)]
    records = list(dict.fromkeys(found))
    if not records:
        raise ConfigError(
            f"{', '.join(map(str, directories))}: no W&B record; the runs had other loggers or none"
        )
    boards = [folder / FILE for folder in dict.fromkeys(folders) if (folder / FILE).is_file()]
    if not (all(map(_is_sent, records)) and all(map(_is_shown, boards))):
        _require_server()
    done: list[Sent] = []
    for path, send in [*((one, _send) for one in records), *((one, _save) for one in boards)]:
        done.append(send(path))
        if not as_json and done[-1].reason:
            console().print(f"{path.name}: {done[-1].reason}", soft_wrap=True)
    _tell(done[: len(records)], done[len(records) :], as_json)
    return int(not all(one.sent for one in done))


def _tell(done: Sequence[Sent], boards: Sequence[Sent], as_json: bool) -> None:
    if as_json:
        kinds = {"records": done, "dashboards": boards}
        told = {kind: [asdict(one) for one in of_kind] for kind, of_kind in kinds.items()}
        print(dump_json(told, indent=2))
        return
    console().print(f"{sum(one.sent for one in done)} of {len(done)} records are with W&B.")
    for one in (*done, *boards):
        if not one.sent:
            console().print(f"Not sent: {one.record}", soft_wrap=True)
    for one in boards:
        if one.sent:
            console().print(f"Dashboard: {read(Path(one.record))['url']}", soft_wrap=True)


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
    if Run.is_at(directory):
        return [directory]
    jobs = sorted(path for path in directory.glob("*") if Run.is_at(path))
    if not jobs:
        what = "neither a run's directory nor a sweep's" if directory.exists() else "does not exist"
        raise ConfigError(
            f"{directory}: {what}; name one, such as outputs/NAME/ID or outputs/sweeps/NAME"
        )
    return [*jobs, directory]


def _is_sent(record: Path) -> bool:
    """Whether W&B's own command has sent a record, and left its mark."""
    return any(record.glob("*.synced"))


def _send(record: Path) -> Sent:
    """Have W&B's own command send a record, unless it has before."""
    if _is_sent(record):
        return Sent(str(record), True)
    return _by(["wandb", "sync", "--yes", "--include-online"], record, _is_sent)


def _is_shown(board: Path) -> bool:
    """Whether a sweep's dashboard is with W&B as it is."""
    return "url" in read(board)


def _save(board: Path) -> Sent:
    """Have a sweep's dashboard saved, in a process of its own, unless it is there."""
    if _is_shown(board):
        return Sent(str(board), True)
    return _by(["truesweep.record.dashboard"], board, _is_shown)


def _by(module: Sequence[str], path: Path, is_sent: Callable[[Path], bool]) -> Sent:
    """Have a module send something, which leaves a mark of it."""
    command = [sys.executable, "-m", *module, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_SEND
        )
    except subprocess.TimeoutExpired:
        return Sent(str(path), False, f"not sent within {SECONDS_TO_SEND} s")
    if done.returncode == 0 and is_sent(path):
        return Sent(str(path), True)
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return Sent(str(path), False, said[-1].strip() if said else "W&B gave no reason")
