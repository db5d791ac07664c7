"""Products in eight bits: imitated here, by torchao, with the numbers that a GPU has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.commands.conftest import SMALL, values, write_data
from tests.tasks.test_step import fit, parts_of
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.plan import plan
from truesweep.models.fp8 import fitting_layers, train_in_fp8
from truesweep.runs.run import Run

Build = Callable[..., Any]
EMULATED = ["model=llama", "trainer.fp8=emulated"]


@pytest.fixture
def torchao() -> Any:
    return pytest.importorskip("torchao", reason="needs torchao (pip install 'truesweep[fp8]')")


def layers(model: nn.Module) -> list[str]:
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    return [name for name, kind in kinds.items() if kind == "Float8Linear"]


@pytest.mark.usefixtures("torchao")
def test_layers_but_the_output_compute_in_eight_bits_in_training_alone(build: Build) -> None:
    model, plain = (build("llama", "causal", init="default") for _ in range(2))
    names = list(model.state_dict())
    train_in_fp8(model, emulate=True)
    assert list(model.state_dict()) == names
    assert len(layers(model)) == 2 * 7
    assert type(model.lm_head) is nn.Linear
    ids = torch.arange(4, 12).view(1, 8)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    found, expected = model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.1


@pytest.mark.usefixtures("torchao")
def test_what_a_row_gives_and_gets_does_not_depend_on_the_others(build: Build) -> None:
    """With one scale for a tensor, a large number makes all the others coarse."""
    model = build("llama", "causal", init="default")
    train_in_fp8(model, emulate=True)
    layer = model.model.layers[0].mlp.up_proj
    torch.manual_seed(0)
    rows = torch.randn(8, layer.in_features)
    beside = torch.cat([rows, 1000 * rows[:1]])
    gave, got = [], []
    for batch in (rows, beside):
        given = batch.clone().requires_grad_()
        out = layer(given)
        out.backward(torch.ones_like(out) * batch.norm(dim=1, keepdim=True))
        gave.append(out[:8].detach())
        assert given.grad is not None
        got.append(given.grad[:8])
    assert torch.allclose(gave[0], gave[1], rtol=1e-5)
    assert torch.allclose(got[0], got[1], rtol=1e-5)


@pytest.mark.usefixtures("torchao")
def test_what_hangs_on_a_layer_stays(build: Build) -> None:
    """Dropout of architectures that have none hangs on what writes into the residual stream."""
    model = build("llama", "causal", dropout=0.3)
    hooked = [n for n, m in model.named_modules() if m._forward_hooks]
    train_in_fp8(model, emulate=True)
    assert hooked
    assert [n for n, m in model.named_modules() if m._forward_hooks] == hooked
    assert set(hooked) <= set(layers(model))


def test_models_without_such_layers_are_refused(build: Build) -> None:
    for model in (build("gpt2", "causal"), build("llama", "causal", width=24, feed_forward=40)):
        with pytest.raises(ConfigError, match=r"has no linear layers .* of a multiple of 16"):
            fitting_layers(model)


@pytest.mark.usefixtures("torchao")
def test_micro_batches_learn_the_same_up_to_rounding(workplace: Path) -> None:
    """Rounding to eight bits, where the last bit of a sum may decide."""
    asked = [*EMULATED, "model.dropout=0.1", "data.packing=false", "optimizer.lr=0.1"]
    whole, parted, other = (
        fit(parts_of("lm", workplace, *asked, *more), workplace)
        for more in (
            ["data.micro_batch_size=64"],
            ["data.micro_batch_size=9"],
            ["data.micro_batch_size=64", "trainer.fp8=false"],
        )
    )

    def apart(one: dict[str, torch.Tensor]) -> float:
        return float(sum((one[n] - whole[n]).norm() ** 2 for n in whole))

    assert apart(parted) < 0.01 * apart(other)


@pytest.mark.slow
@pytest.mark.usefixtures("torchao")
def test_a_run_is_resumed_evaluated_and_exported(workplace: Path) -> None:
    asked = [*write_data(workplace)["lm"], *SMALL, *EMULATED, "optimizer=adamw"]
    half = [*asked, "trainer.max_steps=6", "scheduler=constant"]
    assert train([*half, "name=half"], [], None, False) == 0
    assert train([*half, "trainer.max_steps=12", "name=whole"], [], None, False) == 0
    (one,), (other,) = ((workplace / "outputs" / n).iterdir() for n in ("half", "whole"))
    assert resume(one, ["trainer.max_steps=12"]) == 0
    assert values(one) == values(other)
    run = Run.open(other)
    assert run.read_config()["trainer"]["fp8"] == "emulated"
    assert evaluate([str(other)], "test", "best", []) == 0
    own, again = map(json.loads, (other / "evaluations.jsonl").read_text().splitlines())
    assert again["test/loss"] == own["test/loss"], "of weights as they are exported"
    assert export(other, workplace / "out", "best") == 0
    assert not layers(AutoModelForCausalLM.from_pretrained(workplace / "out"))


REFUSED = {
    "trainer.fp8=true: a processor has no such products; it takes 9.0": [],
    "a GPU of compute capability 8.0 has no such products": ["trainer.accelerator=gpu"],
    "trainer.fp8=true: stands beside products in bf16. Set trainer.precision=bf16-mixed": [
        "trainer.precision=32-true"
    ],
    "has not been tried with weights that ranks share": ["trainer.strategy=fsdp"],
    "trainer.fp8=true: is for models that are trained whole": ["adapter=lora"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_had_is_refused_before_anything_is_spent(
    said: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.jobs.trainer.require_torchao", lambda: None)
    monkeypatch.setattr("truesweep.jobs.trainer.capabilities", lambda: [8.0])
    asked = ["model=llama", "trainer.precision=bf16-mixed", "trainer.fp8=true", *REFUSED[said]]
    with pytest.raises(ConfigError) as raised:
        plan([*SMALL, *asked])
    assert said in str(raised.value)


def test_without_the_package_it_says_how_to_get_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.models.fp8.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs the package torchao; type pip install 'truesw"):
        plan([*SMALL, *EMULATED])


@pytest.mark.gpu
@pytest.mark.usefixtures("torchao")
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0),
    reason="needs a CUDA device with products in eight bits",
)
def test_a_gpu_has_the_numbers_that_are_imitated(build: Build) -> None:
    model, same = (build("llama", "causal", init="default", width=64, heads=4) for _ in range(2))
    for one, emulate in ((model, False), (same, True)):
        nn.Module.to(one, "cuda", torch.bfloat16)
        train_in_fp8(one, emulate=emulate)
    ids = torch.arange(4, 36, device="cuda").view(4, 8)
    found, expected = (one(input_ids=ids).logits.float() for one in (model, same))
    assert (found - expected).norm() / expected.norm() < 0.02
