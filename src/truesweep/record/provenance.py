"""Where a run's numbers come from: code, packages, machine, data."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from truesweep.compat import untried
from truesweep.record import gpus

# Packages that can change a number.
PACKAGES = (
    "truesweep",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "datasets",
    "sacrebleu",
    "torchao",
    "lm-eval",
    "hydra-core",
    "omegaconf",
    "numpy",
    "babel",
    "wandb",
)


def collect(command: Sequence[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the run that starts now, in plain values for `provenance.json`.

    Args:
        command: what the user typed, secrets redacted.
        data: names and fingerprints of the data.
    """
    return {
        "command": list(command),
        "directory": str(Path.cwd()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git(),
        "python": platform.python_version(),
        "packages": packages(),
        "untried": untried(),
        "platform": platform.platform(),
        "hardware": hardware(),
        "data": dict(data),
    }


def git() -> dict[str, str | None] | None:
    """Commit, branch and the SHA-256 of what differs from it; None outside a repository.

    `diff` covers tracked files and is None if they are as committed.
    """
    head = _output("git", "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    if head is None:
        return None
    commit, branch = head.decode().split()
    diff = _output("git", "diff", "--no-ext-diff", "HEAD")
    return {
        "commit": commit,
        "branch": branch,
        "diff": hashlib.sha256(diff).hexdigest() if diff else None,
    }


def packages() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def program(own: Sequence[str] = ()) -> dict[str, str]:
    """What a training follows from besides its configuration and its data, by name.

    Args:
        own: Top-level packages of the user's, whose code may change without a version.

    Returns:
        The versions of Python and of packages, and of each own one a hash of its source.
    """
    sources = {name: found for name in own if (found := _source(name)) is not None}
    return {"Python": platform.python_version(), **packages(), **sources}


def _source(package: str) -> str | None:
    """Of the SHA-256 of a package's files of Python; None where it cannot be found."""
    with suppress(ImportError, ValueError, OSError):
        spec = find_spec(package)
        if spec is None:
            return None
        digest = hashlib.sha256()
        for file in _files_of(spec.submodule_search_locations, spec.origin):
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
        return f"source {digest.hexdigest()[:16]}"
    return None


def _files_of(folders: Sequence[str] | None, origin: str | None) -> Iterator[Path]:
    if folders is None:  # a module of one file
        yield from [Path(origin)] if origin else []
    for folder in folders or ():
        yield from sorted(Path(folder).rglob("*.py"))


def hardware() -> dict[str, Any]:
    """Host, processor, cores that this process may use, memory in bytes, names of the GPUs."""
    return {
        "host": platform.node(),
        "cpu": _cpu(),
        "cores": cores(),
        "memory": memory(),
        "gpus": gpus.ask("name,memory.total"),
    }


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cores() -> int:
    """Processor cores that this process may use."""
    linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> bytes | None:
    """What `command` prints, or None if it fails or takes longer than five seconds."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return None
