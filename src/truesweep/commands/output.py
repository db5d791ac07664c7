"""What a command prints."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from truesweep import text
from truesweep.analysis.verdict import read_verdict
from truesweep.compat import untried_sentence
from truesweep.data.left_out import describe_left_out
from truesweep.errors import ConfigError
from truesweep.figures import (
    HARNESS,
    SAMPLES,
    STANDARD_ERROR,
    Declared,
    Figure,
    beside,
    unit,
    written,
)
from truesweep.interrupts import STOPPED
from truesweep.jobs.parts import task_class
from truesweep.jobs.plan import Plan
from truesweep.jobs.trainer import TrainerSettings
from truesweep.optim import OVER_BASE
from truesweep.record.mirror import records_of
from truesweep.runs.run import Run, read_entries
from truesweep.terminal import console, titled, warn

SPLITS = {"val": "validation", "test": "test"}
SHOWN = 3
"""How many samples of text are printed."""


def show_plan(plan: Plan) -> None:
    """What is about to happen, before anything is spent."""
    config, stats = plan.config, plan.prepared.stats
    train = stats["train"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("run", f"{plan.name}/{plan.id}")
    sizes = ", ".join(f"{text.count(s['samples'])} {name}" for name, s in stats.items())
    table.add_row("data", f"{sizes} samples; {text.count(train['tokens'])} training tokens")
    for number, told in enumerate(plan.sources):
        table.add_row("" if number else "sources", told)
    embedding = plan.parameters.embedding
    table.add_row(
        "model",
        f"{config['model'].get('architecture', 'pretrained')}, "
        f"{text.count(plan.parameters.total)} parameters ({text.count(embedding)} in embeddings), "
        f"{text.quantity(plan.flops.per_token, 'FLOP')} per token",
    )
    if config.get("adapter"):
        trained = plan.parameters.trainable
        table.add_row(
            "adapter",
            f"{config['adapter']['_target_'].rpartition('.')[2]}, {text.count(trained)} of them "
            f"trained ({text.percent(trained / plan.parameters.total)})",
        )
    if rates := _rates(plan):
        table.add_row("rates", rates)
    epochs = plan.total_steps / plan.steps_per_epoch
    table.add_row(
        "training",
        f"{text.figure(plan.total_steps)} steps of {config['data']['batch_size']} samples "
        f"({text.count(epochs)} epochs) on {text.plural(plan.trainer.world_size, 'device')}",
    )
    table.add_row("precision", _precision(plan.trainer))
    if plan.twice:
        table.add_row("layers twice", plan.twice)
    console().print(table)
    warn((*untried_sentence(), *plan.warnings))


def _rates(plan: Plan) -> str:
    """By what the learning rate of each role is multiplied; empty: by nothing."""
    model = plan.config["model"]
    by_role: dict[str, dict[str, None]] = defaultdict(dict)
    factors = [(group.get("role"), group.get(OVER_BASE, 1.0)) for group in plan.groups]
    for role, factor in factors:
        by_role[str(role)][f"x{text.value(factor)}"] = None
    roles = "; ".join(f"{role} {', '.join(found)}" for role, found in by_role.items())
    parametrization = model.get("parametrization", "standard")
    if parametrization == "standard":
        return roles if any(factor != 1 for _, factor in factors) else ""
    sizes = [f"width {model['base_width']}"]
    if parametrization == "completep":
        sizes.append(f"depth {model['base_depth']}")
    return f"{parametrization}, those of {' and '.join(sizes)}: {roles}"


def _precision(trainer: TrainerSettings) -> str:
    """A training's precision, and why `auto` would be the same if it would."""
    native, why = trainer.native_precision()
    return f"{native} ({why})" if trainer.precision == native else str(trainer.precision)


def plain_plan(plan: Plan) -> dict[str, Any]:
    """The same as values for JSON."""
    return {
        "name": plan.name,
        "id": plan.id,
        "directory": f"outputs/{plan.name}/{plan.id}",
        "data": plan.prepared.stats,
        "sources": plan.sources,
        "parameters": plan.parameters.total,
        "trainable_parameters": plan.parameters.trainable,
        "flops_per_token": plan.flops.per_token,
        "steps": plan.total_steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "devices": plan.trainer.world_size,
        "metrics": plan.metrics,
        "groups": plan.groups,
        "warnings": plan.warnings,
        **({"activation_checkpointing": plan.twice} if plan.twice else {}),
        "config": plan.config,
    }


def show_result(run: Run, exit_code: int) -> None:
    """Figures beside their baselines, where everything lies, and what to type next."""
    out = console()
    here = os.path.relpath(run.path)
    if exit_code in STOPPED:
        again = Text(f"truesweep resume {here}", "bold")
        how = "Stopped before it began" if run.state == "queued" else "Stopped and saved"
        out.print(Text.assemble(f"{how}. To go on: ", again))
    if exit_code != 0:
        _show_verdict(out, run.status.get("verdict"))
        return
    results = run.read_results()
    if not results:
        out.print(how_it_ended(run))
        return
    out.print(_figures(results, run.figures))
    show_harness(results, run.figures)
    warn(describe_left_out(results, ("val", "test")))
    _show_verdict(out, results.get("verdict"))
    _show_tables(out, run)
    _show_paths(out, run, here, results)


