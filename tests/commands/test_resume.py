"""A run that was stopped goes on as if it had never been."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests import processes
from tests.commands.conftest import SMALL, start, truesweep, typed, values, wait_for_rows
from tests.commands.strike import samples
from tests.damage import change_digit
from truesweep.commands.output import show_result
from truesweep.commands.resume import resume
from truesweep.commands.train import create_run, train
from truesweep.errors import DataError
from truesweep.jobs.plan import plan
from truesweep.runs.run import Run

DROPOUT = ["model.dropout=0.1"]
STRUCK = [
    *("+callbacks.strike._target_=tests.commands.strike.Strike", "allowed_packages=[tests]"),
    *("callbacks.checkpoint.every_n_steps=4", "trainer.log_every_n_steps=1"),
    *("trainer.max_steps=16", "data.batch_size=32", "data.eval_batch_size=4"),  # 12 steps an epoch
]


def same(run: Path, whole: Path) -> None:
    """Assert that two runs logged the same and came to the same weights, bit for bit."""
    assert values(run) == values(whole)
    weights, expected = (
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (run, whole)
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())


LAUNCH = """
import sys
from pathlib import Path
from truesweep.runs.run import Run
from truesweep.jobs.launch import launch

sys.exit(launch(Run(Path(sys.argv[1]))))
"""


def launched(run: Run) -> int:
    """Carry out a run in a process of its own; its exit code."""
    return ended(["-c", LAUNCH, str(run.path)])


def resumed(run: Run) -> int:
    """Resume a run in a process of its own; its exit code."""
    return ended(["-m", "truesweep", "resume", str(run.path)])


def ended(command: list[str]) -> int:
    """The exit code of a process that can import the tests."""
    path = {"PYTHONPATH": str(processes.ROOT)}
    return processes.run(command, env=os.environ | path).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "step", "signum", "workers", "ranks", "batch", "background"),
    [
        ("step", 2, signal.SIGKILL, 0, 1, 32, False),  # before the first checkpoint
        ("validation", 6, signal.SIGTERM, 2, 1, 32, True),
        ("saving", 8, signal.SIGKILL, 2, 1, 32, False),
        ("saving", 8, signal.SIGKILL, 2, 1, 32, True),
        ("step", 14, signal.SIGKILL, 0, 2, 32, True),  # in the second epoch
        ("step", 11, signal.SIGKILL, 2, 2, 31, False),  # in the first one's last batch, of 13
    ],
)
def test_a_struck_run_is_the_same_as_a_whole_one(
    data: dict[str, list[str]],
    workplace: Path,
    moment: str,
    step: int,
    signum: signal.Signals,
    workers: int,
    ranks: int,
    batch: int,
    background: bool,
) -> None:
    setting = [f"data.num_workers={workers}", f"trainer.devices={ranks}"]
    setting += [f"data.batch_size={batch}", f"callbacks.checkpoint.background={background}"]
    asked = [*data["classification"], *SMALL, *DROPOUT, *STRUCK, *setting]
    struck, whole = (create_run(plan(asked), Path("outputs", name)) for name in "ab")
    (struck.path / "strike").write_text(f'["{moment}", {step}, {int(signum)}]')
    code = launched(struck)
    assert code == (-signal.SIGKILL if signum == signal.SIGKILL else 143)
    while struck.alive:  # killed ranks are not gone at once
        time.sleep(0.01)
    assert resumed(struck) == 0
    assert launched(whole) == 0
    same(struck.path, whole.path)
    taken = samples(whole.path)
    assert samples(struck.path) == taken
    assert len(taken) == 16 * ranks
    assert sum(len(taken[f"samples{rank}.jsonl", 11]) for rank in range(ranks)) == 354 % batch


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_a_struck_run_is_the_same_at_any_precision(
    data: dict[str, list[str]], workplace: Path, precision: str
) -> None:
    asked = [*data["classification"], *SMALL, *DROPOUT, *STRUCK, f"trainer.precision={precision}"]
    asked += ["trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=2", "data.batch_size=8"]
    struck, whole = (create_run(plan(asked), Path("outputs", name)) for name in "ab")
    (struck.path / "strike").write_text(f'["step", 3, {int(signal.SIGKILL)}]')
    assert launched(struck) == -signal.SIGKILL
    record = struck.metrics.read_bytes()
    change_digit(struck.metrics, '"train/loss": ')
    with pytest.raises(DataError, match="is not what the run has written"):
        struck.read_metrics()
    struck.metrics.write_bytes(record)
    assert resumed(struck) == 0
    assert launched(whole) == 0
    same(struck.path, whole.path)


@pytest.mark.slow
def test_the_commands_stop_and_resume(data: dict[str, list[str]], workplace: Path) -> None:
    asked = [*data["lm"], *SMALL, *DROPOUT, "trainer.max_steps=200"]
    asked += ["trainer.val_check_interval=50", "callbacks.checkpoint.every_n_steps=7"]
    process = start([*asked, "name=stopped"], workplace)
    run = wait_for_rows(workplace / "outputs/stopped", rows=20)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert Run(run).status["state"] == "preempted"
    done = typed("resume", str(run), cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert train([*asked, "name=whole"], [], None, False) == 0
    (whole,) = (workplace / "outputs/whole").iterdir()
    same(run, whole)
    again = truesweep("resume", str(run), cwd=workplace)
    assert again.code == 0
    assert "nothing to do" in again.out


def test_a_resume_keeps_the_precision_that_was_taken(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.jobs.trainer.bf16_of_cpu", lambda: "AMX")
    named = [*data["lm"], *SMALL, "trainer.max_steps=4"]
    run = create_run(plan([*named, "trainer.precision=auto"]), Path("outputs/x/1"))
    monkeypatch.setattr("truesweep.jobs.trainer.bf16_of_cpu", lambda: None)  # another machine
    assert resume(Path("outputs/x/1"), ["trainer.max_steps=6"]) == 0
    asked = [*named, "trainer.precision=bf16-mixed", "trainer.max_steps=6"]
    assert train(asked, [], None, False) == 0
    (whole,) = set(workplace.glob("outputs/*/*")) - {run.path.absolute()}
    same(run.path, whole)


def test_resuming_nothing_is_an_error(workplace: Path) -> None:
    done = truesweep("resume", "outputs/none", cwd=workplace)
    assert done.code == 2
    assert "does not exist" in done.err


@pytest.mark.parametrize("overrides", [[], ["trainer.max_steps=50"]])
def test_a_pruned_run_stays_as_it_is(
    data: dict[str, list[str]],
    workplace: Path,
    overrides: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = create_run(plan([*data["lm"], *SMALL]), Path("outputs/x/1"))
    run.update_status(step=4)
    run.end("pruned", 0)
    before = run.status
    assert resume(Path("outputs/x/1"), overrides) == 0
    assert "outputs/x/1 was pruned after step 4; nothing to do." in capsys.readouterr().out
    assert run.status == before
    show_result(run, 0)  # as after a resume in which it was pruned
    assert "Pruned after step 4" in capsys.readouterr().out
