import subprocess
from pathlib import Path

import pytest

from tests import processes

# One of two ranks: the store's file, its rank, its hash. Its sockets stay until the other has read.
RANK = """
import sys
import time
from pathlib import Path
from types import SimpleNamespace
import torch.distributed as dist
from truesweep.callbacks import SameConfiguration

store, rank, fingerprint = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
try:
    SameConfiguration(fingerprint).on_fit_start(SimpleNamespace(world_size=2), None)
finally:
    Path(f"{store}-{rank}").touch()
    while not Path(f"{store}-{1 - int(rank)}").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize(("other", "codes"), [("a" * 64, [0, 0]), ("b" * 64, [1, 1])])
def test_ranks_with_different_configurations_refuse(
    tmp_path: Path, other: str, codes: list[int]
) -> None:
    ranks = [
        processes.Process(
            ["-c", RANK, str(tmp_path / "store"), str(rank), fingerprint],
            stderr=subprocess.PIPE,
        )
        for rank, fingerprint in enumerate(["a" * 64, other])
    ]
    errors = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == codes, errors
    if codes == [1, 1]:
        assert all("different configurations or data (rank 0: aaa" in error for error in errors)
