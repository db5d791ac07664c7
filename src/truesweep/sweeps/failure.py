"""Why a job failed, by name."""

import re
import signal
from pathlib import Path

from truesweep.runs.run import Run
from truesweep.text import duration

OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\bMemoryError|DefaultCPUAllocator|not enough memory"
    r"|can(no|')t allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""What PyTorch's allocators, CUDA's libraries and Python say when memory runs out."""
REMEDY = "Lower data.micro_batch_size (it changes no result), or run fewer jobs beside each other"


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since it was started."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else 0


def name_failure(run: Run, exit_code: int, stalled: float | None, kills: int) -> str:
    """Write into a failed job's status what became of it, if it could not do so itself.

    Args:
        run: The job's directory.
        exit_code: Below zero: the signal that ended it.
        stalled: The minutes without a sign of life for which it was killed, if it was.
        kills: Processes that the kernel has killed for memory since the job was started.

    Returns:
        The error, as it now stands in `status.json`.
    """
    status = run.status
    if status.get("state") == "failed":
        error = str(status.get("error"))
        if not _for_memory(error, kills) or error.startswith("out of memory"):
            return error
        named = f"out of memory: {error}\n{REMEDY}"
        run.update_status(error=named)
        return named
    error = _how_it_ended(exit_code, stalled, kills)
    run.end("failed", exit_code if exit_code > 0 else 128 - exit_code, error)
    return error


def _for_memory(error: str, kills: int) -> bool:
    return bool(OUT_OF_MEMORY.search(error)) or (kills > 0 and "SIGKILL" in error)


def _how_it_ended(exit_code: int, stalled: float | None, kills: int) -> str:
    if stalled is not None:
        return (
            f"hanging: no sign of life for {duration(60 * stalled)}, so it was killed; "
            "sweeps.stall_minutes sets the limit"
        )
    if exit_code == -signal.SIGKILL and kills > 0:
        return f"out of memory: killed by the kernel, since main memory ran out. {REMEDY}"
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL: by hand, or by a limit on memory that the kernel did not count"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code} before it could say why; its log may"
