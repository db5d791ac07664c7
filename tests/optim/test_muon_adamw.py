import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from truesweep.errors import ConfigError
from truesweep.optim import MuonAdamW, compile_ahead, muon, parameter_groups, set_found_inf
from truesweep.optim.muon_adamw import BatchedMuon, orthogonalize

pytestmark = pytest.mark.numbers

SHAPES = [(24, 8), (8, 24), (16, 16), (24, 8), (5, 3)]
JORDAN = (3.4445, -4.7750, 2.0315)


class Tiny(nn.Module):
    """A table, two hidden matrices with biases and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 8)
        self.hidden = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8))
        self.output = nn.Linear(8, 11)

    def get_output_embeddings(self) -> nn.Linear:
        return self.output

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.table(tokens)
        logits: Tensor = self.output(states + self.hidden(states))
        return logits


def loss_of(model: Tiny, step: int = 0) -> Tensor:
    tokens = torch.randint(11, (32,), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(tokens), (tokens + 1) % 11)


def train(model: Tiny, optimizer: torch.optim.Optimizer, steps: Sequence[int]) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def build(model: Tiny, **config: Any) -> MuonAdamW:
    return muon(parameter_groups(model, 0.1), **config)


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_batched_update_is_torch_s(adjust_lr_fn: str, nesterov: bool) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    config: dict[str, Any] = {"adjust_lr_fn": adjust_lr_fn, "nesterov": nesterov, "lr": 0.1}
    optimizers = BatchedMuon(ours, **config), Muon(theirs, **config)
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        # Both round to bfloat16, in another order of sums.
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.01)


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 8, 24) * torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1)
    values = torch.linalg.svdvals(orthogonalize(matrices.bfloat16(), JORDAN, 5, 1e-7).float())
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_an_iteration_acts_on_the_singular_values_alone() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 8, 24, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    a, b, c = JORDAN
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    found = orthogonalize(matrices, JORDAN, 5, 1e-7)
    # Each iteration rounds a few times, and multiplies what is off before it by less than 4.
    torch.testing.assert_close(found, left * values[:, None] @ right, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("precision", "agrees"),
    [("32-true", True), ("64-true", True), ("bf16-mixed", False), ("bf16-true", False)],
)
def test_full_precision_does_not_amplify_rounding(precision: str, agrees: bool) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(64, 96)
    rounding = gradient * torch.randn_like(gradient) * 1e-5
    after = []
    for noise in (0, rounding):
        matrix = nn.Parameter(torch.ones(64, 96))
        matrix.grad = gradient + noise
        group = {"params": [matrix], "weight_decay": 0.0, "role": "matrix"}
        muon([group], lr=1.0, precision=precision).step()  # type: ignore[arg-type]
        after.append(matrix.detach())
    difference = (after[0] - after[1]).abs().max().item()
    assert (difference < 1e-4) == agrees


def test_a_zero_gradient_stays_zero() -> None:
    assert not orthogonalize(torch.zeros(1, 4, 4, dtype=torch.bfloat16), JORDAN, 5, 1e-7).any()


def test_a_large_batch_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def updated(limit: int) -> list[Tensor]:
        monkeypatch.setattr("truesweep.optim.muon_adamw._MAX_BATCH", limit)
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(6, 4)) for _ in range(5)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        BatchedMuon(parameters, lr=0.1).step()
        return [parameter.detach() for parameter in parameters]

    for whole, split in zip(updated(1 << 24), updated(50), strict=True):
        torch.testing.assert_close(split, whole, rtol=0.02, atol=0.002)


class Compiler:
    """Stands in for torch's: counts programs, which do what is asked of them as it is, and runs."""

    def __init__(self) -> None:
        self.programs = self.runs = 0
        self.fails: BaseException | None = None

    def __call__(self, graph: Any, inputs: Any) -> Any:
        if self.fails is not None:
            raise self.fails
        self.programs += 1

        def run(*tensors: Any) -> Any:
            self.runs += 1
            return graph(*tensors)

        return run


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    """What compiles instead of torch's own, which takes half a minute."""
    found, compile_ = Compiler(), torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(compile_, backend=found))
    yield found
    torch.compiler.reset()


