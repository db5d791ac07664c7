"""What becomes of runs and sweeps under faults and under attack, as one table.

    python -m benchmarks.chaos [--only damage,kills] [--scale 1.0] [--write docs/faults.md]

Each try ends in one of five ways: the figures are those of an undisturbed run (`same`), or the
program said in a sentence what is wrong (`told`); or something is `lost` that was done, or it went
on with other figures and no word (`silent`), or it ended in a traceback or not at all (`crashed`).
For attacks: nothing of the attacker's ran (`told`), or it did (`silent`). Tries are multiplied by
`--scale`. What this machine cannot do, such as mounting a small disk, is left out and said.
"""

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tests import processes
from tests.commands.conftest import SMALL, write_data
from tests.damage import call, damage

from benchmarks.sweep_kills import figures
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.files import checksum_path
from truesweep.record.rows import read
from truesweep.runs.run import Run

WAYS = ("same", "told", "lost", "silent", "crashed")
FAULTS = '''
"""A callback that makes one rank go wrong at one step."""

import os, signal, time
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl


class Fault(pl.Callback):
    def __init__(
        self, how: Literal["poison", "spike", "late", "clock", "slow"], at: int = 5, rank: int = 0
    ):
        self.how, self.at, self.rank, self.step = how, at, rank, 0

    def on_train_start(self, trainer, module):
        if self.how in ("poison", "spike") and trainer.global_rank == self.rank:
            for parameter in module.parameters():
                parameter.register_hook(self.spoil)  # before the ranks exchange gradients

    def spoil(self, gradient):
        factor = float("nan") if self.how == "poison" else 1e6
        return gradient * factor if self.step == self.at else gradient

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if self.how == "late" and trainer.global_rank == self.rank and self.step == self.at:
            next(module.parameters()).grad[:] = float("nan")

    def on_train_batch_end(self, trainer, *_):
        self.step += 1
        if self.how == "slow":
            time.sleep(0.2)
        if self.how == "clock" and self.step == self.at:
            real = time.time
            time.time = lambda: real() - 86_400 * 400


class Death(pl.Callback):
    left = int(os.environ.get("DIES_AFTER", "0"))  # moments

    def tick(self, *_):
        Death.left -= 1
        if not Death.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_start(self, *_):
        replace = Path.replace

        def mortal(path, target):
            self.tick()
            replace(path, target)
            self.tick()

        Path.replace = mortal
        self.tick()

    on_train_batch_start = on_train_batch_end = on_validation_start = tick
    on_validation_batch_end = on_validation_end = on_save_checkpoint = on_test_batch_end = tick


class Keyed(pl.Callback):
    def __init__(self, api_key: str):
        self.known = bool(api_key)

    def on_train_end(self, trainer, module):
        assert self.known
'''
FIXED = ["allowed_packages=[faults]"]
FILES = (
    *("config.yaml", "status.json", "results.json", "provenance.json", "overrides.yaml"),
    *("model/config.json", "model/tokenizer.json", "model/tokenizer_config.json"),
    *("checkpoints/best.ckpt", "checkpoints/best.ckpt.sha256", "metrics.jsonl", "tables.json"),
    *("scores/val.npz", "scores/test.npz", "evaluations.jsonl"),
)


