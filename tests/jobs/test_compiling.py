"""Whether something can be compiled, and code that was compiled and kept."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator
from torch._inductor import config as inductor
from torch.compiler import config

from tests.commands.conftest import SMALL, data, write_data
from tests.tasks.test_step import fit, parts_of
from truesweep.errors import ConfigError
from truesweep.jobs import compiling
from truesweep.jobs.compiling import Choice, choose, compile_model, keep_code_by_vectors
from truesweep.jobs.plan import plan
from truesweep.jobs.trainer import TrainerSettings
from truesweep.tasks import Task

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
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "capability is 6.1, and Triton needs 7.0" in choose(TrainerSettings(), True).note
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose(TrainerSettings(), True) == Choice(True)


@pytest.mark.usefixtures("anew", "compiler")
@pytest.mark.parametrize(("devices", "number"), [(2, 1), ([5, 3], 3)])
def test_a_rank_looks_at_the_gpu_that_it_trains_on(
    devices: Any, number: int, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def capability(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 9, 0

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    assert choose(TrainerSettings(devices=devices), True) == Choice(True)
    assert asked == [torch.device("cuda", number)]


def test_what_is_not_compiled_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "no_cpu_compiler", None)
    for how in ("auto", False):
        assert choose(TrainerSettings(accelerator="cpu", compile=how)) == Choice(False)


GRAPHS = "trainer.compile=graphs"
ONE_GPU = [GRAPHS, "trainer.accelerator=gpu", "trainer.devices=1", "model=gpt2", "model.dropout=0"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["trainer.accelerator=cpu"], "CUDA graphs are a GPU's. Set trainer.accelerator=gpu"),
        (["trainer.devices=2"], "it records what one device does. Set trainer.devices=1"),
        (["data.packing=false"], "each width would be another graph. Set data.packing=true"),
        (["data.packing=documents"], "each width would be another graph. Set data.packing=true"),
        (["model.dropout=0.1"], "comes from outside of a graph. Set model.dropout=0"),
        (["model.activation_checkpointing=true"], "Set model.activation_checkpointing=false"),
        (["model=llama"], "of llama have a gradient differs from step to step"),
        ([], None),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_graphs_are_refused_where_not_every_step_is_the_same(
    asked: list[str], said: str | None, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "no_gpu_compiler", lambda: None)
    monkeypatch.setattr(
        compiling, "is_reached_at_times", lambda model: model.config.model_type == "llama"
    )
    named = [*write_data(workplace)["lm"], *SMALL, *ONE_GPU, *asked]
    if said is None:
        assert plan(named).config["trainer"]["compile"] == "graphs"
        return
    with pytest.raises(ConfigError) as raised:
        plan(named)
    message = str(raised.value)
    assert message.startswith("trainer.compile=graphs: ")
    assert said in message
    assert message.endswith(", or set trainer.compile=auto")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """Has torch compile nothing, but trace what it would; all that it has traced."""
    torch._dynamo.reset()
    found: list[torch.fx.GraphModule] = []
    original = torch.compile

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward

    def compile_(function: Any, *, mode: str | None = None, **options: Any) -> Any:
        return original(function, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", compile_)
    yield found
    torch._dynamo.reset()


def test_what_graphs_are_recorded_of_learns_the_same(
    workplace: Path, traced: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients stay where they are, evaluations are not recorded, and one width is one graph."""
    asked = ["optimizer=adamw", "model=gpt2", "model.dropout=0", "data.micro_batch_size=32"]
    plain = parts_of("lm", workplace, *asked)
    expected = fit(plain, workplace)
    parts = parts_of("lm", workplace, *asked)
    names = parts.task.model.state_dict().keys()
    compile_model(parts.task.model, "graphs")
    parts.task.compiled = "graphs"
    places: list[list[int]] = []
    clip = Task._clip

    def watched(task: Task) -> torch.Tensor:
        places.append([w.grad.data_ptr() for w in task._weights if w.grad is not None])
        return clip(task)

    monkeypatch.setattr(Task, "_clip", watched)
    found = fit(parts, workplace)
    assert names == parts.task.model.state_dict().keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(places) == 5
    assert all(at == places[0] for at in places)
    assert len(traced) == 2, "one is of the last window, which is shorter, with what pads it"
    parts.task.model.eval()
    with torch.no_grad():
        for width in (3, 5, 9):
            parts.task.model(input_ids=torch.ones(1, width, dtype=torch.long))
    assert len(traced) == 2


def test_a_model_that_drops_nothing_is_compiled_once(
    workplace: Path, traced: list[torch.fx.GraphModule]
) -> None:
    """Not with what draws masks, and then without it."""
    asked = ["model=gpt2", "model.dropout=0", "data.micro_batch_size=32", "trainer.max_steps=2"]
    parts = parts_of("lm", workplace, *asked)
    compile_model(parts.task.model, True)
    parts.task.compiled = True
    fit(parts, workplace)
    assert len(traced) == 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_learn_what_a_gpu_learns_without_them(workplace: Path) -> None:
    """Of several micro-batches a step, whose gradients a graph would overwrite."""
    asked = ["optimizer=adamw", *ONE_GPU, "data.micro_batch_size=16", "trainer.max_steps=20"]
    plain = fit(parts_of("lm", workplace, *asked, "trainer.compile=false"), workplace)
    parts = parts_of("lm", workplace, *asked)
    assert parts.task.compiled == "graphs"
    found = fit(parts, workplace)
    for name, weight in plain.items():
        assert torch.allclose(found[name], weight, rtol=1e-3, atol=1e-4), name
