"""Processes of tests that need not import everything anew: forked from one that has done it.

A server has done the imports and nothing else. It forks a process for each command, which is then
what `python -m truesweep …` would be: its own session, folder, environment, streams, module run as
`__main__`, signals and exit code. Tests of the start itself start an interpreter: `subprocess`.

What a cluster starts cannot be forked so. `python()` is a command that starts, as a cluster does, a
process of little more than the standard library, which stands for one that the server forks.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
AT_IMPORT = (
    "ATEN_",
    "CUDA_",
    "HF_",
    "KMP_",
    "LD_",
    "MKL_",
    "OMP_",
    "ONEDNN_",
    "PYTHON",
    "TORCH",
    "TRANSFORMERS_",
)
"""Beginnings of variables that are read when Python starts or a package is imported."""
BEFORE_TESTS = dict(os.environ)
"""What the server starts with: a test may have set what it alone is to see."""
OF_CLUSTERS = ("CUDA_VISIBLE_DEVICES", "PYTHONBREAKPOINT")
"""Of these, what Ray sets, and no test depends on."""
ARCHITECTURES = ("bert", "gpt2", "lfm2", "llama", "mbart")
Environment = Mapping[str, str]


class Process:
    """A process that the server has forked; as much of `subprocess.Popen` as tests need.

    Args:
        arguments: What would stand behind `python`: `-m MODULE …`, `-c CODE …` or `FILE …`.
        cwd: The folder that it starts in.
        env: Its environment; None: as here.
        stdout: `subprocess.PIPE`, or None for nowhere.
        stderr: The same, or `subprocess.STDOUT`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | str = ".",
        env: Environment | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._readers: list[_Reader] = []
        out = self._stream(stdout)
        err = os.dup(out) if stderr == subprocess.STDOUT else self._stream(stderr)
        request = {
            "arguments": list(arguments),
            "cwd": str(Path(cwd).absolute()),
            "env": dict(os.environ if env is None else env),
        }
        nothing = os.open(os.devnull, os.O_RDONLY)
        self._minder = _ask(_server(), request, [nothing, out, err])
        for descriptor in (nothing, out, err):
            os.close(descriptor)
        self.pid = _number(self._minder)

    def _stream(self, how: int | None) -> int:
        """A descriptor to write to."""
        if how is None:
            return os.open(os.devnull, os.O_WRONLY)
        read, write = os.pipe()
        self._readers.append(_Reader(read))
        return write

    def poll(self) -> int | None:
        """The exit code, once it has ended; minus the signal that ended it."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code."""
        if self.returncode is None:
            if not select.select([self._minder], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = _number(self._minder)
            self._minder.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it and all its own processes have written, when the last of them is gone."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        out, err, *_ = [*(reader.said.decode() for reader in self._readers), "", ""]
        return out, err

    def send_signal(self, signum: int) -> None:
        """Send a signal to it alone."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self.said = b""
        self._pipe = os.fdopen(descriptor, "rb")
        self.start()

    def run(self) -> None:
        with self._pipe:
            self.said = self._pipe.read()


def run(
    arguments: Sequence[str],
    *,
    cwd: Path | str = ".",
    env: Environment | None = None,
    timeout: float = 300,
) -> "subprocess.CompletedProcess[str]":
    """Run a process to its end and keep what it writes, as `subprocess.run` does."""
    pipe = subprocess.PIPE
    process = Process(arguments, cwd=cwd, env=env, stdout=pipe, stderr=pipe)
    try:
        out, err = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(list(arguments), process.wait(), out, err)


def python() -> str:
    """The command of a Python, for whoever starts one by itself, which imports nothing anew."""
    return shlex.join([sys.executable, "-I", "-S", __file__, _server()])


@cache
def _server() -> str:
    """Start the server of this process, which ends with it; the address that it listens at."""
    address = f"/tmp/tests-{os.getpid()}-{os.urandom(4).hex()}"
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", address, str(theirs.fileno())],
            env=BEFORE_TESTS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # so that what is printed is buffered as in a pipe
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    assert ours.recv(1), "the server of processes could not start"

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return address


def _ask(address: str, request: dict[str, Any], streams: list[int]) -> socket.socket:
    """Ask a server for a process with these streams; whence its number and its exit code come."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    text = json.dumps(request).encode()
    socket.send_fds(server, [len(text).to_bytes(8, "big")], streams)
    server.sendall(text)
    return server


def _number(minder: socket.socket) -> int:
    said = minder.recv(8)
    assert said, "the server of processes has died"
    return int.from_bytes(said, "big", signed=True)


def _stand_in(address: str, arguments: Sequence[str]) -> NoReturn:
    """Be a process that the server forks: its streams, signals and end are those of this one."""
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    env = {name: value for name, value in os.environ.items() if name not in OF_CLUSTERS}
    request = {"arguments": arguments, "cwd": str(Path.cwd()), "env": env, "with asker": True}
    minder = _ask(address, request, [0, 1, 2])
    pid = _number(minder)

    def hand_on(signum: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)

    for signum in signals:
        signal.signal(signum, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = _number(minder)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# The server.


def _import() -> None:
    """Import what commands do, which starts no thread."""
    from importlib import import_module
    from pkgutil import walk_packages

    import truesweep

    for module in walk_packages(truesweep.__path__, "truesweep."):
        if module.name.endswith("__main__"):
            continue
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("truesweep"):
                raise  # else it is an extra's package
    for architecture in ARCHITECTURES:
        import_module(f"transformers.models.{architecture}.modeling_{architecture}")


def _serve(address: str, alive: socket.socket, before: Environment) -> dict[str, Any]:
    """Fork a process for each request; returns in those processes only, with the request.

    Args:
        address: Where to listen.
        alive: Closed when the process that this server is for has ended.
        before: The environment that the imports found.
    """
    here = at_import(os.environ)
    by_imports = {k: v for k, v in os.environ.items() if before.get(k) != v}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for minders
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    alive.sendall(b"!")
    while True:
        if alive in select.select([listener, alive], [], [])[0]:
            Path(address).unlink()
            os._exit(0)
        asking, _ = listener.accept()
        size, streams, _, _ = socket.recv_fds(asking, 8, 3)
        request = _read(asking, int.from_bytes(size, "big"))
        if os.fork() == 0:
            listener.close()
            alive.close()
            request["env"] = by_imports | request["env"]
            request["as here"] = at_import(request["env"]) == here
            _mind(streams, asking, "with asker" in request)
            return request
        asking.close()
        for descriptor in streams:
            os.close(descriptor)


def at_import(env: Environment) -> dict[str, str]:
    """What of an environment is read at imports; a path can be added to later."""
    return {k: v for k, v in env.items() if k.startswith(AT_IMPORT) and k != "PYTHONPATH"}


def _read(requests: socket.socket, size: int) -> dict[str, Any]:
    text = b""
    while len(text) < size:
        text += requests.recv(size - len(text))
    request: dict[str, Any] = json.loads(text)
    return request


def _mind(streams: list[int], asking: socket.socket, with_asker: bool) -> None:
    """Fork the process itself, and tell its number and how it ends; returns in it only.

    Args:
        streams: Its input, output and errors.
        asking: Who asked for it.
        with_asker: Whether it is killed when that one is.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
    for descriptor in streams:
        os.close(descriptor)
    if pid == 0:
        asking.close()
        return
    with suppress(ConnectionError), asking:
        asking.sendall(pid.to_bytes(8, "big", signed=True))
        if with_asker:
            process = os.pidfd_open(pid)
            if process not in select.select([process, asking.fileno()], [], [])[0]:
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        asking.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Be what `python ARGUMENTS` would be."""
    arguments, env = request["arguments"], request["env"]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(env)
    if not request["as here"]:
        os.execv(sys.executable, [sys.executable, *arguments])
    path = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    sys.path[:1] = [request["cwd"], *path]
    while arguments[0] in ("-W", "-u"):
        if arguments[0] == "-u":
            # A file of text, as no test has put anything in its place here.
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
            arguments = arguments[1:]
        else:
            warnings.simplefilter(arguments[1])
            arguments = arguments[2:]
    how, *sys.argv = arguments
    from truesweep.jobs.forks import serve_forks

    serve_forks()  # its ranks need not import anew either
    if how == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


def _end(request: dict[str, Any]) -> NoReturn:
    """Do the work and end as an interpreter does, but for clearing thousands of modules away."""
    code: Any = 0
    try:
        _become(request)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        traceback.print_exception(error)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def _start_to_serve(address: str, alive: int) -> NoReturn:
    before = dict(os.environ)
    gc.disable()  # it would look through all objects again and again while they pour in
    _import()
    gc.enable()
    gc.freeze()  # forks share this memory as long as nobody writes into it
    _end(_serve(address, socket.socket(fileno=alive), before))


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _start_to_serve(sys.argv[2], int(sys.argv[3]))
    _stand_in(sys.argv[1], sys.argv[2:])
