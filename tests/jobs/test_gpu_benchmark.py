"""`benchmarks/gpu.py` runs, at a tiny size and without a GPU."""

import sys
from pathlib import Path

import pytest
from benchmarks import gpu
from benchmarks.gpu import SIZES, TINY, WAYS, Failed, apart, measure, overrides, row, run

from truesweep.jobs.plan import plan


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_measured(way: str, workplace: Path) -> None:
    found = measure(way, TINY, overrides("gpt2", TINY, workplace), workplace)
    assert found.tokens_per_second == pytest.approx(64 * found.steps_per_second)
    assert found.first_step > 0
    assert found.mfu is None, "of a processor nobody knows the peak"
    assert row("gpt2", way, found, found).startswith(f"| gpt2 | {way} | ")
    assert "| 1.000 |" in row("gpt2", way, found, found)


def test_a_way_that_fails_is_a_row(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = apart("bare", "no such size", False, workplace)
    assert isinstance(found, Failed)
    assert row("a", "bare", found, None) == "| a | bare | failed: KeyError: 'no such size' |"
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.setattr(gpu, "LIMIT", 0.5)
    code = (
        "import subprocess as s, sys; s.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    with pytest.raises(Failed, match="no end within"):
        run([sys.executable, "-c", code], workplace)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_all_steps_that_are_counted_are_whole_ones(name: str, workplace: Path) -> None:
    size = SIZES[name]
    asked = [*overrides(name, size, workplace), f"trainer.max_steps={size.steps + 1}"]
    job = plan([*asked, "trainer.accelerator=cpu"])
    assert job.steps_per_epoch > size.steps
    assert job.config["data"]["batch_size"] % size.micro_batch == 0
