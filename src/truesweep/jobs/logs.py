"""One log file a rank."""

import logging
import os
import sys
import warnings

from truesweep.jobs.directory import RunDirectory


def write_logs(run: RunDirectory, rank: int) -> None:
    """Send this process' log and warnings to its file; ranks but the first print there too."""
    path = run.log(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    if rank > 0:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, sys.stdout.fileno())
        os.dup2(descriptor, sys.stderr.fileno())
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric", "transformers"):
        library = logging.getLogger(name)
        library.handlers.clear()  # they print by themselves; the file has it all
        library.propagate = True
    logging.captureWarnings(not sys.warnoptions)
    for harmless in _HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


_HARMLESS = (
    ".*does not have many workers.*",  # samples are already in memory, as token ids
    ".*your dataloader is not resumable.*",  # ours starts at the step that is due
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*treespec.*is deprecated.*",
)
