"""Runs as they lie on disk, without training any."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

MakeRun = Callable[..., Path]

CONFIG: dict[str, Any] = {
    "seed": 0,
    "name": "small",
    "model": {"_target_": "truesweep.models.Scratch", "depth": 2, "width": 32},
    "optimizer": {"_target_": "truesweep.optim.adamw", "lr": 0.001, "betas": [0.9, 0.95]},
    "trainer": {"devices": 2, "num_nodes": 1, "accelerator": "cpu", "threads": 1},
    "callbacks": {"checkpoint": {"monitor": "val/loss", "mode": "min"}},
}


def configuration(**changes: Any) -> dict[str, Any]:
    """`CONFIG` with some dotted keys changed; dots are written as double underscores."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        *path, name = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[name] = value
    return config


def rows(steps: int = 10, end: float = 2.0) -> list[dict[str, Any]]:
    """A training loss at every step, a validation at every fifth; falling from 4 to `end`."""
    made = []
    for step in range(1, steps + 1):
        loss = end + (4 - end) * (1 - step / steps)
        row = {"step": step, "tokens": 100 * step, "time": 0.5 * step, "train/loss": loss}
        made.append(row | ({"val/loss": loss + 0.1} if step % 5 == 0 else {}))
    return made


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str,
        config: Mapping[str, Any] | None = None,
        *,
        end: float = 2.0,
        state: str | None = "completed",
        job: Mapping[str, Any] | None = None,
        error: str | None = None,
        metrics: list[dict[str, Any]] | None = None,
        **results: Any,
    ) -> Path:
        path = tmp_path / name
        (path / "logs").mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump(config or configuration()))
        if job is not None:
            write(path / "job.json", job)
        if state is None:
            return path
        made = rows(end=end) if metrics is None else metrics
        (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
        write(path / "status.json", {"state": state, "step": made[-1]["step"], "error": error})
        write(path / "provenance.json", {"python": "3.11", "packages": {"torch": "2.13"}})
        if state == "completed":
            final = {"val/loss": end + 0.1, "best_step": 10, "parameters": 1000}
            totals = {"train/tokens": 1000, "train/seconds": 5.0, "train/steps": 10}
            write(path / "results.json", {**final, **totals, **results})
        return path

    return make


@pytest.fixture
def sweep(make_run: MakeRun, tmp_path: Path) -> Path:
    """Four jobs over learning rate and depth, one of which failed."""
    for i, (lr, depth) in enumerate([(0.001, 2), (0.01, 2), (0.001, 4), (0.01, 4)]):
        make_run(
            f"sweep/job{i}",
            configuration(optimizer__lr=lr, model__depth=depth),
            end=2.0 - 0.1 * i,
            state="failed" if i == 1 else "completed",
            error="RuntimeError: out of memory" if i == 1 else None,
            job={
                "sweep": "sweep",
                "label": f"lr={lr} depth={depth}",
                "varies": {"optimizer.lr": lr, "model.depth": depth},
                "devices": 1,
                "nodes": 1,
            },
        )
    settings = {"objective": "val/loss", "direction": None}
    (tmp_path / "sweep" / "sweep.yaml").write_text(yaml.safe_dump({"sweeps": settings}))
    return tmp_path / "sweep"


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
