"""What a search's pruner is where nothing is said of it; nothing is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.commands.conftest import SMALL, write_data
from truesweep.errors import ConfigError
from truesweep.sweeps.launchers import make_executor
from truesweep.sweeps.planning import SweepPlan
from truesweep.sweeps.request import ask
from truesweep.sweeps.start import as_decided, prepare, record

SEARCH = (
    *("name=s", "model.depth=1,2", "sweeps.method=search", "sweeps.jobs=2"),
    "trainer.val_check_interval=2",
)
Plan = Callable[..., SweepPlan]


@pytest.fixture
def plan(workplace: Path) -> Plan:
    """Plans a search of small jobs, changed key by key, and notes in its directory what it is."""
    small = [*write_data(workplace)["lm"], *SMALL]
    pool = make_executor({})

    def planned(*overrides: str, ours: bool = True) -> SweepPlan:
        lines = {line.partition("=")[0]: line for line in (*small, *SEARCH, *overrides)}
        asked = ask(list(lines.values()))
        made = prepare(asked, pool if ours else None)
        record(as_decided(asked, made), {}, made)
        return made

    return planned


def recorded() -> object:
    """The pruner that the search's directory tells of."""
    return yaml.safe_load(Path("outputs/sweeps/s/sweep.yaml").read_text())["sweeps"]["pruner"]


def test_a_search_pauses_by_forecasts_and_says_so(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    assert recorded() == "forecast"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 points, chosen by tpe and paused by forecasts, to minimize val/loss" in said
    assert (
        "note every point is begun and then waits; those go on whose forecast of val/loss" in said
    )
    assert "(sweeps.pruner=null trains every point to its end)" in said


@pytest.mark.parametrize("none", ["null", "none"])
def test_a_search_without_a_pruner_says_nothing_of_one(
    plan: Plan, capsys: pytest.CaptureFixture[str], none: str
) -> None:
    assert plan(f"sweeps.pruner={none}").notes == []
    assert recorded() is None
    assert "2 points, chosen by tpe, to minimize val/loss" in capsys.readouterr().out


def test_a_grid_has_no_pruner_and_no_word_of_it(plan: Plan) -> None:
    assert not any("point" in note for note in plan("sweeps.method=grid").notes)
    assert recorded() is None


OBSTACLES = {
    "sampler": (["sweeps.sampler=cmaes"], "sweeps.sampler=cmaes chooses by jobs that have ended"),
    "hours": (["sweeps.hours=1", "sweeps.jobs=null"], "say how many there are to be"),
    "objectives": (["sweeps.objective=[val/loss,parameters]"], "several objectives cannot be"),
    "late": (["sweeps.objective=train/tokens"], "sweeps.objective=train/tokens: is known at the"),
}


@pytest.mark.parametrize("why", OBSTACLES)
def test_where_forecasts_cannot_work_there_are_none_and_it_is_said_why(
    plan: Plan, why: str
) -> None:
    overrides, reason = OBSTACLES[why]
    [note] = plan(*overrides).notes
    assert note.startswith("no point is paused, each is trained to its end: ")
    assert reason in note
    assert recorded() is None
    with pytest.raises(ConfigError, match=reason.replace("[", r"\[")):
        plan(*overrides, "sweeps.pruner=forecast")


def test_another_launcher_pauses_nothing(plan: Plan) -> None:
    reason = "only our own launchers can pause jobs"
    assert reason in plan(ours=False).notes[0]
    assert recorded() is None
    with pytest.raises(ConfigError, match=reason):
        plan("sweeps.pruner=forecast", ours=False)


@pytest.mark.parametrize("rare", ["trainer.val_check_interval=3", "sweeps.pruner_warmup=3"])
def test_what_can_wait_only_late_is_trained_to_its_end_unless_it_is_asked_for(
    plan: Plan, rare: str
) -> None:
    [note] = plan(rare).notes
    assert "depth=1 could wait for the first time after 3 of 12 steps" in note
    assert recorded() is None
    plan(rare, "sweeps.pruner=forecast")
    assert recorded() == "forecast"


@pytest.mark.parametrize("begun", ["null", "median", "forecast"])
def test_a_search_that_has_begun_keeps_its_pruner(plan: Plan, begun: str) -> None:
    plan(f"sweeps.pruner={begun}")
    kept = recorded()
    notes = plan("sweeps.jobs=4").notes
    assert recorded() == kept
    assert any("as it was when this search began" in note for note in notes) == (kept is None)
    plan("sweeps.pruner=forecast")
    assert recorded() == "forecast"


def test_a_search_that_follows_a_grid_has_begun_nothing(plan: Plan) -> None:
    plan("sweeps.method=grid")
    plan()
    assert recorded() == "forecast"
