"""Runs as the statistics of `truesweep.analysis` want them."""

from collections.abc import Sequence
from dataclasses import replace

from truesweep.analysis.outcomes import Outcome
from truesweep.report.measured import measured_on
from truesweep.report.objective import Objective
from truesweep.report.run import Run
from truesweep.report.samples import read_samples
from truesweep.report.varying import counts, setting

FINISHED = ("completed",)
"""States of runs whose figures are final; a pruned run's are those of a shorter training."""


def outcomes(
    runs: Sequence[Run], keys: Sequence[str], objectives: Sequence[Objective]
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
    runs: Sequence[Run], keys: Sequence[str], objectives: Sequence[Objective]
) -> list[Outcome]:
    """The other runs, which tell what else was tried."""
    return [_outcome(run, keys, objectives) for run in runs if run.state not in FINISHED]


def _outcome(run: Run, keys: Sequence[str], objectives: Sequence[Objective]) -> Outcome:
    return Outcome(
        id=str(run.directory.path),
        point=_point(run, keys),
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


def _point(run: Run, keys: Sequence[str]) -> str:
    """What runs share that differ by their seed only, or by what changes no number.

    What was swept tells them apart, whatever it is.
    """
    shared = {key: value for key, value in run.flat.items() if counts(key)}
    swept = {key: setting(run, key) for key in keys}
    return repr([(k, v) for k, v in sorted((shared | swept).items()) if k not in ("seed", "name")])


def _standard_error(run: Run, figure: str) -> float | None:
    """Of what follows from the loss, to the first order, where it has none of its own."""
    known: float | None = run.results.get(f"{figure}_standard_error")
    split, _, name = figure.partition("/")
    loss, error = (run.results.get(f"{split}/loss{end}") for end in ("", "_standard_error"))
    value = run.results.get(figure)
    if known is not None or not loss or error is None or value is None:
        return known
    slopes = {"perplexity": value, "bits_per_byte": value / loss}
    return error * slopes[name] if name in slopes else None
