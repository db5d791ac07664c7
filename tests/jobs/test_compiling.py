"""Whether something can be compiled, and code that was compiled and kept."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator
from torch._inductor import config as inductor
from torch.compiler import config

from tests.commands.conftest import data
from truesweep.errors import ConfigError
from truesweep.jobs import compiling
from truesweep.jobs.compiling import Choice, choose, keep_code_by_vectors
from truesweep.jobs.trainer import TrainerSettings

__all__ = ["data"]

SCRIPT = """
import torch
from truesweep.jobs.compiling import compile_model
from torch._dynamo.utils import counters


class Model(torch.nn.Module):
    def forward(self, x):
        return (2 * x.sin()).softmax(-1)


torch.set_num_threads(1)
x = torch.linspace(-3, 3, 5 * 999).view(5, 999)
model = Model()
expected = model(x)
compile_model(model, True)
found = model(x)
difference = (found - expected).abs().max() / expected.max()
assert counters["stats"]["unique_graphs"] == 1
print(torch.backends.cpu.get_cpu_capability(), counters["inductor"]["fxgraph_cache_hit"])
print(difference.item() < 1e-6)
"""


def run(vectors: str, cache: Path) -> list[str]:
    """Compile as with certain vectors; says with which, if kept code was taken, if it is right."""
    settings = {"ATEN_CPU_CAPABILITY": vectors, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="needs a processor with AVX2")
def test_code_is_not_taken_from_a_processor_with_other_vectors(tmp_path: Path) -> None:
    assert run("avx2", tmp_path) == ["AVX2", "0", "True"]
    assert run("default", tmp_path) == ["DEFAULT", "0", "True"]


def test_the_users_own_tag_of_compiled_code_is_kept() -> None:
    vectors = torch.backends.cpu.get_cpu_capability()
    with config.patch(cache_key_tag="mine"):  # type: ignore[attr-defined]
        for _ in range(2):
            keep_code_by_vectors()
            assert config.cache_key_tag == f"mine {vectors}"


HEADER = "x.cpp:1:10: fatal error: Python.h: No such file or directory"
BROKEN = {
    "is missing": (None, "there is no {language} compiler ({path})"),
    "has no version": (
        "#!/bin/sh\necho something is off >&2\nexit 1",
        "{path} does not work (it does not say its version)",
    ),
    "has no headers": (
        "#!/bin/sh\n[ $# = 1 ] && exec echo 12.2.0\n"
        f"echo '{HEADER}' >&2\necho 'compilation terminated.' >&2\nexit 1",
        f"{{path}} does not work ({HEADER})",
    ),
    "makes nothing": ("#!/bin/sh\necho 12.2.0", "{path} does not work ("),
    "makes no library": (
        "#!/bin/sh\necho 12.2.0\nwhile [ $# -gt 1 ]; do\n"
        "    [ $1 = -o ] && echo nonsense > $2\n    shift\ndone",
        "{path} does not work (",
    ),
    "says nothing": ("#!/bin/sh", "{path} does not work ("),
}
"""By what is wrong with a compiler: its script, and what is said of it."""


def broken(how: str, folder: Path, language: str) -> tuple[str, str]:
    """Where a broken compiler lies, and what is said of it."""
    text, problem = BROKEN[how]
    path = folder / "compiler"
    if text is not None:
        path.write_text(text)
        path.chmod(0o755)
    return str(path), problem.format(path=path, language=language)


@pytest.fixture
def anew() -> Iterator[None]:
    """Nothing that was found out about this machine's compilers is remembered."""
    cached = (compiling.no_cpu_compiler, compiling.no_gpu_compiler)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU and Triton, as far as a plan looks; where its compilers are."""
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    (tmp_path / "packages/triton").mkdir(parents=True)
    (tmp_path / "packages/triton/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


@pytest.mark.usefixtures("compiler", "anew")
def test_what_torch_and_triton_need_can_be_compiled() -> None:
    assert compiling.no_cpu_compiler() is None


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("how", BROKEN)
def test_a_compiler_for_the_cpu_that_cannot_be_used(how: str, tmp_path: Path) -> None:
    path, problem = broken(how, tmp_path, "C++")
    with (
        inductor.patch({"cpp.cxx": (None, path)}),  # what CXX sets, when torch is imported
        pytest.raises(ConfigError) as raised,
    ):
        choose(TrainerSettings(accelerator="cpu", compile="layers"))
    assert str(raised.value).startswith(f"trainer.compile=layers: {problem}")
    assert str(raised.value).endswith(
        ". Install g++ and Python's headers (or name a compiler in CXX), or set "
        "trainer.compile=false"
    )


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("how", [how for how in BROKEN if how != "has no version"])
def test_a_compiler_for_the_gpu_that_cannot_be_used(
    how: str, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, problem = broken(how, gpu, "C")
    monkeypatch.setenv("CC", path)
    choice = choose(TrainerSettings())
    assert choice.how is False
    assert choice.note.startswith(f"Not compiled, as it would be on a GPU by default: {problem}")
    remedy = ". Install gcc and Python's headers (or name a compiler in CC)"
    assert choice.note.endswith(remedy)
    with pytest.raises(ConfigError, match=f"{re.escape(remedy)}, or set trainer.compile=false"):
        choose(TrainerSettings(compile=True))


@pytest.mark.usefixtures("anew", "compiler")
def test_with_a_compiler_a_gpu_compiles_by_default(gpu: Path) -> None:
    assert choose(TrainerSettings()) == Choice(True)
    assert choose(TrainerSettings(compile="layers")) == Choice("layers")
    assert choose(TrainerSettings(compile=False)) == Choice(False)
    assert choose(TrainerSettings(accelerator="cpu")) == Choice(False)


@pytest.mark.usefixtures("anew")
def test_without_compilers_in_the_path_a_gpu_does_not_compile(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(gpu))
    how, note = choose(TrainerSettings())
    assert how is False
    assert "there is no C compiler (gcc or clang). Install gcc" in note


@pytest.mark.usefixtures("anew")
def test_without_triton_a_gpu_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(compiling, "find_spec", lambda _: None)
    note = choose(TrainerSettings()).note
    assert note.endswith("Triton is not installed. Type pip install triton")


@pytest.mark.usefixtures("anew", "compiler")
def test_a_rank_looks_at_its_gpu_too(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    assert "capability is 6.1, and Triton needs 7.0" in choose(TrainerSettings(), True).note
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert choose(TrainerSettings(), True) == Choice(True)


def test_what_is_not_compiled_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "no_cpu_compiler", None)
    for how in ("auto", False):
        assert choose(TrainerSettings(accelerator="cpu", compile=how)) == Choice(False)
