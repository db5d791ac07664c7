"""What cannot be built here is refused before anything is spent."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.accelerators import CUDAAccelerator
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from tests.commands.conftest import SMALL, write_data
from truesweep import text
from truesweep.callbacks import EarlyStopping, Harness
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.names import default_name
from truesweep.jobs.parts import build_callbacks
from truesweep.jobs.plan import checked, plan
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run

CALLBACK = "callbacks.x._target_=pytorch_lightning"


def missing(package: str) -> pytest.MarkDecorator:
    there = find_spec(package) is not None
    return pytest.mark.skipif(there, reason=f"needs {package} not to be there")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(
            ["trainer.precision=transformer-engine"],
            "trainer.precision=transformer-engine: needs the package transformer_engine; type pip "
            "install transformer_engine",
            marks=missing("transformer_engine"),
        ),
        pytest.param(
            ["trainer.strategy=deepspeed", "trainer.devices=2"],
            "trainer.strategy=deepspeed: needs the package deepspeed; type pip install deepspeed",
            marks=missing("deepspeed"),
        ),
        pytest.param(
            ["trainer.accelerator=tpu"],
            "trainer.accelerator=tpu: needs the package torch_xla; type pip install torch_xla",
            marks=missing("torch_xla"),
        ),
        (["trainer.strategy=dp"], "no such strategy; did you mean ddp"),
        (["trainer.accelerator=cudda"], "no such accelerator; did you mean cuda?"),
        ([f"{CALLBACK}.callbacks.Timer", "callbacks.x.duration=soon"], "callbacks.x: .*Timer"),
        (
            [f"{CALLBACK}.loggers.CSVLogger", "callbacks.x.save_dir=a"],
            "callbacks.x: .*CSVLogger is no callback",
        ),
        (
            ["tokenizer._target_=torch.nn.Dropout"],
            "tokenizer: torch.nn.Dropout has no build and no identity, which a tokenizer needs",
        ),
        (["task=null", "task._target_=torch.nn.Dropout"], "task: torch.nn.Dropout is no task"),
        (
            ["optimizer=null", "optimizer._target_=torch.optim.SparseAdam"],
            "optimizer: torch.optim.SparseAdam cannot make a step: .*dense gradients.*Set another",
        ),
        pytest.param(
            ["model.attention=flex_attention", "trainer.accelerator=cpu"],
            r"flex_attention: has no backward pass on a CPU\. Set model.attention=sdpa",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
        (["logger=wandb", "logger.project=a/b"], "logger.project.*'a/b' is no name that W&B takes"),
        (["model=gpt2", "model.config={n_positions:8}"], "n_positions=8 is too few positions for"),
    ],
)
def test_what_cannot_be_built_is_refused(workplace: Path, asked: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan([*write_data(workplace)["lm"], *SMALL, *asked])
    assert not (workplace / "outputs").exists()


def test_no_logger_is_no_logger_however_it_is_said(workplace: Path) -> None:
    data = write_data(workplace)
    none, null = (plan([*data["lm"], *SMALL, f"logger={said}"]) for said in ("none", "null"))
    assert (null.config["logger"], null.id) == (None, none.id)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs no CUDA device to be there")
def test_devices_that_are_not_here_are_told_by_the_plan_and_refused_by_the_start(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*write_data(workplace)["lm"], *SMALL, "trainer.accelerator=cuda", "trainer.devices=2"]
    assert train([*asked, "trainer.compile=false"], [], None, True) == 0
    said = "trainer.accelerator=cuda trainer.devices=2, but there are none here"
    assert said in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match=said):
        train([*asked, "trainer.compile=false"], [], None, False)
    assert not (workplace / "outputs").exists()


def test_devices_are_counted_where_they_are() -> None:
    def lacking(devices: Any) -> bool:
        return TrainerSettings(accelerator="cuda", devices=devices).lacking() is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
        patch.setattr(CUDAAccelerator, "auto_device_count", staticmethod(lambda: 2))
        assert [lacking(devices) for devices in (1, 2, 3, [1], [2], "auto")] == [
            *(False, False, True, False, True, False)
        ]
    assert TrainerSettings(accelerator="cpu", devices=64).lacking() is None


@pytest.mark.parametrize(
    ("bf16", "asked", "taken"),
    [
        ("AVX512-BF16", [], "bf16-mixed"),
        (None, [], "32-true"),
        (None, ["trainer.precision=bf16-mixed"], "bf16-mixed"),
    ],
)
def test_a_recipe_takes_the_precision_that_the_processor_has(
    bf16: str | None,
    asked: list[str],
    taken: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("truesweep.jobs.trainer.bf16_of_cpu", lambda: bf16)
    named = ["experiment=lm_char", *SMALL, *asked]
    planned = plan(named)
    assert planned.config["trainer"]["precision"] == planned.origin["precision"] == taken
    assert train(named, [], None, dry_run=True) == 0
    why = {"AVX512-BF16": "this processor has AVX512-BF16", None: "no bf16 of its own"}
    said = capsys.readouterr().out
    assert taken in said
    assert asked or why[bf16] in " ".join(said.split())


@pytest.mark.parametrize("asked", ["true", "layers"])
def test_compiled_layers_cannot_draw_their_dropout_twice(asked: str, workplace: Path) -> None:
    recomputed = [*SMALL, "model.activation_checkpointing=true", f"trainer.compile={asked}"]
    with pytest.raises(ConfigError, match="cannot draw their dropout's masks a second time"):
        plan([*recomputed, "model.dropout=0.1"])
    plan([*recomputed, "model.dropout=0"])


def test_an_architecture_whose_layers_cannot_be_computed_twice_says_so(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaPreTrainedModel, "supports_gradient_checkpointing", False)
    asked = [*SMALL, "model=llama", "model.activation_checkpointing=true"]
    with pytest.raises(ConfigError, match=r"cannot compute the layers of llama twice\. Set"):
        plan(asked)


AUTO = "model.activation_checkpointing=auto"


@pytest.mark.parametrize(
    ("there", "rows", "taken"),
    [(10**9, "null", False), (900_000, "null", True), (900_000, "1", False), (500_000, "1", True)],
)
def test_layers_are_computed_twice_where_the_memory_is_little(
    there: int,
    rows: str,
    taken: bool,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.5 MB of weights, gradients and states, and some 80 kB of activations a row, of eight."""
    monkeypatch.setattr("truesweep.jobs.trainer.memory", lambda: there)
    asked = [*write_data(workplace)["lm"], *SMALL, "name=x", f"data.micro_batch_size={rows}"]
    found = plan([*asked, AUTO])
    assert found.config["model"]["activation_checkpointing"] is taken
    same = plan([*asked, f"model.activation_checkpointing={taken}".lower()])
    assert found.id == same.id
    assert (found.id == plan(asked).id) is not taken
    assert found.twice.startswith("taken: " if taken else "not taken: ")
    assert found.origin["activation_checkpointing"] == found.twice
    assert "activation_checkpointing" not in same.origin
    assert train([*asked, AUTO], [], None, dry_run=True) == 0
    assert found.twice in " ".join(capsys.readouterr().out.split())


