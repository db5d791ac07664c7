"""Processes of tests, which most of the tests' time would go into if each imported anew."""

import os
import select
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests import processes


def test_a_process_has_what_commands_import() -> None:
    done = processes.run(["-c", "import sys; print('torch' in sys.modules)"])
    assert done.stdout == "True\n", "a package has set a variable that is read at import"


def test_a_process_that_is_told_what_is_read_at_import_imports_it() -> None:
    env = {**processes.BEFORE_TESTS, "TORCH_HOME": "elsewhere"}
    done = processes.run(["-c", "import sys; print('torch' in sys.modules)"], env=env)
    assert done.stdout == "False\n"


def stand_in(code: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [*shlex.split(processes.python()), "-u", "-c", f"import os, signal, sys\n{code}"]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def test_what_a_cluster_starts_imports_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb.set_trace")  # as Ray's workers have it
    code = "print('torch' in sys.modules, sys.stdin.read(), os.getcwd())\nsys.exit(7)"
    process = stand_in(code)
    assert process.communicate("given")[0] == f"True given {Path.cwd()}\n"
    assert process.returncode == 7


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_what_a_cluster_starts_is_sent_its_signals(signum: signal.Signals) -> None:
    code = f"signal.signal({int(signum)}, lambda *_: os._exit(9))\nprint()\nsignal.pause()"
    process = stand_in(code)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signum)
        assert process.wait(60) == 9


@pytest.mark.parametrize("whom", ["stand-in", "process"])
def test_what_a_cluster_starts_is_killed_as_one(whom: str) -> None:
    with stand_in("print(os.getpid())\nsignal.pause()") as process:
        assert process.stdout is not None
        process_itself = int(process.stdout.readline())
        ended = os.pidfd_open(process_itself)
        os.kill(process.pid if whom == "stand-in" else process_itself, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
