import subprocess
import sys
from pathlib import Path

import pytest

TRACE = Path(__file__).parents[1] / "benchmarks" / "trace.py"
OFF = {
    *("callbacks/harness.py", "callbacks/stopping.py", "metrics/harness.py"),
    *("data/clean.py", "data/mixing.py", "data/mixture.py", "models/adapters.py"),
    *("record/study.py", "runs/branches.py", "jobs/pausing.py"),
}
"""What serves features that a plain training does not use."""


@pytest.mark.slow
def test_a_step_does_not_enter_what_is_off() -> None:
    small = ["model.depth=1", "model.width=32", "model.heads=2", "logger=none"]
    done = subprocess.run(
        [sys.executable, str(TRACE), "--list", *small], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.endswith(" (step)")]
    entered = {path for path, *_ in lines}
    assert "tasks/training.py" in entered
    assert not entered & OFF