def test_where_layers_cannot_be_computed_twice_auto_leaves_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.jobs.trainer.memory", lambda: 1000)
    monkeypatch.setattr(LlamaPreTrainedModel, "supports_gradient_checkpointing", False)
    found = plan([*SMALL, "model=llama", AUTO])
    assert found.config["model"]["activation_checkpointing"] is False
    assert found.twice.startswith("not taken, as transformers cannot compute llama twice: ")


def test_without_a_gpu_to_ask_nothing_is_said_of_its_memory(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*SMALL, "trainer.accelerator=gpu", AUTO]
    with pytest.raises(ConfigError, match=r"is not known on this machine\. Set .*=true or false"):
        plan(asked)
    monkeypatch.setattr("truesweep.jobs.trainer.gpu_memory", lambda: [80 * 2**30, 24 * 2**30])
    assert "on a device of 25.8 GB" in plan(asked).twice


def test_a_run_goes_on_with_what_auto_was_where_it_began(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the memory is another now; and says so in its provenance."""
    asked = [*write_data(workplace)["lm"], *SMALL, "trainer.max_steps=2", "name=x"]
    assert train([*asked, AUTO], [], None, False) == 0
    monkeypatch.setattr("truesweep.jobs.trainer.memory", lambda: 1000)
    (path,) = (workplace / "outputs/x").iterdir()
    run = Run.open(path)
    assert run.read_provenance()["activation_checkpointing"].startswith("not taken: 8 rows keep ")
    assert resume(path, ["trainer.max_steps=4"]) == 0
    assert run.read_config()["model"]["activation_checkpointing"] is False
    assert resume(path, ["trainer.max_steps=6", AUTO]) == 0
    assert run.read_config()["model"]["activation_checkpointing"] is True


@pytest.mark.parametrize(
    ("found", "taken"), [([9.0], "bf16-mixed"), ([8.0, 7.5], "16-mixed"), ([], "bf16-mixed")]
)
def test_an_older_gpu_takes_fp16(
    found: list[float], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.jobs.trainer.capabilities", lambda: found)
    assert TrainerSettings(accelerator="gpu").native_precision()[0] == taken


@pytest.mark.parametrize(
    ("precision", "asked", "on_gpu", "chosen"),
    [
        ("bf16-mixed", "auto", True, "high"),
        ("32-true", "auto", True, "highest"),
        ("32-true", "high", True, "high"),
        ("bf16-mixed", "high", False, "highest"),  # on a CPU, some would be bf16
    ],
)
def test_a_gpu_takes_tf32_for_what_is_left_in_fp32(
    precision: Any, asked: Any, on_gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainerSettings, "is_gpu", lambda self: on_gpu)
    before = torch.get_float32_matmul_precision()
    try:
        TrainerSettings(precision=precision, matmul_precision=asked).set_matmul_precision()
        assert torch.get_float32_matmul_precision() == chosen
    finally:
        torch.set_float32_matmul_precision(before)


def test_auto_is_refused_like_any_precision_for_an_accelerator_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"trainer.accelerator=cpux: no such accelerator"):
        plan([*SMALL, "trainer.precision=auto", "trainer.accelerator=cpux"])


def test_what_no_gradient_reaches_is_said_and_not_given_to_the_optimizer(workplace: Path) -> None:
    named = ["model=auto", "model.architecture=longformer", "model.dropout=0"]
    planned = plan(["task=mlm", *write_data(workplace)["lm"][1:], *SMALL, *named])
    total, trained = planned.parameters.total, planned.parameters.trainable
    assert trained == total - 2 * 3 * (32 * 32 + 32)
    assert trained == sum(group["parameters"] for group in planned.groups)
    (said,) = planned.warnings
    assert said.startswith("no gradient reaches 12 tensors of longformer (longformer.encoder.")
    assert said.endswith(f" {text.count(trained)} of {text.count(total)} parameters are trained")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model.depth=3", "model.depth=4"], "lm_depth=4"),
        (["model.depth=3", "optimizer.lr=1", "+model.depth=4"], "lm_lr=1_depth=4"),
        (["model.depth=2", "~model.depth"], "lm"),
        (["seed=1", "model.depth=2", "model.width=8", "~model"], "lm_seed=1"),
        (["~model.depth", "model.depth=2"], "lm_depth=2"),
        # A mapping is merged with what stands before it.
        (["model=llama", "model={depth: 3}"], "lm_model=llama_model=-depth-3"),
        (["~tokenizer"], "lm_no-tokenizer"),
        (["model.depth=3", "task.depth=4"], "lm_depth=3_depth=4"),
    ],
)
def test_a_runs_name_tells_the_last_word_for_a_key(words: list[str], name: str) -> None:
    assert default_name({"task": "lm"}, words) == name


def test_an_experiment_called_like_a_folder_of_the_programs_own(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/evaluations.yaml").write_text("# @package _global_\nseed: 2\n")
    with pytest.raises(ConfigError, match="name=evaluations: outputs/evaluations holds"):
        plan(["experiment=evaluations"], [tmp_path])
    checked(["experiment=evaluations", "name=first"], [tmp_path])


class Later(Callback):
    """A callback of somebody's that begins its work by itself."""

    enabled = False


def test_callbacks_of_others_are_never_left_out(workplace: Path) -> None:
    later = [f"+callbacks.later._target_={__name__}.Later", "allowed_packages=[tests]"]
    built = build_callbacks(checked([*write_data(workplace)["lm"], *SMALL, *later]), 10)
    assert [type(one).__name__ for one in built].count("Later") == 1


def test_callbacks_that_are_off_are_left_out(workplace: Path) -> None:
    asked = [*write_data(workplace)["lm"], *SMALL]
    for more, is_on in (([], False), (["callbacks.early_stopping.patience=3"], True)):
        built = build_callbacks(checked([*asked, *more]), 10)
        assert [isinstance(one, EarlyStopping) for one in built].count(True) == is_on
        assert not [one for one in built if isinstance(one, Harness)]
