"""One log file a rank, and libraries that keep to it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from truesweep.runs.run import Run
from truesweep.terminal import console

LIBRARIES = ("pytorch_lightning", "lightning_fabric", "transformers")
HARMLESS = (
    ".*does not have many workers.*",  # samples are already in memory, as token ids
    ".*`srun` command is available.*",  # ranks are started by ourselves
    ".*LeafSpec.*",  # Lightning's own use of torch
    ".*torch.jit.script_method.*",  # torch's compiler's own use of torch
)


TOLD = ("truesweep.record", "truesweep.tasks")
"""Packages whose warnings are for the terminal, too."""


class _Terminal(logging.Handler):
    """Tells what becomes of the loggers and of memory; of other warnings the plan has told."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = Text.assemble(("Warning: ", "bold yellow"), record.getMessage())
        console(stderr=True).print(warning, soft_wrap=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from printing by themselves, and drop warnings that mean nothing here."""
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        yield


def log_into(path: Path) -> None:
    """Have this process write to a file, from here on, what it would to a terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):  # by their numbers, for what is not Python's
        os.dup2(descriptor, stream)
    os.close(descriptor)


@contextmanager
def logs(run: Run, rank: int) -> Iterator[None]:
    """Send this process' log and warnings to its file; ranks but the first print there too."""
    path = run.log(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    if rank > 0:
        log_into(path)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    terminal, told = _Terminal(logging.WARNING), [logging.getLogger(name) for name in TOLD]
    for logger in told if rank == 0 else ():
        logger.addHandler(terminal)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with quiet():
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        for logger in told:
            logger.removeHandler(terminal)
        root.setLevel(level)
        handler.close()
