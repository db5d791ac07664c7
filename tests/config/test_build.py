import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from truesweep.config.targets import instantiate
from truesweep.errors import ConfigError, DataError

ALLOWED = ["toy_targets"]


def test_a_node_is_built_with_what_is_supplied() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2))]
    node = {"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": 0.9}
    optimizer = instantiate(node, "optimizer", params=weights)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["params"][0] is weights[0]
    assert optimizer.defaults["momentum"] == 0.9


def test_values_become_what_the_annotation_asks_for() -> None:
    node = {"_target_": "toy_targets.Model", "depth": 1, "cache": "a/b", "tags": ["x"]}
    model = instantiate(node, "model", ALLOWED)
    assert model.cache == Path("a/b")
    optimizer = instantiate(
        {"_target_": "toy_targets.Optimizer", "betas": [0, 1]}, "optimizer", ALLOWED, params=[]
    )
    assert optimizer.betas == (0.0, 1.0)


def test_nodes_inside_nodes_mappings_and_lists() -> None:
    inner = {"_target_": "toy_targets.Model", "depth": 1}
    node = {"_target_": "toy_targets.Model", "depth": 2, "inner": inner, "options": {"m": [inner]}}
    model = instantiate(node, "model", ALLOWED)
    assert model.inner.depth == 1
    assert model.options["m"][0].depth == 1


def test_named_nodes() -> None:
    group = {"one": {"_target_": "toy_targets.Callback", "patience": 3}, "two": None}
    built = instantiate(group, "callbacks", ALLOWED)
    assert built["one"].patience == 3
    assert built["two"] is None
    assert instantiate(None) is None


def test_secrets_are_revealed_for_the_constructor_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary")
    node = {"_target_": "toy_targets.Optimizer", "api_key": "${oc.env:MY_API_KEY}"}
    assert instantiate(node, "optimizer", ALLOWED, params=[]).api_key == "canary"
    assert node["api_key"] == "${oc.env:MY_API_KEY}"
    monkeypatch.delenv("MY_API_KEY")
    with pytest.raises(ConfigError, match=r"optimizer\.api_key: .*MY_API_KEY"):
        instantiate(node, "optimizer", ALLOWED, params=[])


def test_a_failing_constructor_names_the_key_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary")
    node = {"_target_": "toy_targets.Optimizer", "lr": 101, "api_key": "${oc.env:MY_API_KEY}"}
    with pytest.raises(ConfigError) as caught:
        instantiate(node, "optimizer", ALLOWED, params=[])
    assert str(caught.value) == (
        "optimizer: toy_targets.Optimizer cannot be built "
        "(ValueError: lr 101.0 with <redacted> is absurd)"
    )
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_users_error_keeps_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_targets = importlib.import_module("toy_targets")

    def fail(self: Any, a: int = 1) -> None:
        raise DataError("data.txt:3: empty")

    monkeypatch.setattr(toy_targets.Open, "__init__", fail)
    with pytest.raises(DataError, match=r"^data: data\.txt:3: empty$"):
        instantiate({"_target_": "toy_targets.Open"}, "data", ALLOWED)


@pytest.mark.parametrize("target", ["os.system", "torch.load", "toy_targets.Model"])
def test_targets_that_are_not_allowed_are_not_built(target: str) -> None:
    for node in ({"_target_": target}, {"a": {"_target_": target}}, [{"_target_": target}]):
        with pytest.raises(ConfigError, match="is not allowed"):
            instantiate(node, "model")


def test_a_hostile_file_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Hostile(), tmp_path / "hostile.pt")
    node = {"_target_": "torch.load", "f": str(tmp_path / "hostile.pt"), "weights_only": False}
    with pytest.raises(ConfigError, match=r"model: torch\.load is not allowed"):
        instantiate(node, "model")
    assert not (tmp_path / "ran").exists()
