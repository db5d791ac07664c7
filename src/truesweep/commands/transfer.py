"""`truesweep transfer`: is one learning rate for all sizes of a model?"""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from truesweep.analysis.outcomes import Outcome
from truesweep.analysis.transfer import Best, Transfer, Tried, judge_transfer
from truesweep.config.overrides import is_override, parse
from truesweep.errors import ConfigError
from truesweep.record.files import dump_json
from truesweep.report import Comparison, compare
from truesweep.secrets import redact_overrides
from truesweep.sweeps.directory import ROOT
from truesweep.terminal import console, say, warn
from truesweep.text import figure, figures, label, plural, value, values

RATE = "optimizer.lr"
SIZES = ("model.width", "model.depth", "model.heads", "model.feed_forward")
SPACE = {RATE: f"{RATE}=1e-3,2e-3,4e-3,8e-3", SIZES[0]: f"{SIZES[0]}=64,128,256"}
_VARIED = {RATE: (RATE,), SIZES[0]: SIZES}
"""By the key that is proposed, the keys of which one has to vary."""
EXAMPLE = f"truesweep train -m {' '.join(SPACE.values())}"

Others = tuple[tuple[str, Any], ...]
"""What else was swept, and its values: each has a verdict of its own."""


def transfer(
    arguments: Sequence[str], config_dirs: Sequence[Path], objective: str | None, as_json: bool
) -> int:
    """Lay a sweep's rates of all sizes over each other, and say whether the best one moves.

    Args:
        arguments: The sweep's directory, and nothing else.
        config_dirs: Folders with further options of groups, for the command that is proposed.
        objective: Judge by this figure.
        as_json: Print JSON.

    Raises:
        ConfigError: It is no sweep's, or not over rates and sizes; or there are overrides.
    """
    directory = _directory(arguments, config_dirs)
    comparison = compare([directory], objective)
    warn(_left_out(comparison), stderr=True)
    found = {
        others: judge_transfer(tried, mode=comparison.objective.mode)
        for others, tried in _by_others(comparison, directory).items()
    }
    if as_json:
        told = [{"of": dict(others), **_plain(one)} for others, one in found.items()]
        shown = {"objective": comparison.objective.name, "rate": RATE, "transfers": told}
        print(dump_json(shown, indent=2))
        return 0
    out = console()
    for others, one in found.items():
        out.print(_table(one, label(dict(others)), comparison))
        say(out, _sentence(one, comparison))
    return 0


def _directory(arguments: Sequence[str], config_dirs: Sequence[Path]) -> Path:
    """The sweep that is to be read; what to do where overrides are given in its place."""
    overrides = [word for word in arguments if is_override(word)]
    folders = [Path(word) for word in arguments if word not in overrides]
    if len(folders) == 1 and not overrides:
        return folders[0]
    if folders:
        raise ConfigError(
            f"{' '.join(arguments)}: without --check, transfer reads one finished sweep as it is; "
            f"name its directory alone: truesweep transfer {folders[0]}"
        )
    swept = {key: any(_sweeps(word, keys) for word in overrides) for key, keys in _VARIED.items()}
    fixed = [key for key, varies in swept.items() if not varies]
    kept = [word for word in overrides if parse(word).key_or_group not in fixed]
    names = [word.partition("=")[2] for word in kept if word.startswith("name=")]
    more = [SPACE[key] for key in fixed] + ["name=transfer"] * (not names)
    options = [word for folder in config_dirs for word in ("--config-dir", str(folder))]
    command = shlex.join(["truesweep", "train", "-m", *options, *redact_overrides(kept), *more])
    where = ROOT / (names[-1] if names else "transfer")
    raise ConfigError(
        "transfer reads the directory of a finished sweep. Launch one over rates and sizes first:\n"
        f"  {command}\nand have it judged when it is done:\n  truesweep transfer {where}\n"
        "A few steps of several sizes, without a sweep, are trained by truesweep transfer --check"
    )


def _sweeps(override: str, keys: Sequence[str]) -> bool:
    parsed = parse(override)
    return parsed.key_or_group in keys and bool(parsed.is_sweep_override())


def _left_out(comparison: Comparison) -> Iterator[str]:
    """What of the sweep's runs cannot be read, and how many are missing from the tables."""
    yield from (problem.rstrip(".") for run in comparison.runs for problem in run.problems)
    waiting = [one for one in comparison.unfinished if one.state != "failed"]
    if waiting:
        yield f"runs without a result, and without a row: {len(waiting)} of {len(comparison.runs)}"


