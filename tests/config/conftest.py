"""A small configuration tree and targets of its own, so that nothing shipped is needed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TARGETS = """
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from os import system

if TYPE_CHECKING:
    from somewhere import Unknown

Rate = Annotated[float, Gt(0)]


class Optimizer:
    def __init__(
        self,
        params: list[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        api_key: str | None = None,
    ) -> None:
        if lr > 100:
            raise ValueError(f"lr {lr} with {api_key} is absurd")
        self.params, self.lr, self.betas, self.api_key = params, lr, betas, api_key


@dataclass(kw_only=True)
class Model:
    depth: Annotated[int, Gt(0)]
    width: Annotated[int, Gt(0)] = 64
    kind: Literal["gpt2", "llama"] = "gpt2"
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    cache: Path | None = None
    tags: list[str] = field(default_factory=lambda: ["a"])
    inner: Model | None = None
    unknown: Unknown | None = None
    options: dict[str, Any] | None = None
    tied: bool = False


class Open:
    def __init__(self, a: int = 1, **kwargs: Any) -> None:
        self.kwargs = kwargs


def make_schedule(warmup: Annotated[int, Ge(0)] | Annotated[float, Ge(0), Lt(1)] = 0.02) -> dict:
    return {"warmup": warmup}


def write(path: str) -> None:
    raise AssertionError(path)


class Callback:
    def __init__(self, monitor: str = "val/loss", patience: int | None = None) -> None:
        self.monitor, self.patience = monitor, patience


instance = Open()
"""

TREE = {
    "train.yaml": """
        defaults:
          - _self_
          - data: none
          - tokenizer: none
          - model: small
          - optimizer: adam
          - scheduler: linear
          - trainer: none
          - logger: none
          - callbacks: default
          - task: lm
          - experiment: null
          - debug: null
        seed: 0
        name: null
        allowed_packages: [toy_targets]
        """,
    "data/none.yaml": "",
    "tokenizer/none.yaml": "",
    "trainer/none.yaml": "",
    "logger/none.yaml": "",
    "model/small.yaml": """
        _target_: toy_targets.Model
        depth: 2
        """,
    "model/large.yaml": """
        _target_: toy_targets.Model
        depth: 9
        """,
    "model/unfinished.yaml": """
        _target_: toy_targets.Model
        depth: ???
        """,
    "optimizer/adam.yaml": "_target_: toy_targets.Optimizer",
    "optimizer/sgd.yaml": """
        _target_: toy_targets.Optimizer
        lr: 0.5
        """,
    "scheduler/linear.yaml": "_target_: toy_targets.make_schedule",
    "callbacks/default.yaml": """
        checkpoint:
          _target_: toy_targets.Callback
        early_stopping: null
        """,
    "task/lm.yaml": """
        # @package _global_
        task:
          _target_: toy_targets.Open
        """,
    "task/translation.yaml": """
        # @package _global_
        defaults:
          - override /model: large
          - override /optimizer: sgd
        task:
          _target_: toy_targets.Open
        optimizer:
          lr: 0.25
        seed: 1
        """,
    "experiment/best.yaml": """
        # @package _global_
        defaults:
          - override /task: translation
          - override /model: small
        seed: 2
        optimizer:
          lr: 0.125
          weight_decay: 0.0
        """,
}


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        lines = text.strip("\n").splitlines()
        indent = min((len(li) - len(li.lstrip()) for li in lines if li.strip()), default=0)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line[indent:]}\n" for line in lines), encoding="utf-8")
    return root


@pytest.fixture(scope="session", autouse=True)
def toy_targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make the package `toy_targets` importable."""
    folder = tmp_path_factory.mktemp("packages")
    write_files(folder, {"toy_targets/__init__.py": TARGETS})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of configuration groups that is complete in itself."""
    return write_files(tmp_path / "groups", TREE)


@pytest.fixture
def add_files() -> Callable[[Path, dict[str, str]], Path]:
    """Writes further YAML files under a folder."""
    return write_files
