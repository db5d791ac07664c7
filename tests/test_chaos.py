"""Small cases of `benchmarks/chaos.py`: nothing is lost, silent or crashed."""

from collections import Counter
from pathlib import Path

import pytest
from benchmarks.chaos import WAYS, measure, row


@pytest.mark.parametrize(
    ("names", "scale"),
    [
        (["checkpoints", "checkpoints-tmpfs"], 0.05),
        (["limit"], 0.1),
    ],
)
def test_a_small_case(
    names: list[str], scale: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "src"))
    for name, counted in measure(names, scale, seed=0):
        assert counted.total()
        assert not {way: counted[way] for way in ("lost", "silent", "crashed") if counted[way]}, (
            name
        )


def test_a_row_counts_each_way() -> None:
    cells = row("limit", Counter({"same": 3, "crashed": 1})).split(" | ")[1:]
    assert [cell.strip(" |") for cell in cells] == ["3", "·", "·", "·", "1"]
    assert len(cells) == len(WAYS)