def _show_verdict(out: Console, verdict: Mapping[str, Any] | None) -> None:
    said = read_verdict(verdict)
    if said.get("text"):
        out.print(Text.assemble(("Verdict:", "bold"), f" {said['text']}"))


def how_it_ended(run: Run) -> str:
    """Why a run that has ended has no results."""
    if run.status.get("state") == "pruned":
        return f"Pruned after step {run.status.get('step', 0):,}, by the search that it belongs to"
    if run.status.get("state") == "paused":
        step = run.status.get("step", 0)
        return f"Paused after step {step:,}, by the search that it belongs to; resume it to its end"
    return f"{os.path.relpath(run.results)} is missing"


def _figures(results: dict[str, Any], declared: Declared) -> Table:
    table = titled("Results")
    for name in ("", *SPLITS.values(), "baseline"):
        table.add_column(name, justify="left" if not name else "right")
    for figure in _shown(declared):
        names = [f"{prefix}/{figure.name}" for prefix in (*SPLITS, "baseline/test")]
        _add_figure(table, figure, names, results)
    return table


def _add_figure(
    table: Table, figure: Figure, names: Sequence[str], figures: Mapping[str, Any]
) -> None:
    """A row of one figure under its names, if any is there; with its own counts of samples."""
    row = [figures.get(name) for name in names]
    if any(value is not None for value in row):
        cells = zip(text.figures(row, figure.digits), names, strict=True)
        table.add_row(figure.name, *(cell + beside(name, figures) for cell, name in cells))


def _shown(declared: Declared) -> list[Figure]:
    """A split's figures in the order they are shown, the number of its samples last."""
    return [*(f for name, f in declared.items() if name != SAMPLES.name), SAMPLES]


def show_figures(figures: dict[str, Any], split: str, declared: Declared) -> None:
    """The figures of one split beside their baselines."""
    called = SPLITS.get(split, split)
    table = titled(f"Scores on {called}")
    for name in ("", called, "baseline"):
        table.add_column(name, justify="left" if not name else "right")
    for figure in _shown(declared):
        if figures.get(f"{split}/{figure.name}") is not None:
            names = [f"{prefix}{split}/{figure.name}" for prefix in ("", "baseline/")]
            _add_figure(table, figure, names, figures)
    console().print(table)
    warn(describe_left_out(figures, [split]))


def show_harness(figures: Mapping[str, Any], declared: Declared) -> None:
    """Figures of lm-evaluation-harness with their standard errors, if there are any."""
    table = titled("Tasks")
    for name in ("", "", "standard error", "samples"):
        table.add_column(name, justify="left" if not name else "right")
    for name, value in figures.items():
        prefix, _, rest = name.partition("/")
        task, _, figure = rest.partition("/")
        if prefix != HARNESS or figure == SAMPLES.name or name.endswith(STANDARD_ERROR):
            continue
        error, samples = (
            figures.get(f"{name}{STANDARD_ERROR}"),
            figures.get(f"{HARNESS}/{task}/samples"),
        )
        counted = "" if samples is None else text.count(samples)
        shown = written(name, value, declared)
        spread = "" if error is None else text.figure(error, 2)
        table.add_row(f"{task}  {figure}", shown, spread, counted)
    if table.row_count:
        console().print(table)


def _show_tables(out: Console, run: Run) -> None:
    """Figures by class as a table; texts, which are long, one below the other."""
    for name, (columns, rows) in read_entries(run.tables).items():
        if name == "classes":
            table = titled("Classes")
            for column in columns:
                table.add_column(column)
            for row in rows:
                table.add_row(*(text.figure(v, 3) if isinstance(v, float) else str(v) for v in row))
            out.print(table)
            continue
        for row in rows[:SHOWN]:
            told = Text()
            for column, value in zip(columns, row, strict=True):
                told.append(f"{column}: ", style="dim")
                told.append(f"{value}\n")
            told.rstrip()
            out.print(Panel(told, title=Text(name), title_align="left", border_style="dim"))


def _can_be_asked(run: Run) -> bool:
    try:
        return task_class(run.read_config()).answers()
    except ConfigError:  # a package that only its training needed is not here
        return False


def _show_paths(out: Console, run: Run, here: str, results: dict[str, Any]) -> None:
    lines = {
        "best step": f"{results['best_step']:,} of {results['train/steps']:,}",
        "trained": f"{text.count(results['train/tokens'])} {unit(run.figures)} in "
        f"{text.duration(results['train/seconds'])}",
        "everything": here,
        "next": f"truesweep evaluate {here}",
    }
    if _can_be_asked(run):
        lines = {**lines, "next": f"truesweep generate {here}", "": lines["next"]}
    if records_of(run.path):
        lines[" "] = f"wandb leet {here}/wandb"
    for name, value in lines.items():
        # Not folded: these are to be copied.
        out.print(Text.assemble((f"{name:<10}", "dim"), f"  {value}"), soft_wrap=True)
