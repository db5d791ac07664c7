"""What all tests share: no network, a cache of their own, a fixed number of threads."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

THREADS = int(os.environ.get("TEST_THREADS", "1"))
"""CPU threads of the tests, and of each rank that they start; no figure may depend on it."""


def pytest_report_header() -> str:
    return (
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, threads: {THREADS}"
    )


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session", autouse=True)
def _clean_forks() -> None:
    """Jobs are not forks of the tests' process, whose warnings are errors."""
    from truesweep.sweeps import forks  # not before the environment is set

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


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