def _by_others(comparison: Comparison, directory: Path) -> dict[Others, list[Tried]]:
    """What was tried, by what was swept besides rates and sizes."""
    sizes = [key for key in SIZES if key in comparison.keys]
    if RATE not in comparison.keys or not sizes:
        lacking = RATE if RATE not in comparison.keys else "model.width and no model.depth"
        raise ConfigError(f"{directory}: varies no {lacking}. Sweep rates and sizes: {EXAMPLE}")
    name = comparison.objective.name
    rows: dict[Others, dict[tuple[Any, ...], list[Outcome]]] = {}
    for one in [*comparison.outcomes, *(o for o in comparison.unfinished if o.state == "failed")]:
        others = tuple((k, v) for k, v in one.varies.items() if k != RATE and k not in SIZES)
        place = (float(one.varies[RATE]), *(one.varies.get(key) for key in sizes))
        rows.setdefault(others, {}).setdefault(place, []).append(one)
    tried = {
        others: [
            Tried(
                size=dict(zip(sizes, place[1:], strict=True)),
                parameters=max(one.parameters or 0 for one in same),
                rate=place[0],
                losses=[one.value(name) if one.state == "completed" else math.inf for one in same],
            )
            for place, same in places.items()
        ]
        for others, places in rows.items()
    }
    for others, listed in tried.items():
        count = len({tuple(one.size.items()) for one in listed})
        if count < 2:
            of = f" with {label(dict(others))}" if others else ""
            raise ConfigError(
                f"{directory}: has finished jobs of {plural(count, 'size')}{of}; two are needed. "
                f"Resume the sweep, or sweep more sizes: {EXAMPLE}"
            )
    return tried


def _plain(one: Transfer) -> dict[str, Any]:
    """A verdict for JSON, which has no infinite numbers."""
    plain = asdict(one)
    for best in plain["best"]:
        best["low"] = best["low"] or None
        best["high"] = best["high"] if math.isfinite(best["high"]) else None
        best["losses"] = [loss if math.isfinite(loss) else None for loss in best["losses"]]
    return plain


def _table(one: Transfer, title: str, comparison: Comparison) -> Table:
    """Sizes by rates, the best of each size in bold, and the best rate between those."""
    rates = sorted({rate for best in one.best for rate in best.rates})
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(f"{comparison.objective.name} at", overflow="fold")
    for shown in values(rates):
        table.add_column(shown, justify="right")
    table.add_column("best rate", justify="right")
    table.add_column("interval", justify="right")
    for best in one.best:
        losses = [
            best.losses[best.rates.index(rate)] if rate in best.rates else None for rate in rates
        ]
        finite = [loss if loss is None or math.isfinite(loss) else None for loss in losses]
        cells = figures(finite, comparison.digits)
        least = best.rates[_nearest(best)]
        row = [
            Text("failed" if loss is not None and not math.isfinite(loss) else cell)
            for cell, loss in zip(cells, losses, strict=True)
        ]
        row[rates.index(least)].stylize("bold")
        table.add_row(label(best.size), *row, value(best.rate, 2), _interval(best))
    return table


def _nearest(best: Best) -> int:
    """Which of the rates that were tried is the one next to the best."""
    return min(range(len(best.rates)), key=lambda i: abs(math.log(best.rates[i] / best.rate)))


def _interval(best: Best) -> str:
    if best.edge == "low":
        return f"below {value(best.high, 2)}"
    if best.edge == "high":
        return f"above {value(best.low, 2)}"
    return f"{value(best.low, 2)} to {value(best.high, 2)}"


def _sentence(one: Transfer, comparison: Comparison) -> Text:
    """The verdict, how far the best rate moves, what that costs, and what to do."""
    first, last = one.best[0], one.best[-1]
    edges = [best for best in one.best if best.edge]
    at_least = "at least " * bool(edges)
    moved = (
        f"from {label(first.size)} to {label(last.size)} the best rate goes from "
        f"{value(first.rate, 2)} to {value(last.rate, 2)}, and over all sizes it moves by "
        f"{at_least}{figure(one.factor, 2)} times"
    )
    if one.cost is not None:
        name = comparison.objective.name
        moved += f"; {label(last.size)} with the rate of {label(first.size)} loses "
        moved += f"{figure(one.cost, 2)} in {name}" if one.cost else f"nothing in {name}"
    titles = {
        "transfers": "The learning rate transfers: ",
        "moves": "The learning rate does not transfer: ",
        "undecided": "Whether the learning rate transfers is undecided: ",
    }
    return Text.assemble((titles[one.verdict], "bold"), moved, ".", _remedy(one, edges))


def _remedy(one: Transfer, edges: Sequence[Best]) -> str:
    if edges and one.verdict != "moves":
        side = {"low": "smaller", "high": "larger"}
        which = sorted({side[best.edge] for best in edges if best.edge})
        return (
            f" The best rate of {label(edges[0].size)} lies on the edge of those that were tried: "
            f"add {' and '.join(which)} ones."
        )
    if one.verdict == "undecided":
        return " Add rates in between, or seeds (sweeps.seeds=3)."
    if one.verdict == "moves":
        return (
            " Tune each size, or try model.parametrization=completep; where that is set already, "
            "truesweep transfer --check names the layer."
        )
    return ""
