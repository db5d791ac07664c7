"""`benchmarks/gpu.py` runs, at a tiny size and without a GPU."""

from pathlib import Path

import pytest
from benchmarks.gpu import TINY, WAYS, measure, overrides, row


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_measured(way: str, workplace: Path) -> None:
    found = measure(way, TINY, overrides("gpt2", TINY, workplace), workplace)
    assert found.tokens_per_second == pytest.approx(64 * found.steps_per_second)
    assert found.first_step > 0
    assert found.mfu is None, "of a processor nobody knows the peak"
    assert row("gpt2", way, found, found).startswith(f"| gpt2 | {way} | ")
    assert "| 1.000 |" in row("gpt2", way, found, found)