def updated(compiled: bool, without: int | None = None) -> tuple[list[Tensor], BatchedMuon]:
    """Matrices after some steps at falling rates, of which one step may leave one out."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = BatchedMuon(weights, lr=0.1, weight_decay=0.1, dtype=torch.float32)
    if compiled:
        before = [weight.detach().clone() for weight in weights]
        optimizer.compile_ahead()
        assert all(map(torch.equal, weights, before))
        assert not optimizer.state
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        if step == 2 and without is not None:
            weights[without].grad = None
        set_found_inf(optimizer, torch.tensor(step == 3))
        optimizer.step()
    return [weight.detach() for weight in weights], optimizer


@pytest.mark.parametrize("without", [None, 0])
def test_a_compiled_update_is_the_same_and_compiles_nothing_later(
    without: int | None, compiler: Compiler
) -> None:
    plain, _ = updated(compiled=False, without=without)
    found, _ = updated(compiled=True, without=without)
    for mine, other in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    # Shapes up to transposition; neither another rate nor a smaller batch is compiled in a step.
    assert compiler.programs == 3
    assert compiler.runs == 3 * 6 - (without is not None)


def test_no_more_updates_are_compiled_than_torch_keeps(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.optim.muon_adamw.MOST_GRAPHS", 2)
    plain, _ = updated(compiled=False)
    found, _ = updated(compiled=True)
    assert compiler.programs == 2
    assert compiler.runs == 2 * 6
    for mine, other in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


class Left(BaseException):
    """What a signal raises."""


@pytest.mark.parametrize("error", [RuntimeError("no compiler"), Left()])
def test_a_compiler_that_fails_or_is_left_changes_nothing(
    error: BaseException, compiler: Compiler
) -> None:
    model = Tiny()
    optimizer, before = build(model), flat(model)
    compiler.fails = error
    with pytest.raises(Left if isinstance(error, Left) else Exception):
        compile_ahead(optimizer)
    assert flat(model).equal(before)
    assert not optimizer.state
    compiler.fails = None
    other = Tiny()
    assert train(model, optimizer, range(3)) == train(other, build(other), range(3))
    assert flat(model).equal(flat(other))
    assert not compiler.programs


def test_rates_are_ratios_of_one() -> None:
    optimizer = build(Tiny(), lr=0.1, embedding_lr_ratio=2, head_lr_ratio=0.5, gain_lr_ratio=1.5)
    rates = {group["role"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"matrix": 0.1, "embedding": 0.2, "head": 0.05, "gain": 0.15})
    decays = {group["role"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"matrix": 0.1, "embedding": 0, "head": 0.1, "gain": 0}


def test_each_part_does_what_it_would_do_alone() -> None:
    together, apart = Tiny(), Tiny()
    optimizer = build(together, lr=0.02, ns_steps=5)
    groups = {group["role"]: group for group in parameter_groups(apart, 0.1)}
    matrices = BatchedMuon([groups.pop("matrix")], lr=0.02, dtype=torch.float32)
    rates = {"embedding": 0.04, "head": 0.01, "gain": 0.03}
    rest = AdamW(
        [{**group, "lr": rates[role]} for role, group in groups.items()], betas=(0.9, 0.95)
    )
    train(together, optimizer, range(5))
    for step in range(5):
        apart.zero_grad()
        loss_of(apart, step).backward()
        matrices.step()
        rest.step()
    torch.testing.assert_close(flat(together), flat(apart), rtol=1e-5, atol=1e-6)


def test_it_learns() -> None:
    model = Tiny()
    losses = train(model, build(model, lr=0.02), range(60))
    assert losses[0] > 2.2
    assert losses[-1] < 0.1


def test_the_state_survives_a_safe_checkpoint_bit_for_bit() -> None:
    unbroken = Tiny()
    train(unbroken, build(unbroken), range(8))

    first = Tiny()
    optimizer = build(first)
    train(first, optimizer, range(4))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = Tiny()
    resumed = build(second)
    second.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, range(4, 8))
    assert flat(second).equal(flat(unbroken))


@pytest.mark.parametrize("reload", [False, True])
def test_a_schedule_reaches_both_parts(reload: bool) -> None:
    model = Tiny()
    optimizer = build(model)
    train(model, optimizer, [0])
    if reload:
        optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = flat(model)
    train(model, optimizer, [1])
    assert flat(model).equal(before)


def test_torch_s_own_schedulers_accept_it() -> None:
    model = Tiny()
    optimizer = build(model, lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    train(model, optimizer, [0])
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_closure_is_called_once_with_gradients_on() -> None:
    model = Tiny()
    optimizer = build(model)
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    before = flat(model)
    loss = optimizer.step(closure)
    assert calls == [True]
    assert loss.item() > 0
    assert not flat(model).equal(before)


def test_parameters_without_gradient_are_left_alone() -> None:
    model = Tiny()
    before = flat(model)
    build(model).step()
    assert flat(model).equal(before)


def test_without_matrices_another_optimizer_is_named() -> None:
    model = Tiny()
    model.hidden.requires_grad_(False)
    with pytest.raises(ConfigError, match="set optimizer=adamw"):
        build(model)
