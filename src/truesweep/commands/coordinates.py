"""`truesweep transfer --check`: which layer follows the size of its model?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from truesweep.analysis.transfer import FLAT, Growth
from truesweep.config.overrides import is_override
from truesweep.config.precedence import update
from truesweep.errors import ConfigError
from truesweep.jobs.coordinates import check_coordinates
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import complete
from truesweep.jobs.plan import checked
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.terminal import console, say
from truesweep.text import plural

FACTORS = (1, 2, 4)
"""Sizes over the base's, where none are given."""


@dataclass(frozen=True)
class Checked:
    """What is measured, and how.

    Args:
        widths: Values of `model.width`; none: multiples of the base's.
        depths: Values of `model.depth`; none: only where the parametrization has a rule for it.
        steps: Optimizer steps.
        seeds: Repetitions.
        json: Print JSON alone on standard output.

    Raises:
        ConfigError: One of them means nothing.
    """

    widths: Sequence[int]
    depths: Sequence[int]
    steps: int
    seeds: int
    json: bool

    def __post_init__(self) -> None:
        for option, sizes in (("--widths", self.widths), ("--depths", self.depths)):
            if sizes and (len(set(sizes)) < 2 or min(sizes) < 1):
                given = ",".join(map(str, sizes))
                raise ConfigError(f"{option} {given}: expected two sizes or more, as 64,128,256")
        for option, number in (("--steps", self.steps), ("--seeds", self.seeds)):
            if number < 1:
                raise ConfigError(f"{option} {number}: expected 1 or more")


def check(arguments: Sequence[str], config_dirs: Sequence[Path], asked: Checked) -> int:
    """Train a model of each size for a few steps; 1 if a layer follows the size."""
    config = _config(arguments, config_dirs)
    sizes = _sizes(config, asked)
    with quiet(), console(stderr=True).status("Training a few steps of each size…"):
        found = {
            key: check_coordinates(config, key, values, steps=asked.steps, seeds=asked.seeds)
            for key, values in sizes.items()
        }
    broken = [one for growths in found.values() for one in growths if one.breaks]
    if asked.json:
        told = {
            key: [{**_plain(one), "breaks": one.breaks} for one in growths]
            for key, growths in found.items()
        }
        print(dump_json(told, indent=2))
        return int(bool(broken))
    for key, growths in found.items():
        console().print(_table(growths, f"{key}={','.join(map(str, sizes[key]))}"))
        say(console(), _sentence(growths, key.removeprefix("model.")))
    return int(bool(broken))


def _config(arguments: Sequence[str], config_dirs: Sequence[Path]) -> dict[str, Any]:
    if arguments and not is_override(arguments[0]):
        run = Run.open(Path(arguments[0]))
        return complete(update(run.read_config(), arguments[1:]))
    return checked(arguments, config_dirs)


def _sizes(config: dict[str, Any], asked: Checked) -> dict[str, list[int]]:
    """The sizes that are compared, by the key that makes them."""
    model = config["model"]
    if "parametrization" not in model:
        raise ConfigError("model: a pretrained model has one size; choose one from scratch")
    sizes = {"model.width": sorted(asked.widths), "model.depth": sorted(asked.depths)}
    if not asked.widths and not asked.depths:
        width = model["base_width"] or max(2 * model["heads"], model["width"] // 4)
        sizes["model.width"] = [width * factor for factor in FACTORS]
        if model["parametrization"] == "completep":
            sizes["model.depth"] = [model["base_depth"] * factor for factor in FACTORS]
    return {key: values for key, values in sizes.items() if values}


def _plain(one: Growth) -> dict[str, Any]:
    return {k: None if v != v else v for k, v in asdict(one).items()}


def _table(growths: Sequence[Growth], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("layer", "start", "steps", ""):
        right = column in ("start", "steps")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for one in growths:
        said = Text("follows the size", "bold red") if one.breaks else Text("")
        table.add_row(one.layer, _slope(one.start), _slope(one.step), said)
    return table


def _slope(found: float) -> str:
    return "zero" if math.isnan(found) else f"{found:+.2f}"


def _sentence(growths: Sequence[Growth], size: str) -> Text:
    broken = [one for one in growths if one.breaks]
    if not broken:
        return Text.assemble(
            (f"No layer follows the {size}: ", "bold"),
            "what each gives by the weights that it starts from, and what a few steps add, grows "
            f"with the {size} to the power of {FLAT} at most.",
        )
    names = ", ".join(one.layer for one in broken[:5]) + ", …" * (len(broken) > 5)
    return Text.assemble(
        (f"{len(broken)} of {plural(len(growths), 'layer')} follow the {size}: ", "bold"),
        f"{names}. The columns are exponents of the {size}: of what a layer gives by the weights "
        "that it starts from, and of what a few steps add. For one learning rate for all sizes "
        "both are about 0.",
    )
