"""Runs that are compiled: without a compiler, and while a signal strikes the compiler."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.commands.conftest import SMALL, truesweep, values
from truesweep.commands.resume import resume
from truesweep.commands.sweep import sweep
from truesweep.commands.train import create_run, train
from truesweep.errors import LONGEST, ConfigError
from truesweep.jobs import compiling, parts
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import plan
from truesweep.runs.run import Run
from truesweep.tasks import training

COMPILED = [
    *(*SMALL, "model.depth=1", "trainer.max_steps=4", "trainer.val_check_interval=2"),
    *("trainer.compile=true", "name=x"),
]
NONE = "there is no C++ compiler (g++). Install g++"


def the_run(workplace: Path, name: str = "x") -> Run:
    (path,) = (workplace / "outputs" / name).iterdir()
    return Run(path)


# No compiler


def test_without_a_compiler_what_asks_for_one_is_refused_and_the_default_trains(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "empty").mkdir()
    monkeypatch.setenv("PATH", str(workplace / "empty"))
    monkeypatch.delenv("CXX", raising=False)
    refused = truesweep("train", "--dry-run", *data["lm"], *COMPILED, cwd=workplace)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "error: trainer.compile=true: there is no C++ compiler (g++). Install g++ and Python's "
        "headers (or name a compiler in CXX), or set trainer.compile=false\n"
    )
    assert not (workplace / "outputs").exists()
    done = truesweep("train", *data["lm"], *SMALL, "name=x", cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert "compile" not in done.out


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "no_cpu_compiler", lambda: NONE)


def test_a_sweep_is_refused_as_a_whole(
    data: dict[str, list[str]], workplace: Path, no_compiler: None
) -> None:
    with pytest.raises(ConfigError, match="layers: there is no C"):
        sweep([*data["lm"], *SMALL, "trainer.compile=false,layers", "name=x"], [], False)
    assert not (workplace / "outputs").exists()


def test_a_job_that_was_planned_elsewhere_says_what_it_lacks_and_goes_on_without(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(compiling, "no_cpu_compiler", lambda: None)
        run = create_run(plan([*data["lm"], *COMPILED]), workplace / "outputs/x/y")
    monkeypatch.setattr(compiling, "no_cpu_compiler", lambda: NONE)
    assert launch(run) == 1
    problem = f"trainer.compile=true: {NONE}, or set trainer.compile=false"
    assert (run.status["state"], run.status["error"]) == ("failed", problem)
    with pytest.raises(ConfigError, match=r"trainer\.compile=true: there is no"):
        resume(run.path)
    assert resume(run.path, ["trainer.compile=false"]) == 0
    assert run.status["state"] == "completed"


# Signals


class Backend:
    """Compiles nothing, and lets a signal strike while it does not.

    Args:
        strikes_at: The compilation, counted from 1, during which it does; 0: never.
        validating: Whether only those for validations are counted.
        signum: The signal.
        then: What the compiler does when the signal has ended its processes; None: it is patient.
    """

    def __init__(
        self,
        strikes_at: int = 0,
        signum: int = signal.SIGTERM,
        then: Callable[[], None] | None = None,
        validating: bool = False,
    ) -> None:
        self.strikes_at = strikes_at
        self.signum = signum
        self.then = then
        self.validating = validating
        self.compilations = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.compilations += not (self.validating and torch.is_grad_enabled())
        if self.compilations == self.strikes_at:
            self._strike()
        return graph.forward

    def _strike(self) -> None:
        if self.then is None:
            os.kill(os.getpid(), self.signum)
            time.sleep(60)
            raise AssertionError("nobody left the compiler")
        try:
            os.kill(os.getpid(), self.signum)
            time.sleep(60)
        except BaseException:  # as finalizers and locks may swallow what a handler raises
            self.then()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Backend], Backend]]:
    """Has models compiled by a backend."""

    def use(chosen: Backend) -> Backend:
        torch._dynamo.reset()
        monkeypatch.setattr(compiling, "no_cpu_compiler", lambda: None)
        monkeypatch.setattr(
            parts, "compile_model", lambda model, how: model.compile(backend=chosen)
        )
        return chosen

    yield use
    torch._dynamo.reset()


WHEN: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "in the first step": ("lm", {"strikes_at": 1}, None),
    "in another step": ("classification", {"strikes_at": 2}, 1),
    "in a validation": ("lm", {"strikes_at": 1, "validating": True}, 2),
}
"""By moment: the task, the compilation, and the step that is saved."""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", WHEN)
def test_a_signal_while_something_is_compiled_is_obeyed_at_once_and_nothing_is_lost(
    data: dict[str, list[str]],
    workplace: Path,
    backend: Callable[[Backend], Backend],
    when: str,
    signum: signal.Signals,
) -> None:
    task, moment, saved = WHEN[when]
    asked = [*data[task], *COMPILED]
    backend(Backend(signum=signum, **moment))
    began = time.monotonic()
    assert train(asked, [], None, False) == (143 if signum == signal.SIGTERM else 130)
    assert time.monotonic() - began < 30
    run = the_run(workplace)
    assert run.status["state"] == "preempted"
    assert run.status["error"] is None
    assert run.status.get("saved_step") == saved
    assert (run.checkpoints / "last.ckpt").exists() == (saved is not None)
    if saved and signum == signal.SIGTERM:  # once is enough
        backend(Backend())
        assert train([*asked, "name=unbroken"], [], None, False) == 0
        backend(Backend())
        assert resume(run.path) == 0
        assert values(run.path) == values(the_run(workplace, "unbroken").path)


def test_a_signal_while_an_optimizer_is_compiled_changes_nothing_that_was_saved(
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: Callable[[Backend], Backend],
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(training, "runs_ahead", lambda device: True)  # as on a GPU

    def use(chosen: Backend) -> Backend:
        backend(chosen)
        monkeypatch.setattr(parts, "compile_model", lambda model, how: None)
        monkeypatch.setattr(torch, "compile", partial(compile_, backend=chosen))
        return chosen

    asked = [*data["lm"], *COMPILED, "optimizer=muon"]
    asked += ["scheduler=constant", "scheduler.warmup=0"]  # the same, however long it is
    steady = use(Backend())
    assert train([*asked, "name=unbroken"], [], None, False) == 0
    assert steady.compilations > 0
    use(Backend(strikes_at=1))
    assert train(asked, [], None, False) == 143
    run = the_run(workplace)
    assert run.status["state"] == "preempted"
    assert not (run.checkpoints / "last.ckpt").exists()
    use(Backend())
    assert resume(run.path, ["trainer.max_steps=2"]) == 0
    saved = (run.checkpoints / "last.ckpt").read_bytes()
    use(Backend(strikes_at=steady.compilations))  # amid its programs
    assert resume(run.path, ["trainer.max_steps=4"]) == 143
    assert (run.checkpoints / "last.ckpt").read_bytes() == saved
    use(Backend())
    assert resume(run.path) == 0
    assert values(run.path) == values(the_run(workplace, "unbroken").path)


class Imagined(TorchDispatchMode):
    """Where C++ calls Python, such as the compiler for a tensor that it imagines."""

    def __init__(self) -> None:
        super().__init__()
        self.left_by: list[BaseException] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        except BaseException as error:
            self.left_by.append(error)
            raise
        return func(*args, **(kwargs or {}))


def test_no_error_is_raised_where_it_would_end_the_process(
    data: dict[str, list[str]], workplace: Path, backend: Callable[[Backend], Backend]
) -> None:
    class Within(Backend):
        def _strike(self) -> None:
            with imagined:
                torch.ones(1)
            time.sleep(60)
            raise AssertionError("nobody left the compiler")

    imagined = Imagined()
    backend(Within(2))
    began = time.monotonic()
    assert train([*data["classification"], *COMPILED], [], None, False) == 143
    assert time.monotonic() - began < 30
    assert not imagined.left_by
    assert the_run(workplace).status["saved_step"] == 1


def test_a_compiler_is_left_though_what_the_signal_raises_is_lost(
    data: dict[str, list[str]],
    workplace: Path,
    backend: Callable[[Backend], Backend],
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Collecting(Backend):
        def _strike(self) -> None:
            key = torch.nn.Module()
            _held = weakref.ref(key, lambda _: os.kill(os.getpid(), signal.SIGTERM))
            del key
            time.sleep(60)
            raise AssertionError("nobody left the compiler")

    backend(Collecting(2))
    began = time.monotonic()
    assert train([*data["classification"], *COMPILED], [], None, False) == 143
    assert time.monotonic() - began < 50
    assert the_run(workplace).status["saved_step"] == 1
    assert "Exception ignored" not in capsys.readouterr().err


def test_a_compiler_that_a_signal_has_ended_is_no_failure(
    data: dict[str, list[str]], workplace: Path, backend: Callable[[Backend], Backend]
) -> None:
    def fail() -> None:
        raise RuntimeError("g++ was ended by SIGTERM")

    backend(Backend(2, then=fail))
    assert train([*data["classification"], *COMPILED], [], None, False) == 143
    status = the_run(workplace).status
    assert (status["state"], status["error"], status["saved_step"]) == ("preempted", None, 1)


def test_nothing_new_is_compiled_after_a_signal(
    data: dict[str, list[str]], workplace: Path, backend: Callable[[Backend], Backend]
) -> None:
    patient = backend(Backend(1, then=lambda: None))
    assert train([*data["classification"], *COMPILED], [], None, False) == 143
    assert patient.compilations == 1
    assert the_run(workplace).status["saved_step"] == 1


def test_a_compiler_that_fails_by_itself_is_a_failure_told_in_short(
    data: dict[str, list[str]],
    workplace: Path,
    backend: Callable[[Backend], Backend],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("\n".join(["C++ compile error", *["0x80,"] * 50_000, "a.cpp: error: b"]))

    chosen = backend(Backend())
    chosen._strike = fail  # type: ignore[method-assign]
    chosen.strikes_at = 1
    assert train([*data["lm"], *COMPILED], [], None, False) == 1
    run = the_run(workplace)
    error = run.status["error"]
    assert run.status["state"] == "failed"
    assert len(error) <= LONGEST
    assert "a.cpp: error: b" in error.splitlines()[0]
    assert run.log(0).read_text().count("0x80,") >= 50_000
    assert len(capsys.readouterr().err) < 2 * LONGEST


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_signal_to_every_process_while_g_plus_plus_works(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(workplace / "inductor"))
    process = subprocess.Popen(
        [sys.executable, "-m", "truesweep", "train", *data["lm"], *COMPILED, "model.depth=1"],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not compiles_a_kernel(process.pid):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert said.splitlines()[-1].startswith("Stopped and saved.")
    assert "Traceback" not in said
    assert len(said) < LONGEST
    status = json.loads((the_run(workplace).path / "status.json").read_text())
    assert (status["state"], status["error"]) == ("preempted", None)


def compiles_a_kernel(pid: int) -> bool:
    """Whether a process has g++ work on code of torch's."""
    try:
        words = [child.cmdline() for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return False
    return any(".main.cpp" in " ".join(line) for line in words)
