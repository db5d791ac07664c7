"""Slurm's queue, through its own commands; none of them needs an accounting database."""

import getpass
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Entry:
    """An allocation in the queue, waiting, running, or about to end.

    Args:
        id: Slurm's number of it.
        state: Such as `PENDING`, `RUNNING` or `COMPLETING`.
        script: The batch script that was submitted.
        comment: What it was submitted with.
    """

    id: str
    state: str
    script: str
    comment: str


def queue() -> dict[str, Entry]:
    """This user's allocations by their ids; one that has ended for good is not among them.

    Raises:
        OSError, subprocess.SubprocessError: Slurm does not answer.
    """
    lines = _run("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%o|%k")
    entries = (Entry(*line.split("|", 3)) for line in lines.splitlines())
    return {entry.id: entry for entry in entries}


def last_words(slurm_id: str) -> dict[str, str]:
    """What Slurm still knows of an allocation that has ended, such as `JobState` and `ExitCode`.

    Empty some minutes after its end (`MinJobAge` in slurm.conf).
    """
    try:
        words = _run("scontrol", "--oneliner", "show", "job", slurm_id).split()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def cancel(slurm_ids: Sequence[str], *options: str) -> None:
    """Cancel allocations, or with `--signal` send a signal to their jobs; one may be gone."""
    if slurm_ids:
        _try("scancel", "--quiet", *options, *slurm_ids)


def forbid_requeue(slurm_ids: Sequence[str]) -> None:
    """Let allocations end for good when they end next."""
    for slurm_id in slurm_ids:
        _try("scontrol", "update", f"JobId={slurm_id}", "Requeue=0")


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=SECONDS_TO_ANSWER
    )
    return done.stdout


def _try(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER)
