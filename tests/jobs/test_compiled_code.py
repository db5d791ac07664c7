"""Code that torch has compiled and kept, on processors with other vectors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.compiler import config

from truesweep.jobs.parts import keep_code_by_vectors

SCRIPT = """
import torch
from truesweep.jobs.parts import compile_model
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
