from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from truesweep import optim

pytestmark = pytest.mark.numbers

CONF = Path(__file__).parents[2] / "conf"


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 7))


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_each_preset_learns_at_its_own_rate(name: str) -> None:
    preset = yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text())
    assert preset.pop("_target_") == f"truesweep.optim.{name}"
    assert set(preset) <= {"precision"}
    net, tokens = model(), torch.arange(7)
    optimizer = getattr(optim, name)(params=optim.parameter_groups(net, 0.1))
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(tokens), tokens.flip(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("name", "config"),
    [("adamw", {}), ("sgd", {"momentum": 0.0}), ("muon", {})],
)
def test_decay_shrinks_matrices_and_nothing_else(name: str, config: dict[str, float]) -> None:
    net = model()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = getattr(optim, name)(params=optim.parameter_groups(net, 0.5), lr=0.1, **config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in net.state_dict().items():
        shrunk = key in ("1.weight", "3.weight")
        torch.testing.assert_close(value, before[key] * (0.95 if shrunk else 1))


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_rates_of_roles_are_ratios_of_one(name: str) -> None:
    groups = [
        {"params": [nn.Parameter(torch.zeros(2, 2))], "weight_decay": 0.1, "role": role}
        for role in optim.ROLES
    ]
    ratios = {"adapter_b": 16.0, "embedding": 2.0, "head": 10.0, "gain": 0.5}
    keys = {f"{role}_lr_ratio": ratio for role, ratio in ratios.items()}
    optimizer = getattr(optim, name)(groups, lr=0.1, **keys)
    rates = {group["role"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"matrix": 0.1, **{r: 0.1 * x for r, x in ratios.items()}})
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
    assert all("lr" not in group for group in groups)


def test_adamw_and_sgd_are_fused_on_a_cpu() -> None:
    groups = optim.parameter_groups(model(), 0.1)
    assert optim.adamw(groups).param_groups[0]["fused"]
    assert optim.sgd(groups).param_groups[0]["fused"]


def test_the_decay_of_a_group_counts_before_the_optimizer_s_own() -> None:
    optimizer = optim.adamw(optim.parameter_groups(model(), 0.3), weight_decay=0.7)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0, 0]


def test_sgd_without_momentum_is_plain() -> None:
    net = model()
    optimizer = optim.sgd(optim.parameter_groups(net, 0.0), lr=0.1, momentum=0.0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for new, old in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(new, old - 0.1)
