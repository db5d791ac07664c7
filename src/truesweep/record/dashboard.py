"""A sweep's dashboard: a workspace that W&B saves with its project, and a file of it meanwhile.

`workspace.json` in the sweep's directory holds W&B's own form of it, a "view": `spec` is what is
shown, `name` what the server knows it by. Once it is with W&B, it has an `id` and a `url` as well.
`python -m truesweep.record.dashboard FILE` sends it.
"""

import hashlib
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truesweep.compat import save_view, workspace_view
from truesweep.errors import DataError
from truesweep.record.files import write_json

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import interface as reports
    from wandb_workspaces.workspaces import Section, Workspace

FILE = "workspace.json"
MISSING = "wandb-workspaces is not installed; type pip install 'truesweep[dashboard]'"
AXES = {"step": "optimizer steps", "tokens": "tokens", "time": "seconds"}
"""What curves are drawn over, by the name of the value in every row."""
MOST_RUNS = 100
"""Lines in one plot."""


REFUSED = {"So", "Sk", "Sm", "Sc", "Cs"}
"""Of Unicode's categories, those that wandb-workspaces (0.4) takes for emojis, in a view's name."""


@dataclass(frozen=True)
class Dashboard:
    """What a sweep's workspace shows.

    Args:
        name: What it is called: the sweep's name.
        objectives: `min` or `max` by figure, the one that ranks first.
        swept: What varies, as W&B has it under `swept` in the configuration of each run: whether
            its axis is logarithmic, by name.
        curves: The names of what the runs have recorded over their steps.
        runs: How many there are.
        text: What was learned, in Markdown.
    """

    name: str
    objectives: Mapping[str, str]
    swept: Mapping[str, bool]
    curves: Sequence[str]
    runs: int
    text: str

    @property
    def leading(self) -> list[str]:
        """The curves to look at first: the objectives', losses, and other validations'."""
        validated = (name for name in self.curves if name.startswith("val/"))
        first = dict.fromkeys([*self.objectives, "train/loss", "val/loss", *validated])
        return [name for name in first if name in self.curves]


def is_available() -> bool:
    """Whether W&B's package for workspaces is installed."""
    return find_spec("wandb_workspaces") is not None


def view(shown: Dashboard, key: str, entity: str, project: str, group: str) -> dict[str, Any]:
    """A workspace as W&B keeps it.

    Args:
        shown: What it shows.
        key: Of another sweep in the same project it is another one; a second view of one sweep
            takes the place of the first.
        entity: W&B's user or team; empty: whose account sends it.
        project: W&B's project.
        group: The group that the sweep's runs have there.
    """
    name = hashlib.sha256(key.encode()).hexdigest()[:11]
    return workspace_view(_workspace(shown, entity, project), name, group)


def _workspace(shown: Dashboard, entity: str, project: str) -> "Workspace":
    from wandb_workspaces import workspaces
    from wandb_workspaces.expr import And, Metric, Ordering, Summary

    objective, mode = next(iter(shown.objectives.items()))
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=_plain(shown.name),
        sections=[section for section in _sections(shown) if section.panels],
        settings=workspaces.WorkspaceSettings(max_runs=min(shown.runs, MOST_RUNS) or 1),
        runset_settings=workspaces.RunsetSettings(
            filters=And(Metric("Group") == "", Metric("JobType") != "summary"),
            order=[Ordering(Summary(objective), ascending=mode == "min")],
            pinned_columns=[f"summary:{name}" for name in shown.objectives],
        ),
    )


def _plain(name: str) -> str:
    """A name without the symbols that W&B refuses in one, as `=` in `lr=0.1` and `+`."""
    return "".join("-" if unicodedata.category(one) in REFUSED else one for one in name)


def _sections(shown: Dashboard) -> "list[Section]":
    from wandb_workspaces.reports.v2 import interface as reports

    leading = shown.leading
    others = sorted(set(shown.curves) - set(leading))
    over_each = [_curve(name, axis) for name in leading for axis in AXES]
    return [
        _section("What was learned", [reports.MarkdownPanel(markdown=shown.text)], columns=1),
        _section("What was varied", _varied(shown), columns=1),
        _section("Curves", over_each, columns=len(AXES)),
        _section("Others", [_curve(name, "step") for name in others], is_open=False),
    ]


def _section(name: str, panels: Sequence[Any], columns: int = 3, is_open: bool = True) -> "Section":
    from wandb_workspaces.workspaces import Section, SectionLayoutSettings

    layout = SectionLayoutSettings(columns=columns, rows=max(1, -(-len(panels) // columns)))
    return Section(name=name, panels=list(panels), is_open=is_open, layout_settings=layout)


def _varied(shown: Dashboard) -> "list[reports.Panel]":
    """How values go together with what they brought, and how much each of them mattered."""
    from wandb_workspaces.reports.v2 import interface as reports

    if not shown.swept:
        return []
    columns = [
        reports.ParallelCoordinatesPlotColumn(
            reports.Config(f"swept.{name}"), display_name=name, log=log or None
        )
        for name, log in shown.swept.items()
    ]
    columns += [
        reports.ParallelCoordinatesPlotColumn(reports.SummaryMetric(name))
        for name in shown.objectives
    ]
    together = reports.ParallelCoordinatesPlot(columns, title="What was varied, and what it gave")
    importance = [reports.ParameterImportancePlot(name) for name in shown.objectives]
    return [together, *importance]


def _curve(name: str, axis: str) -> "reports.Panel":
    from wandb_workspaces.reports.v2 import interface as reports

    return reports.LinePlot(title=f"{name} by {axis}", x=axis, y=[name], title_x=AXES[axis])


# -- the file, and the server -------------------------------------------------------------------


def write(file: Path, made: Mapping[str, Any]) -> None:
    """Keep a view, as one that is still to be sent; the server's id of an earlier one stays."""
    write_json(file, {**made, "id": read(file).get("id", "")})


def read(file: Path) -> dict[str, Any]:
    """The view in a file; empty if there is none, or none that can be read."""
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def send(file: Path) -> str:
    """Save a view with W&B, and note in its file that it is there; gives its address.

    Raises:
        DataError: The file is damaged.
        Exception: Of W&B's: no account, no server, or no such project.
    """
    made = read(file)
    if "spec" not in made:
        raise DataError(f"{file} is damaged; `truesweep resume {file.parent}` writes it anew")
    sent = save_view(made)
    write_json(file, sent)
    return str(sent["url"])


def main() -> int:
    """Send the view that is named; prints its address, or why it cannot be sent."""
    if not is_available():
        print(MISSING, file=sys.stderr)
        return 1
    try:
        print(send(Path(sys.argv[1])))
    except Exception as error:
        print(" ".join(str(error).split()) or repr(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