@dataclass
class Place:
    """A folder to work in, with small data, an undisturbed run, and what is asked of the suite.

    Args:
        folder: The folder.
        scale: By what the numbers of tries are multiplied.
        rng: Chooses moments and places.
    """

    folder: Path
    scale: float
    rng: random.Random
    asked: list[str] = field(default_factory=list)

    def tries(self, usual: int) -> int:
        """A number of tries, scaled."""
        return max(1, round(usual * self.scale))

    def train(self, *more: str, name: str) -> list[str]:
        """The words of a training."""
        return ["-m", "truesweep", "train", *self.asked, *SMALL, *FIXED, *more, f"name={name}"]

    def run(self, arguments: Sequence[str], **how: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return processes.run(arguments, cwd=self.folder, **how)

    def found(self, name: str) -> Run | None:
        """The run of a name, once it is there."""
        paths = list((self.folder / "outputs" / name).glob("*/config.yaml"))
        return Run(paths[0].parent) if paths else None

    def undisturbed(self, *more: str, name: str = "undisturbed") -> Any:
        """The figures of a run that nothing disturbs; trained once."""
        if self.found(name) is None:
            done = self.run(self.train(*more, name=name))
            assert done.returncode == 0, done.stderr
        run = self.found(name)
        assert run is not None
        return figures(run)


Measure = Callable[[Place], Iterator[str]]


def clean(text: str) -> bool:
    return "Traceback" not in text


def judged(place: Place, name: str, expected: Any, done: Any) -> str:
    """How a run came through that may have been resumed."""
    run = place.found(name)
    if not clean(done.stderr + done.stdout):
        return "crashed"
    if run is None or run.state != "completed":
        return "told" if done.returncode and done.stderr.strip() else "lost"
    return "same" if _as_before(run, expected) else "silent"


def _as_before(run: Run, expected: Any) -> bool:
    """Whether a run's figures are as they should be; says which are not."""
    rows, results = figures(run)
    other = [str(row) for row, wanted in zip(rows, expected[0], strict=False) if row != wanted]
    other += [
        name for name in {*results, *expected[1]} if results.get(name) != expected[1].get(name)
    ]
    if other or len(rows) != len(expected[0]):
        print(f"{run.path.parent.name}: {len(rows)} rows; {other[:5]}", file=sys.stderr)
    return bool((rows, results) == expected)


# -- kills ----------------------------------------------------------------------------------------


def _write_checkpoints(path: Path) -> None:
    files, number = CheckpointFiles(), 0
    while True:
        number += 1
        files.save_checkpoint({"number": number, "w": torch.full((40_000,), float(number))}, path)


def kills_of_checkpoints(place: Place, folder: Path) -> Iterator[str]:
    """A process is killed while it writes one checkpoint after the other."""
    path = folder / "last.ckpt"
    CheckpointFiles().save_checkpoint({"number": 0, "w": torch.zeros(40_000)}, path)
    for _ in range(place.tries(200)):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                _write_checkpoints(path)
            os._exit(1)
        time.sleep(place.rng.uniform(0.002, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        try:
            loaded = CheckpointFiles().load_checkpoint(path)
        except Exception:
            yield "lost"
        else:
            yield "same" if bool((loaded["w"] == loaded["number"]).all()) else "silent"


def kills_on_disk(place: Place) -> Iterator[str]:
    yield from kills_of_checkpoints(place, place.folder)


def kills_in_memory(place: Place) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield from kills_of_checkpoints(place, Path(folder))


def kills_of_runs(place: Place) -> Iterator[str]:
    """A run is killed at any moment, and resumed."""
    expected = place.undisturbed()
    for number in range(place.tries(6)):
        name = f"killed{number}"
        process = processes.Process(place.train(name=name), cwd=place.folder)
        time.sleep(place.rng.uniform(0.3, 5))
        process.kill()
        process.wait()
        run = place.found(name)
        again = place.train(name=name) if run is None else _resume(run)
        yield judged(place, name, expected, place.run(again))


def deaths(place: Place) -> Iterator[str]:
    """A run dies again and again: at a write, in a step, in a validation, while it resumes."""
    more = ["+callbacks.death._target_=faults.Death", "callbacks.checkpoint.every_n_steps=2"]
    expected = place.undisturbed(*more, name="alive")
    alive = place.found("alive")
    assert alive is not None
    for number in range(place.tries(12)):
        name = f"mortal{number}"
        arguments, run, deaths = place.train(*more, name=name), None, place.rng.sample(range(60), 7)
        for after in [*deaths, 0, 0]:
            done = place.run(arguments, env={**os.environ, "DIES_AFTER": str(after)})
            run = place.found(name)
            arguments = arguments if run is None else _resume(run)
            if run is not None and run.state == "completed":
                break
        how = judged(place, name, expected, done)
        yield "silent" if how == "same" and _weights(run) != _weights(alive) else how


def _weights(run: Run | None) -> dict[str, bytes]:
    """A hash of each weight in each checkpoint of a run."""
    assert run is not None
    names = ("best.ckpt", "last.ckpt")
    paths = [path for name in names if (path := run.checkpoints / name).exists()]
    states = {path.name: CheckpointFiles().load_checkpoint(path)["state_dict"] for path in paths}
    return {
        f"{file} {name}": hashlib.sha256(weight.numpy().tobytes()).digest()
        for file, state in states.items()
        for name, weight in state.items()
    }


def _resume(run: Run) -> list[str]:
    return ["-m", "truesweep", "resume", str(run.path)]


def goodput(place: Place) -> Iterator[str]:
    """A run is killed every minute: the share of its time that was not lost. See `SECONDS`."""
    steps = place.tries(SECONDS["steps"])
    long = [f"trainer.max_steps={steps}", "trainer.val_check_interval=200", *SLOW]
    long += ["callbacks.checkpoint.every_n_steps=20"]
    began = time.monotonic()
    expected = place.undisturbed(*long, name="steady")
    steady = time.monotonic() - began
    began, kills = time.monotonic(), 0
    arguments, run = place.train(*long, name="shot"), None
    while run is None or run.state != "completed":
        process = processes.Process(arguments, cwd=place.folder)
        try:
            process.wait(SECONDS["between"])
        except subprocess.TimeoutExpired:
            kills += 1
            process.kill()
            process.wait()
        run = place.found("shot")
        arguments = _resume(run) if run is not None else arguments
    share = steady / (time.monotonic() - began)
    NOTES["goodput"] = f"{share:.2f} of {steady:.0f} s, {kills} kills, one every 60 s"
    yield "same" if _as_before(run, expected) else "silent"


SLOW = ["+callbacks.fault._target_=faults.Fault", "callbacks.fault.how=slow"]
SECONDS = {"steps": 600, "between": 60}
NOTES: dict[str, str] = {}


# -- damage ---------------------------------------------------------------------------------------


def damaged_runs(place: Place) -> Iterator[str]:
    """Each file of a finished run is damaged; it is then used, exported, compared and listed."""
    place.undisturbed()
    source = place.found("undisturbed")
    assert source is not None
    run = shutil.copytree(source.path, place.folder / "damaged")
    out = place.folder / "exported"
    commands: dict[str, list[str]] = {
        "generate": ["generate", str(run), "--prompt", "red", "--temperature", "0"],
        "compare": ["compare", str(run), "--json", "--html", str(place.folder / "page.html")],
        "status": ["status", str(run), "--json"],
    }
    whole = {name: call(*command).out for name, command in commands.items()}
    for _name, _what in damage(run, FILES, place.rng, place.tries(6)):
        name = place.rng.choice(list(commands))
        met = call(*commands[name])
        shutil.rmtree(out, ignore_errors=True)
        if met.how == "crashed":
            print(f"{_name} {_what}: {name}: {met.said}", file=sys.stderr)
        noticed = met.err.strip() or '"broken"' in met.out
        other = met.how == "done" and met.out != whole[name]
        if other:
            print(f"{_name} {_what}: {name} differs, noticed: {noticed!r:.60}", file=sys.stderr)
        changed = "told" if noticed else "silent"
        yield {"refused": "told", "crashed": "crashed"}.get(met.how, changed if other else "same")


# -- disks ----------------------------------------------------------------------------------------

LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.argv[0] = "truesweep"
runpy.run_module("truesweep", run_name="__main__", alter_sys=True)
"""


def files_that_may_not_grow(place: Place) -> Iterator[str]:
    """No file may be longer than a limit, anywhere from 100 bytes to a whole checkpoint."""
    expected = place.undisturbed()
    for number in range(place.tries(8)):
        name, limit = f"limited{number}", int(10 ** place.rng.uniform(2, 5.6))
        done = place.run(["-c", LIMITED, str(limit), *place.train(name=name)[2:]])
        yield from _after_a_full_disk(place, name, expected, done)


def _after_a_full_disk(place: Place, name: str, expected: Any, done: Any) -> Iterator[str]:
    """It was told, or not noticed; and with room again it goes on."""
    if not clean(done.stderr + done.stdout) or (done.returncode and not done.stderr.strip()):
        print(done.stderr[-2000:], file=sys.stderr)
        yield "crashed"
        return
    run = place.found(name)
    again = place.run(place.train(name=name) if run is None else _resume(run))
    yield judged(place, name, expected, again)


@contextmanager
def mounted(where: Path, options: str) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder, suppress(subprocess.SubprocessError, OSError):
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["umount", folder], check=True)
        return True
    return False


def full_disks(place: Place) -> Iterator[str]:
    """A disk of some hundred kilobytes; then it has room, and the run goes on."""
    expected = place.undisturbed()
    for number in range(place.tries(5)):
        outputs, name = place.folder / "outputs", f"full{number}"
        aside = place.folder / "aside"
        outputs.rename(aside)
        with mounted(outputs, f"size={place.rng.randrange(16, 600)}k"):
            done = place.run(place.train(name=name))
            subprocess.run(["mount", "-o", "remount,size=64m", outputs], check=True)
            yield from _after_a_full_disk(place, name, expected, done)
        outputs.rmdir()
        aside.rename(outputs)


def read_only_disks(place: Place) -> Iterator[str]:
    """Every command that writes, where nothing can be written."""
    place.undisturbed()
    run = place.found("undisturbed")
    assert run is not None
    path = run.path.relative_to(place.folder)
    outputs, aside = place.folder / "outputs", place.folder / "aside"
    outputs.rename(aside)
    with mounted(outputs, "size=64m"):
        shutil.copytree(aside, outputs, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", outputs], check=True)
        for arguments in (
            place.train(name="other"),
            [*place.train(name="others"), "-m", "seed=1,2"],
            ["-m", "truesweep", "resume", str(path), "trainer.max_steps=24"],
            ["-m", "truesweep", "export", str(path), "outputs/exported"],
            ["-m", "truesweep", "evaluate", str(path), "--split", "val"],
            ["-m", "truesweep", "compare", str(path), "--html", "outputs/page.html"],
            ["-m", "truesweep", "sync", str(path)],
            ["-m", "truesweep", "verify", str(path), "--steps", "2"],
        ):
            done = place.run(arguments)
            said = done.stderr + done.stdout
            if not clean(said):
                print(shlex.join(arguments), done.stderr[-1500:], file=sys.stderr)
            yield "told" if clean(said) and said.strip() else "crashed"
    outputs.rmdir()
    aside.rename(outputs)


# -- ranks, drivers, clocks -----------------------------------------------------------------------

TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


def numbers_that_are_none(place: Place) -> Iterator[str]:
    """One of two ranks has gradients of NaN, or far too large, before they are exchanged or after.

    Those that have gone wrong afterwards end the run, whose last checkpoint is from before that.
    """
    for how in ("poison", "spike", "late"):
        for rank in (0, 1):
            name = f"{how}{rank}"
            fault = [f"callbacks.fault.how={how}", f"callbacks.fault.rank={rank}"]
            done = place.run(place.train(*TWO, SLOW[0], *fault, name=name))
            run = place.found(name)
            finished = run is not None and run.state in ("completed", "failed")
            if not clean(done.stderr + done.stdout) or not finished:
                yield "crashed"
                continue
            assert run is not None
            rows = read(run.metrics)
            noted = any(row.get("skipped_steps") for row in rows)
            noted |= any(row.get("grad_norm", 0) > 1000 for row in rows)
            yield "told" if noted or run.state == "failed" else "silent"


def stopped_ranks(place: Place) -> Iterator[str]:
    """A rank is stopped (SIGSTOP) for some seconds, and goes on."""
    slow = [*TWO, *SLOW]
    expected = place.undisturbed(*slow, name="two")
    for number in range(place.tries(2)):
        name = f"stopped{number}"
        process = processes.Process(place.train(*slow, name=name), cwd=place.folder)
        _stop_for(place, name, process)
        done = subprocess.CompletedProcess([], process.wait(200), "", "")
        yield judged(place, name, expected, done)


def _stop_for(place: Place, name: str, process: processes.Process) -> None:
    """Stop one of a run's processes, once it trains, for three seconds."""
    import psutil

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        run = place.found(name)
        if run is not None and run.metrics.exists() and run.metrics.stat().st_size:
            break
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    chosen = place.rng.choice(family or [psutil.Process(process.pid)])
    with suppress(psutil.NoSuchProcess):
        chosen.suspend()
        time.sleep(3)
        chosen.resume()


def stopped_drivers(place: Place) -> Iterator[str]:
    """A sweep's driver is stopped for some seconds, and goes on; nothing is done twice."""
    for number in range(place.tries(1)):
        name = f"driven{number}"
        arguments = [*place.train(*SLOW, name=name), "-m", "seed=1,2", "hydra.launcher.slots=2"]
        process = processes.Process(arguments, cwd=place.folder)
        time.sleep(place.rng.uniform(3, 6))
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(4)
            os.kill(process.pid, signal.SIGCONT)
        code = process.wait(200)
        states = [
            Run(path.parent).state
            for path in (place.folder / "outputs/sweeps" / name).glob("*/config.yaml")
        ]
        yield "same" if code == 0 and states == ["completed"] * 2 else "lost"


def clocks_that_jump(place: Place) -> Iterator[str]:
    """The clock goes back by 400 days while a run trains."""
    slow = place.undisturbed()
    for number in range(place.tries(2)):
        name = f"clock{number}"
        fault = [SLOW[0], "callbacks.fault.how=clock"]
        yield judged(place, name, slow, place.run(place.train(*fault, name=name)))


def launches_at_once(place: Place) -> Iterator[str]:
    """The same command, many times in one second: one of them trains."""
    expected = place.undisturbed()
    pipe = subprocess.PIPE
    started = [
        processes.Process(place.train(name="crowd"), cwd=place.folder, stdout=pipe, stderr=pipe)
        for _ in range(place.tries(50))
    ]
    codes = []
    for process in started:
        out, err = process.communicate(900)
        codes.append((process.wait(), clean(out + err)))
    folders = list((place.folder / "outputs/crowd").glob("*/config.yaml"))
    run = place.found("crowd")
    whole = len(folders) == 1 and run is not None and figures(run) == expected
    yield "same" if whole and [code for code, _ in codes].count(0) == 1 else "lost"
    for code, said in codes:
        if code:
            yield "told" if code == 2 and said else "crashed"


# -- Weights & Biases -----------------------------------------------------------------------------


def wandb_that_fails(place: Place) -> Iterator[str]:
    """W&B's server is not there, or takes connections and answers nothing."""
    expected = place.undisturbed()
    with socket.create_server(("127.0.0.1", 0)) as server:
        for port in (9, server.getsockname()[1]):
            name = f"wandb{port == 9}"
            env = {
                **{k: v for k, v in os.environ.items() if k != "WANDB_MODE"},
                "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
                "WANDB_API_KEY": "0" * 40,
            }
            logged = ["logger=wandb", "logger.mode=online"]
            asked = [word for word in place.train(*logged, name=name) if word != "logger=none"]
            yield judged(place, name, expected, place.run(asked, env=env))


# -- attacks --------------------------------------------------------------------------------------

EVIL = "open('ran', 'w')\nclass Evil: pass\n"
HOSTILE = [
    "optimizer._target_=os.system",
    "optimizer._target_=subprocess.run",
    "optimizer._target_=builtins.eval",
    "optimizer._target_=builtins.exec",
    "optimizer._target_=pickle.loads",
    "optimizer._target_=torch.load",
    "optimizer._target_=torch.hub.load",
    "optimizer._target_=torch.os.system",
    "optimizer._target_=torch.utils.cpp_extension.load",
    "optimizer._target_=transformers.pipeline",
    "optimizer._target_=transformers.AutoModel.from_pretrained",
    "optimizer._target_=hydra.utils.instantiate",
    "optimizer._target_=hydra.utils.get_method",
    "optimizer._target_=functools.partial",
    "optimizer._target_=importlib.import_module",
    "optimizer._target_=yaml.unsafe_load",
    "optimizer._target_=numpy.load",
    "optimizer._target_=truesweep.jobs.launch.launch",
    "optimizer._target_=truesweep.config.roots.Path",
    "optimizer._target_=evil.Evil",
    "allowed_packages=[os] optimizer._target_=os.system",
    "allowed_packages=[subprocess] optimizer._target_=subprocess.Popen",
    "optimizer._target_=torch.optim.AdamW optimizer._recursive_=true "
    "optimizer.betas={_target_:os.system,command:'touch ran'}",
    "model.config={x:{_target_:subprocess.run,args:'touch ran'}}",
    'seed=${eval:\'__import__("os").system("touch ran")\'}',
    "seed=${eval:'().__class__.__bases__[0].__subclasses__()'}",
    "seed=${eval:'9**9**9**9'}",
    "seed=${python:os.system}",
    "name=../../../ran",
    "experiment=../../../../etc/passwd",
]


def hostile_wishes(place: Place) -> Iterator[str]:
    """Targets, aliases, recursion and interpolations that would run something."""
    (place.folder / "evil.py").write_text(EVIL)
    for line in HOSTILE:
        met = call("train", "--dry-run", *place.asked, *SMALL, *shlex.split(line))
        ran = (place.folder / "ran").exists() or (place.folder.parent / "ran").exists()
        (place.folder / "ran").unlink(missing_ok=True)
        yield "silent" if ran or met.how == "done" else met.how.replace("refused", "told")


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def hostile_checkpoints(place: Place) -> Iterator[str]:
    """Pickles and code that come with a checkpoint, its tokenizer or its settings."""
    place.undisturbed()
    source = place.found("undisturbed")
    assert source is not None
    run = shutil.copytree(source.path, place.folder / "hostile")
    exported = place.folder / "folder"
    call("export", str(source.path), str(exported))
    code = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": "evil"}

    def attacks() -> Iterator[tuple[Path, dict[Path, bytes | None]]]:
        best = run / "checkpoints" / "best.ckpt"
        for poison in (pickle.dumps(_Evil()), _saved({"state_dict": _Evil()})):
            digest = f"{hashlib.sha256(poison).hexdigest()}  {best.name}\n".encode()
            yield run, {best: poison, checksum_path(best): digest}
        weights = exported / "model.safetensors"
        yield exported, {weights: None, exported / "pytorch_model.bin": pickle.dumps(_Evil())}
        for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
            known = json.loads((exported / name).read_text())
            for more in (
                {"auto_map": code, "model_type": "evil"},
                {"custom_generate": "evil", "trust_remote_code": True},
                {"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
            ):
                yield exported, {exported / name: json.dumps({**known, **more}).encode()}

    whole = {path: _contents(path) for path in (run, exported)}
    (exported / "evil.py").write_text(EVIL)
    for path, files in attacks():
        for file, content in files.items():
            file.unlink() if content is None else file.write_bytes(content)
        met = call("generate", str(path), "--prompt", "red", "--max-new-tokens", "2")
        ran = any((folder / "ran").exists() for folder in (place.folder, path))
        yield "silent" if ran else {"done": "same", "refused": "told"}.get(met.how, met.how)
        for file in files:
            file.unlink(missing_ok=True)
        for file, content in whole[path].items():
            file.write_bytes(content)


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def secrets_anywhere(place: Place) -> Iterator[str]:
    """A secret from the environment, the command line and a file, in every byte that is written."""
    canaries = {where: f"canary{place.rng.randrange(10**12)}" for where in ("env", "line", "file")}
    (place.folder / "own" / "experiment").mkdir(parents=True, exist_ok=True)
    (place.folder / "own" / "experiment" / "secret.yaml").write_text(
        "# @package _global_\ncallbacks:\n  keyed:\n    _target_: faults.Keyed\n"
        f"    api_key: {canaries['file']}\n"
    )
    keyed = "+callbacks.keyed._target_=faults.Keyed"
    given = {
        "env": [keyed, "callbacks.keyed.api_key=${oc.env:MY_TOKEN}"],
        "line": [keyed, f"callbacks.keyed.api_key={canaries['line']}"],
        "file": ["--config-dir", "own", "experiment=secret"],
    }
    env = {**os.environ, "MY_TOKEN": canaries["env"]}
    for where, more in given.items():
        for sweep in ([], ["-m", "seed=1,2"]):
            name = f"secret{where}{len(sweep)}"
            asked = [w for w in place.train(*more, *sweep, name=name) if w != "logger=none"]
            done = place.run(asked, env=env)
            outputs = place.folder / "outputs"
            written = (
                b"".join(file.read_bytes() for file in outputs.rglob("*") if file.is_file())
                + (done.stdout + done.stderr).encode()
            )
            if done.returncode:
                print(done.stderr[-800:], file=sys.stderr)
            found = canaries[where].encode() in written
            yield "silent" if found else "same" if done.returncode == 0 else "crashed"


SUITE: dict[str, tuple[str, Measure]] = {
    "checkpoints": ("a process is killed while it writes a checkpoint", kills_on_disk),
    "checkpoints-tmpfs": ("the same, on another file system (tmpfs)", kills_in_memory),
    "kills": ("a run is killed at any moment, and resumed", kills_of_runs),
    "deaths": ("a run dies up to 7 times: at writes, in steps, validations and resumes", deaths),
    "goodput": ("a run is killed every 60 s, and resumed", goodput),
    "damage": ("a file of a run: flipped bit, cut, empty, overwritten, other types", damaged_runs),
    "limit": ("no file may grow beyond a limit", files_that_may_not_grow),
    "full": ("a full disk, which later has room", full_disks),
    "read-only": ("a read-only disk, at each command that writes", read_only_disks),
    "nan": (
        "NaN or a spike on one of two ranks, before or after the gradients are exchanged",
        numbers_that_are_none,
    ),
    "stopped-rank": ("a rank that is stopped for a while", stopped_ranks),
    "stopped-driver": ("a driver that is stopped for a while", stopped_drivers),
    "clock": ("a clock that goes back by 400 days", clocks_that_jump),
    "launches": ("the same command many times in one second", launches_at_once),
    "wandb": ("W&B's server is dead, or stalls", wandb_that_fails),
    "targets": ("hostile targets, aliases, recursion, interpolations", hostile_wishes),
    "hostile": ("hostile checkpoints, tokenizers and settings", hostile_checkpoints),
    "secrets": ("a secret, looked for in every byte", secrets_anywhere),
}
NEED_MOUNTS = ("full", "read-only")


def row(name: str, counted: Counter[str]) -> str:
    """A line of the table."""
    cells = [str(counted[way] or "·") for way in WAYS]
    note = NOTES.get(name, "")
    return f"| {SUITE[name][0]}{f' ({note})' if note else ''} | {' | '.join(cells)} |"


def measure(names: Sequence[str], scale: float, seed: int) -> Iterator[tuple[str, Counter[str]]]:
    """Try each fault; how its tries ended."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["TRUESWEEP_CACHE"] = str(folder / "cache")
        place = Place(folder, scale, random.Random(seed), write_data(folder)["lm"])
        (folder / "faults.py").write_text(FAULTS)
        os.environ["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
        sys.path.insert(0, str(folder))
        os.chdir(folder)
        try:
            for name in names:
                if name in NEED_MOUNTS and not can_mount():
                    print(f"{name}: left out, as nothing can be mounted here", file=sys.stderr)
                    continue
                yield name, Counter(SUITE[name][1](place))
        finally:
            os.chdir(before)
            sys.path.remove(str(folder))


def main() -> None:
    """Print the table as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SUITE), help=f"of {', '.join(SUITE)}")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a Markdown file whose table is replaced")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", TRANSFORMERS_VERBOSITY="error")
    torch.set_num_threads(1)
    lines = [f"| fault | {' | '.join(WAYS)} |", f"|---|{'--:|' * len(WAYS)}"]
    print("\n".join(lines), flush=True)
    for name, counted in measure(asked.only.split(","), asked.scale, asked.seed):
        lines.append(row(name, counted))
        print(lines[-1], flush=True)
    if asked.write:
        text = asked.write.read_text(encoding="utf-8")
        before, _, rest = text.partition("| fault |")
        after = rest.partition("\n\n")[2]
        asked.write.write_text(before + "\n".join(lines) + "\n\n" + after, encoding="utf-8")


if __name__ == "__main__":
    main()
