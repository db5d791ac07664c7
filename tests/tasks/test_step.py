"""The step is the same however it is split; what is not finite is refused."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from tests.commands.conftest import SMALL, write_data
from tests.rounding import FP64, SAME_NORM, assert_same_training
from truesweep.callbacks import StopAfter
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import Parts, build
from truesweep.jobs.plan import checked
from truesweep.metrics import likelihood
from truesweep.optim import takes_found_inf
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.tasks import DivergedError, Task
from truesweep.tasks.progress import Progress
from truesweep.tasks.training import seed_step

pytestmark = pytest.mark.numbers

SGD = ["optimizer=sgd", "optimizer.lr=0.3", "scheduler=constant", "scheduler.warmup=0"]
SGD += ["trainer.max_steps=5", "trainer.val_check_interval=100", "data.batch_size=64"]


def fit(parts: Parts, folder: Path) -> dict[str, torch.Tensor]:
    """Weights after a training without display and records."""
    trainer = parts.trainer.make(
        callbacks=[StopAfter(parts.recipe.total_steps)],
        loggers=[],
        checkpoint_io=CheckpointFiles(),
        directory=tempfile.mkdtemp(dir=folder),
    )
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    return {k: v.clone() for k, v in parts.task.state_dict().items()}


def parts_of(task: str, folder: Path, *overrides: str) -> Parts:
    named = write_data(folder)[task]
    config = checked([*named, *SMALL, *SGD, *overrides])
    return build(config)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lm", "translation", "classification"])
def test_micro_batches_do_not_change_the_result(task: str, workplace: Path) -> None:
    asked = [FP64, "data.packing=false"]  # lengths differ
    whole = fit(parts_of(task, workplace, *asked, "data.micro_batch_size=64"), workplace)
    for size in (16, 7, 1):
        parts = parts_of(task, workplace, *asked, f"data.micro_batch_size={size}")
        assert_same_training(fit(parts, workplace), whole)


@pytest.mark.parametrize("task", ["lm", "translation"])
def test_a_loss_through_the_output_layer_does_not_change_the_result(
    task: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [FP64, "data.packing=false", "model.dropout=0.1", "task.label_smoothing=0.1"]
    whole = fit(parts_of(task, workplace, *asked), workplace)
    monkeypatch.setattr(likelihood, "CPU_BLOCK", 1)
    parts = parts_of(task, workplace, *asked)
    assert_same_training(fit(parts, workplace), whole)
    assert parts.task.output_layer(next(iter(parts.data.train_dataloader()))) is not None


@pytest.mark.parametrize("compiled", [False, True, "layers"])
def test_the_loss_is_compiled_with_the_model(
    compiled: bool | str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [FP64, "task.label_smoothing=0.1", "trainer.max_steps=2"]
    plain = fit(parts_of("lm", workplace, *asked), workplace)
    seen: list[tuple[int, ...]] = []

    def step(part: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(tuple(part.shape))
        return likelihood._step(part, *rest)

    monkeypatch.setattr(likelihood, "CPU_BLOCK", 1)
    monkeypatch.setattr(likelihood, "_compiled_step", lambda: step)
    parts = parts_of("lm", workplace, *asked)
    parts.task.compiled = compiled
    assert_same_training(fit(parts, workplace), plain)
    assert bool(seen) == bool(compiled)


@pytest.mark.parametrize(
    ("task", "model"), [("lm", "gpt2"), ("lm", "llama"), ("translation", "t5")]
)
def test_layers_that_are_computed_twice_do_not_change_the_result(
    task: str, model: str, workplace: Path
) -> None:
    asked = [f"model={model}", "model.dropout=0.2", "data.micro_batch_size=24"]
    asked += ["trainer.max_steps=3", "optimizer=adamw", "optimizer.lr=0.01"]
    results, calls = [], []
    for repeated in ("false", "true"):
        parts = parts_of(task, workplace, *asked, f"model.activation_checkpointing={repeated}")
        named = parts.task.model.named_modules()
        layer = next(m for _, m in named if type(m).__name__.endswith(("Block", "DecoderLayer")))
        inner = next(m for m in layer.modules() if not list(m.children()))
        counted: list[nn.Module] = []
        inner.register_forward_pre_hook(lambda module, _, to=counted: to.append(module))
        results.append(fit(parts, workplace))
        calls.append(len(counted))
    once, twice = results
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert calls[1] == 2 * calls[0] > 0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_gradient_in_16_bits_is_clipped_at_its_own_size(
    optimizer: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused optimizers would divide it by the scale only afterwards."""
    norms = []
    for precision in ("32-true", "16-mixed"):
        parts = parts_of("lm", workplace, f"optimizer={optimizer}", "trainer.max_steps=2")
        make = parts.trainer.make

        def scaled(make: Any = make, precision: str = precision, **asked: Any) -> pl.Trainer:
            trainer: pl.Trainer = make(**asked)
            if precision == "16-mixed":  # Lightning has it for GPUs only
                scaler = torch.amp.GradScaler("cpu", init_scale=1024)
                trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
            return trainer

        monkeypatch.setattr(parts.trainer, "make", scaled)
        fit(parts, workplace)
        norms.append(parts.task.latest["grad_norm"])
    exact, halved = norms
    assert exact > 0
    assert halved == pytest.approx(exact, rel=0.02)


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Have a new model prefer some tokens: by itself it holds all to be alike."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)


