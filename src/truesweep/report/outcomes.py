"""Runs as the statistics of `truesweep.analysis` want them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from truesweep import dotted
from truesweep.analysis.noise import Paired
from truesweep.analysis.outcomes import Outcome, Samples
from truesweep.analysis.ranking import SPLITS
from truesweep.analysis.uncertainty import (
    SCORES,
    paired_mean,
    samples_of,
    standard_error_that_follows,
)
from truesweep.figures import STANDARD_ERROR, Figure
from truesweep.record.frozen import point_id
from truesweep.report.objective import Objective
from truesweep.report.varying import setting
from truesweep.runs.snapshot import Snapshot

FINISHED = ("completed",)
"""States of runs whose figures are final; a pruned run's are those of a shorter training."""
TOKENS = ("tokenizer", "tokenizer's training text")
"""What only figures per token depend on."""
UNTRAINED = ("Byte", "Pretrained")
"""Tokenizers that learn nothing from the training split."""


def outcomes(
    runs: Sequence[Snapshot], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[Outcome]:
    """The finished runs' figures; with those of each sample, where all were scored on the same."""
    finished = [run for run in runs if run.state in FINISHED]
    made = [_outcome(run, keys, objectives) for run in finished]
    if any(one.standard_error is None for one in made):
        return made
    samples = read_samples(finished, objectives[0].name)
    if samples is None:
        return made
    return [replace(one, samples=table) for one, table in zip(made, samples, strict=True)]


def unfinished(
    runs: Sequence[Snapshot], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[Outcome]:
    """The other runs, which tell what else was tried."""
    return [_outcome(run, keys, objectives) for run in runs if run.state not in FINISHED]


def _outcome(run: Snapshot, keys: Sequence[str], objectives: Sequence[Objective]) -> Outcome:
    return Outcome(
        id=str(run.directory.path),
        point=point_id(run.config, keys) if run.config else str(run.directory.path),
        varies={key.removesuffix("._target_"): setting(run, key) for key in keys if key != "seed"},
        objectives={one.name: one.of(run) for one in objectives},
        seed=run.config.get("seed"),
        state=run.state,
        tokens=run.tokens or None,
        seconds=run.seconds or None,
        flops=run.flops,
        parameters=run.results.get("parameters"),
        standard_error=_standard_error(run, objectives[0].name),
        measured_on=measured_on(run, objectives[0].name),
    )


def _standard_error(run: Snapshot, name: str) -> float | None:
    """Its own, or what that of another figure makes of it."""
    known: float | None = run.results.get(f"{name}{STANDARD_ERROR}")
    figure, value = run.figure(name), run.results.get(name)
    if known is not None or value is None or figure is None or figure.follows is None:
        return known
    base_name = f"{name.partition('/')[0]}/{figure.follows}"
    base, error = (run.results.get(f"{base_name}{end}") for end in ("", STANDARD_ERROR))
    if not base or error is None:
        return None
    return standard_error_that_follows(figure, value, base, error)


# -- sample by sample -------------------------------------------------------------------------


def read_samples(runs: Sequence[Snapshot], name: str) -> list[Samples] | None:
    """Each run's samples; None where it keeps none, or they are not the same ones.

    Args:
        runs: The runs.
        name: Such as `val/loss`.
    """
    tables: list[Samples] = []
    for run in runs:
        figure = _made_from_samples(run, name)
        try:
            scores = {} if figure is None else run.directory.read_scores(name.partition("/")[0])
        except (OSError, ValueError, KeyError):
            return None
        table = None if figure is None else samples_of(figure, scores)
        if table is None or (tables and not _same(table, tables[0])):
            return None
        tables.append(table)
    return tables


def _same(first: Samples, second: Samples) -> bool:
    """Whether two tables are of the same samples, as far as what is given of each tells."""
    return np.array_equal(first[:, 1], second[:, 1])


def _made_from_samples(run: Snapshot, name: str) -> Figure | None:
    """The figure's declaration, or that of the one it follows, as they are told apart alike."""
    figure = run.figure(name)
    if figure is not None and figure.follows is not None:
        figure = run.figure(figure.follows)
    return figure


def paired(runs: Sequence[Snapshot], name: str) -> Paired:
    """What compares two runs by a figure, given the samples of both."""
    figure = _made_from_samples(runs[0], name) if runs else None
    kind = SCORES.get(figure.score) if figure is not None else None
    return paired_mean if kind is None else kind.difference


# -- what can be compared at all --------------------------------------------------------------


def measured_on(run: Snapshot, name: str) -> dict[str, str]:
    """The task, the split's content and the tokenizer, as far as they are known and matter.

    Only where they are the same can runs be ranked.

    Args:
        run: The run.
        name: Such as `val/loss`; a figure of no split depends on nothing.
    """
    split = name.partition("/")[0]
    if split not in SPLITS:
        return {}
    figure = run.figure(name)
    known = {
        "task": dotted.get(run.config, "task._target_"),
        f"{SPLITS[split]} data": _fingerprint(run, split),
        **(_tokenizer(run) if figure is not None and figure.per_token else {}),
    }
    return {what: str(value) for what, value in known.items() if value is not None}


def _fingerprint(run: Snapshot, split: str) -> str | None:
    """Of the samples as they were loaded, before any tokenizer."""
    return cast("str | None", dotted.get(run.provenance, f"data.fingerprints.{split}"))


def _tokenizer(run: Snapshot) -> dict[str, str | None]:
    """Its settings, and what it learned from."""
    node = dotted.get(run.config, "tokenizer", {})
    if not node:
        return {}
    learned = str(node.get("_target_")).rpartition(".")[2] not in UNTRAINED
    text = _fingerprint(run, "train") if learned else None
    return {TOKENS[0]: repr(sorted(node.items())), TOKENS[1]: text}
