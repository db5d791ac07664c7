"""What all tests share: no network, a cache of their own, a fixed number of threads.

A test that needs what a machine may lack is skipped there, with a reason `needs WHAT (REMEDY)`.
"""

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

THREADS = int(os.environ.get("TEST_THREADS", "1"))
"""CPU threads of the tests, and of each process that they start; no figure may depend on it."""
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # until a process sets its own number
if hasattr(os, "ST_NOEXEC") and os.access(MEMORY := "/dev/shm", os.W_OK):
    found = os.statvfs(MEMORY)
    if found.f_bavail * found.f_frsize > 8e9 and not found.f_flag & os.ST_NOEXEC:
        # Temporary folders lie in memory: a run waits for the disk at every file that it writes.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
MUST_HAVE = tuple(f"needs {what}" for what in os.environ.get("TEST_WITH", "").split(",") if what)
"""What may not be lacking here, as in `TEST_WITH=Chromium,Slurm`; else it is a failure."""


def pytest_configure() -> None:
    """Note the environment as it is set here, before any package adds to it."""
    from tests import processes  # noqa: F401  # it notes the environment when it is imported


def pytest_report_header() -> str:
    return (
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, threads: {THREADS}"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while millions of objects are imported, nor among them later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # below the line that counts the tests
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say in one sentence what was left out, and how to have it."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:  # in a process of several, of which another one reports
        return
    skipped = terminal.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if not reasons:
        return
    parts = [
        f"{count} for want of {reason.removeprefix('needs ').splitlines()[0]}"
        for reason, count in reasons.most_common()
    ]
    terminal.write_line(f"Tests left out: {', '.join(parts)}.", yellow=True)
    if any(reason.startswith(MUST_HAVE) for reason in reasons):
        terminal.write_line(f"That is a failure, by TEST_WITH={os.environ['TEST_WITH']}.", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session", autouse=True)
def _clean_forks() -> None:
    """Jobs are not forks of the tests' process, whose warnings are errors."""
    from truesweep.jobs import forks  # not before the environment is set

    forks._has_one_thread = lambda: False


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that all tests of a worker share, and nobody else."""
    before = os.environ.get("TRUESWEEP_CACHE")
    os.environ["TRUESWEEP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TRUESWEEP_CACHE"]
    else:
        os.environ["TRUESWEEP_CACHE"] = before


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Undo what packages set when they are imported or used: processes with it would import anew.

    Modules of tests import them, and fixtures of several tests use them.
    """
    from tests.processes import BEFORE_TESTS, at_import

    others = {k: v for k, v in os.environ.items() if k not in at_import(os.environ)}
    before = others | at_import(BEFORE_TESTS)
    _restore(before)
    yield
    _restore(before)


def _restore(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def compiler() -> None:
    """Leaves a test out that compiles where nothing can be compiled."""
    from truesweep.jobs.compiling import no_cpu_compiler

    if problem := no_cpu_compiler():
        pytest.skip(f"needs a C++ compiler ({problem})")