@pytest.mark.parametrize("block", [likelihood.CPU_BLOCK, 1])
def test_the_loss_of_a_step_is_the_mean_over_all_its_targets(
    block: int, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without smoothing, so that it compares with that of a validation."""
    monkeypatch.setattr(likelihood, "CPU_BLOCK", block)
    asked = ["data.packing=false", "trainer.max_steps=1", "task.label_smoothing=0.1"]
    parts = parts_of("lm", workplace, *asked)
    stir(parts.task.model)
    rows: list[dict[str, Any]] = []
    # What a logger would be given, without one.
    parts.task.record = lambda values, step: rows.append(values)  # type: ignore[method-assign]
    (batch,) = [b for b, _ in zip(parts.data.train_dataloader(), range(1), strict=False)]
    with torch.inference_mode():
        logits = parts.task.model(
            input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")
        ).logits
        expected = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten()
        )
    fit(parts, workplace)
    assert rows[0]["train/loss"] == pytest.approx(float(expected), rel=1e-6)


def test_a_step_descends_the_mean_over_all_its_targets(workplace: Path) -> None:
    asked = [FP64, "data.packing=false", "data.micro_batch_size=7", "trainer.max_steps=1"]
    asked += ["optimizer.momentum=0", "trainer.gradient_clip_val=null"]
    parts = parts_of("lm", workplace, *asked)
    model = parts.task.model
    stir(model)
    model.double()
    batch = next(iter(parts.data.train_dataloader()))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    before = [weight.detach().clone() for weight in model.parameters()]
    fit(parts, workplace)
    for weight, was, slope in zip(model.parameters(), before, gradient, strict=True):
        difference = (was - weight) / 0.3 - slope
        assert slope.any()
        assert difference.norm() <= SAME_NORM * slope.norm()


def with_spoilt_steps(parts: Parts, spoilt: set[int]) -> list[dict[str, Any]]:
    """Have the losses of steps be no numbers; the rows that will be written."""
    original, calls = parts.task.loss, []
    rows: list[dict[str, Any]] = []
    # What a logger would be given, without one.
    parts.task.record = lambda values, step: rows.append(values)  # type: ignore[method-assign]

    def sometimes_nan(batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        loss, nll, count = original(batch)
        calls.append(1)
        factor = float("nan") if len(calls) in spoilt else 1.0
        return loss * factor, nll * factor, count

    parts.task.loss = sometimes_nan  # type: ignore[method-assign, assignment]
    return rows


def on_device(task: Task, optimizer: torch.optim.Optimizer) -> bool:
    """What `Training._skips_on_device` says where there is a GPU."""
    return takes_found_inf(optimizer)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_device_skips_the_steps_that_a_processor_would(
    optimizer: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [f"optimizer={optimizer}", "optimizer.weight_decay=0.1", "optimizer.lr=0.01"]
    found: list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = []
    for _ in range(2):  # the second time as on a GPU
        parts = parts_of("lm", workplace, "trainer.max_steps=7", *asked)
        rows = with_spoilt_steps(parts, {1, 3, 5, 6})
        weights = fit(parts, workplace)
        assert isinstance(parts.task.progress.skipped, torch.Tensor) == bool(found)
        assert all(row.pop("tokens_per_second") for row in rows)
        found.append((repr(rows), parts.task.progress.state_dict(parts.task.device), weights))
        monkeypatch.setattr("truesweep.tasks.training.Training._skips_on_device", on_device)
    (_, counts, weights), (_, _, on_gpu) = found
    assert found[0][:2] == found[1][:2]
    assert counts["skipped"] == 4
    assert all(torch.equal(weights[name], on_gpu[name]) for name in weights)


def test_a_device_that_only_skips_steps_ends_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of("lm", workplace, "trainer.max_steps=50", "optimizer=adamw")
    with_spoilt_steps(parts, set(range(4, 99)))
    monkeypatch.setattr("truesweep.tasks.training.Training._skips_on_device", on_device)
    with pytest.raises(DivergedError, match="11 steps in a row, up to step 14"):
        fit(parts, workplace)


def test_optimizers_that_a_device_cannot_have_skip_a_step_are_waited_for() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 2))]
    assert not takes_found_inf(torch.optim.Adagrad(weights, fused=True))
    for optimizer in (torch.optim.AdamW, torch.optim.SGD):
        assert not takes_found_inf(optimizer(weights))
        assert takes_found_inf(optimizer(weights, fused=True))


def test_a_step_without_finite_gradients_is_skipped_and_counted(workplace: Path) -> None:
    parts = parts_of("lm", workplace, "trainer.max_steps=6")
    rows = with_spoilt_steps(parts, {3, 5, 6})
    weights = fit(parts, workplace)
    assert parts.task.progress.skipped == 3
    assert all(torch.isfinite(w).all() for w in weights.values())
    # Rows of steps 1, 2, 3 and 4, 5 and 6: a mean leaves out what is not a number.
    assert [math.isfinite(row["train/loss"]) for row in rows] == [True, True, True, False]
    assert [row.get("skipped_steps") for row in rows] == [None, None, 1, 3]


def test_a_row_says_what_share_of_the_devices_operations_is_made_use_of() -> None:
    progress = Progress()
    progress.flops_per_target, progress.peak_flops = 6e6, 1e12
    progress.add(torch.tensor(100.0), torch.tensor(50))
    row = progress.take_row(0.1, torch.device("cpu"))
    assert row["flops_per_second"] == pytest.approx(6e6 * row["tokens_per_second"])
    assert row["mfu"] == pytest.approx(row["flops_per_second"] / 1e12)


def test_gradients_that_stay_infinite_end_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of("lm", workplace, "trainer.max_steps=50")
    original = parts.task.loss

    def infinite(batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        loss, nll, count = original(batch)
        return loss * float("inf"), nll, count

    monkeypatch.setattr(parts.task, "loss", infinite)
    with pytest.raises(DivergedError, match="10 steps in a row"):
        fit(parts, workplace)


def test_the_learning_rate_follows_the_schedule_at_every_step(workplace: Path) -> None:
    overrides = ["scheduler=linear", "scheduler.warmup=4", "trainer.log_every_n_steps=1"]
    parts = parts_of("lm", workplace, *overrides, "trainer.max_steps=10", "optimizer.lr=0.2")
    rates: list[float] = []

    def record(values: dict[str, float], step: int) -> None:
        rates.extend([values["lr"]] if "lr" in values else [])

    parts.task.record = record  # type: ignore[method-assign]
    fit(parts, workplace)
    schedule = parts.recipe.schedule
    assert rates == pytest.approx([0.2 * schedule.factor(s, 10) for s in range(10)])
    assert rates[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("step", [0, 1, 63, 64, 1000])
def test_what_is_drawn_in_a_step_follows_from_seed_rank_and_step(step: int) -> None:
    seed_step(3, 1, step, torch.device("cpu"))
    drawn = torch.rand(2)
    own = np.random.SeedSequence((3, 1, step)).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(own))
    assert torch.equal(drawn, torch.rand(2))


def test_a_step_is_given_what_lightning_would_give_it(workplace: Path) -> None:
    parts = build(checked([*write_data(workplace)["lm"], *SMALL]))
    files = CheckpointFiles()
    trainer = parts.trainer.make(
        callbacks=[], loggers=[], checkpoint_io=files, directory=str(workplace)
    )
    trainer.strategy.connect(parts.task)
    loop: Any = trainer.fit_loop.epoch_loop
    lightnings: Any = type(loop)
    assert loop._build_kwargs({}, "batch", 3) == lightnings._build_kwargs(loop, {}, "batch", 3)
