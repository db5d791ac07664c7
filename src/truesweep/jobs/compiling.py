"""Whether a model is compiled, what there has to be for that, and how it is done."""

import ctypes
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.compiler import config as compiler_config
from transformers import PreTrainedModel

from truesweep.compat import build_cpp, compiled_code, cpp_compilers
from truesweep.data import Source
from truesweep.data.prepare import Prepared
from truesweep.errors import ConfigError, telling_line
from truesweep.jobs.trainer import Compile, TrainerSettings
from truesweep.models import drops, recomputes_layers
from truesweep.models.freezing import is_reached_at_times

ON_GPU: Compile = True
"""What `auto` takes on a GPU; on anything else it takes nothing."""
CAPABILITY = (7, 0)
"""The oldest GPU that Triton compiles for."""
CODE = """
#include <Python.h>
#ifdef __cplusplus
extern "C"
#endif
int answer(void) { return 42; }
"""
"""Compiled to see whether anything can be; generated code includes the header as well."""


class Choice(NamedTuple):
    """How a model is compiled on this machine.

    Args:
        how: As `trainer.compile` has it, without `auto`.
        note: Why `auto` does without; empty where it need not.
    """

    how: Compile
    note: str = ""


def choose(
    trainer: TrainerSettings, in_rank: bool = False, model: PreTrainedModel | None = None
) -> Choice:
    """Settle how a model is compiled on this machine, before it is.

    Args:
        trainer: What was asked for.
        in_rank: Whether this process may use the GPU. One that plans may not: others are still to
            be forked from it.
        model: The model, with or without memory for its weights, where it is known.

    Raises:
        ConfigError: It was asked for by name, and cannot be had.
    """
    on_gpu, asked = trainer.is_gpu(), trainer.compile
    how = asked if asked != "auto" else ON_GPU if on_gpu else False
    problem = None
    if how and on_gpu:
        problem = no_gpu_compiler() or (too_old(trainer.device()) if in_rank else None)
    elif how and trainer.is_cpu():
        problem = no_cpu_compiler()
    if how and model is not None and recomputes_layers(model) and drops(model):
        problem = (
            "layers that are compiled cannot draw their dropout's masks a second time. Set "
            "model.activation_checkpointing=false or the dropout to 0"
        )
    if problem is None:
        return Choice(how)
    if asked == "auto":
        return Choice(False, f"Not compiled, as it would be on a GPU by default: {problem}")
    shown = str(asked).lower()
    raise ConfigError(f"trainer.compile={shown}: {problem}, or set trainer.compile=false")


@cache
def no_cpu_compiler() -> str | None:
    """Why torch cannot compile for the CPU here, and the remedy; None: it can."""
    remedy = "Install g++ and Python's headers (or name a compiler in CXX)"
    return _problem("C++", build_cpp, cpp_compilers(), remedy)


@cache
def no_gpu_compiler() -> str | None:
    """Why torch cannot compile for a GPU here, and the remedy; None: it can.

    Triton writes the code that starts its kernels in C.
    """
    if find_spec("triton") is None:
        return "Triton is not installed. Type pip install triton"
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    remedy = "Install gcc and Python's headers (or name a compiler in CC)"
    return _problem("C", _build_c, names, remedy)


def too_old(device: torch.device) -> str | None:
    """Why Triton cannot compile for a GPU; None: it can."""
    found = torch.cuda.get_device_capability(device)
    if found >= CAPABILITY:
        return None
    have, need = (".".join(map(str, version)) for version in (found, CAPABILITY))
    return f"its compute capability is {have}, and Triton needs {need}. Use another GPU"


def _problem(
    language: str, build: Callable[[Path], Path], names: list[str], remedy: str
) -> str | None:
    """What comes of building a library where compiled code is kept, and calling it."""
    try:
        with TemporaryDirectory(dir=compiled_code()) as folder:
            source = Path(folder) / ("answer.cpp" if language == "C++" else "answer.c")
            source.write_text(CODE, encoding="utf-8")
            ctypes.CDLL(str(build(source))).answer()
    except Exception as error:  # torch also stumbles over what strange compilers say
        found = [name for name in names if shutil.which(name)]
        if not found:
            return f"there is no {language} compiler ({' or '.join(names)}). {remedy}"
        return f"{found[0]} does not work ({telling_line(str(error))}). {remedy}"
    return None


def _build_c(source: Path) -> Path:
    """Compile a file of C as Triton does; the library, beside it."""
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise FileNotFoundError("gcc")
    library = source.with_suffix(".so")
    include = sysconfig.get_path("include")
    command = [found, str(source), "-O3", "-shared", "-fPIC", f"-I{include}", "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr or f"it ends with exit code {done.returncode}")
    return library


def compile_model(model: nn.Module, how: Compile) -> None:
    """Compile in place, so that checkpoints have the same keys as without."""
    if how:
        keep_code_by_vectors()
    if how is True:
        model.compile()
    elif how == "graphs":
        _graph(model)
    elif how == "layers":
        for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList)):
            for layer in layers:
                layer.compile()


def _graph(model: nn.Module) -> None:
    """Compile what a training calls; an evaluation, whose batches are of many shapes, stays as is.

    A graph is recorded for each shape, and its results lie where they lay the last time. Nothing of
    the pass before is needed any more when the next begins, since gradients are summed elsewhere
    (`Training.compiled`).
    """
    plain = model.forward
    graphed = torch.compile(plain, mode="reduce-overhead", dynamic=False)

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        torch.compiler.cudagraph_mark_step_begin()
        return graphed(*args, **kwargs)

    model.forward = forward


def check_graphs(
    trainer: TrainerSettings, model: PreTrainedModel, source: Source, prepared: Prepared
) -> None:
    """Refuse `trainer.compile=graphs` where what a step launches is not the same each time.

    Raises:
        ConfigError: It is not.
    """
    if trainer.compile != "graphs":
        return
    rows_differ = source.packing is not True or prepared.train.padded
    problems = {
        "CUDA graphs are a GPU's. Set trainer.accelerator=gpu": not trainer.is_gpu(),
        "it records what one device does. Set trainer.devices=1": trainer.world_size > 1,
        "rows differ in width, and each width would be another graph. Set data.packing=true, which "
        "a language model may have": rows_differ,
        "what dropout draws comes from outside of a graph. Set model.dropout=0": drops(model),
        "layers that are computed twice record their graph within another. Set "
        "model.activation_checkpointing=false": recomputes_layers(model),
        f"which weights of {model.config.model_type} have a gradient differs from step to step. "
        "Name another architecture": is_reached_at_times(model),
    }
    if problem := next((said for said, applies in problems.items() if applies), None):
        raise ConfigError(f"trainer.compile=graphs: {problem}, or set trainer.compile=auto")


def keep_code_by_vectors() -> None:
    """Have torch find the code it has compiled before only where vectors are as long as then.

    By itself, torch 2.13 finds it by what it computes: code of a processor with AVX-512 is taken
    by one without, and computes half of each vector, silently.
    """
    vectors = torch.backends.cpu.get_cpu_capability()
    tags = compiler_config.cache_key_tag.split()  # the user's own are kept
    compiler_config.cache_key_tag = " ".join([*(t for t in tags if t != vectors), vectors])
