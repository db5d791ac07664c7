"""Where a search starts: what a published law and the user's earlier sweeps say, before any job."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truesweep import dotted
from truesweep.errors import UserError
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planned import PlannedJob
from truesweep.text import count, plural, value

RATE, BATCH = "optimizer.lr", "data.batch_size"
ADAMW, MUON = "truesweep.optim.adamw", "truesweep.optim.muon"
RATES = 3
"""An earlier sweep that tried fewer learning rates says nothing of the best one."""
ALIKE = (
    *("task._target_", "tokenizer._target_", "optimizer._target_"),
    *("model._target_", "model.parametrization"),
)
"""In what an earlier sweep's configuration is the same, besides its data."""


@dataclass(frozen=True)
class Prior:
    """Where a search starts, and why.

    Args:
        point: Values by key.
        text: The same in words.
    """

    point: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Trained:
    """What a learning rate and a batch size depend on.

    Args:
        config: The configuration.
        parameters: Of the model.
        tokens: Of its whole training.
    """

    config: Mapping[str, Any]
    parameters: float
    tokens: float

    @property
    def law(self) -> dict[str, float]:
        """The rate and the batch size that a law gives, by key; no rate where there is none.

        The step law (arXiv 2503.04715) for a batch of 0.58 D^0.571 tokens, with D the training's,
        and for AdamW's rate of 1.79 N^-0.713 D^0.307, with N the parameters; those of the base
        model, where the parametrization has one. Muon's steps have a norm that no size changes,
        so that its default rate is for all.
        """
        found = {BATCH: 0.58 * self.tokens**0.571 / self.config["data"]["max_length"]}
        optimizer = dotted.get(self.config, "optimizer._target_")
        if optimizer == ADAMW:
            size = self.parameters * self._base_share
            found[RATE] = 1.79 * size**-0.713 * self.tokens**0.307
        elif optimizer == MUON:
            found[RATE] = 0.02
        return found

    @property
    def _base_share(self) -> float:
        """The base model's parameters over the model's, about."""
        model = self.config["model"]
        how = model.get("parametrization", "standard")
        if how == "standard":
            return 1.0
        share: float = (model["base_width"] / model["width"]) ** 2
        return float(share * (model["base_depth"] / model["depth"] if how == "completep" else 1))


def find_prior(sweep: SweepDirectory, jobs: Sequence[PlannedJob]) -> Prior:
    """Where a search starts.

    From the best point of each finished sweep beside it whose jobs are like these, moved as the law
    says for another size and length; where there is none, from the law itself.

    Args:
        sweep: The search's directory; one that has begun keeps its start.
        jobs: Some that it may come to.
    """
    begun = sweep.settings.start if sweep.asked.is_file() else None
    if isinstance(begun, dict):
        return Prior(begun, f"starts at {_told(begun)}, as it did before")
    middle = sorted(jobs, key=lambda job: (job.parameters, job.tokens))[len(jobs) // 2]
    own = Trained(middle.config, middle.parameters, middle.tokens)
    earlier = list(_earlier(sweep, middle))
    point: dict[str, Any] = {}
    law = {key: by_law for key, by_law in own.law.items() if key in middle.varies}
    if not law:
        return Prior({}, "starts in the middle: no law is known for what varies")
    for key, by_law in law.items():
        moved = [
            float(found[key]) * by_law / then.law[key] for found, then in earlier if key in then.law
        ]
        start = statistics.geometric_mean(moved) if moved else by_law
        point[key] = max(1, round(start)) if key == BATCH else float(f"{start:.3g}")
    if earlier:
        why = f"by {plural(len(earlier), 'finished sweep')} of like jobs"
    else:
        why = (
            f"by the step law for {count(own.parameters)} parameters and {count(own.tokens)} tokens"
            if dotted.get(own.config, "optimizer._target_") == ADAMW
            else "by the optimizer's default and the step law's batch size"
        )
    return Prior(point, f"starts at {_told(point)}, {why}")


def _told(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value(found)}" for key, found in point.items())


def _earlier(sweep: SweepDirectory, job: PlannedJob) -> Iterator[tuple[dict[str, Any], Trained]]:
    """The best points of finished sweeps of like jobs, on the same data if there are any."""
    found = []
    for other in sorted(sweep.path.parent.glob("*/sweep.yaml")):
        if other.parent != sweep.path:
            try:
                best = _best(SweepDirectory(other.parent))
            except (UserError, OSError, ValueError, KeyError, TypeError):
                continue  # damaged, or of another version: it says nothing
            if best is not None and _alike(best[1].config, job.config):
                found.append((best, _same_data(best[2], job)))
    same = any(known for _, known in found)
    for (varies, then, _), known in found:
        if known or not same:
            yield varies, then


def _best(sweep: SweepDirectory) -> tuple[dict[str, Any], Trained, Run] | None:
    """The best job of a sweep over learning rates: what it varies, what it was, its directory."""
    sign = 1.0 if next(iter(sweep.settings.modes.values())) == "min" else -1.0
    ended = [
        row
        for row in sweep.read_jobs()
        if row["state"] == "completed" and isinstance(row["objective"], int | float)
    ]
    ended = [row for row in ended if math.isfinite(row["objective"]) and row["varies"].get(RATE)]
    if len({row["varies"][RATE] for row in ended}) < RATES:
        return None
    best = min(ended, key=lambda row: sign * row["objective"])
    run = Run(sweep.path / best["id"])
    results = run.read_results()
    trained = Trained(run.read_config(), results["parameters"], results["train/tokens"])
    return {RATE: best["varies"][RATE], BATCH: trained.config["data"]["batch_size"]}, trained, run


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    neutral = {"model.parametrization": "standard"}
    return all(
        dotted.get(one, key, neutral.get(key)) == dotted.get(other, key, neutral.get(key))
        for key in ALIKE
    )


def _same_data(run: Run, job: PlannedJob) -> bool:
    """Whether a run was trained on the data of a planned job."""
    key = "data.fingerprints.train"
    known = dotted.get(run.read_provenance(), key)
    return known is not None and known == dotted.get(job.origin, key)
