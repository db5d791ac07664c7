import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import truesweep
from tests.report.conftest import MakeRun, configuration, make_run, sweep
from truesweep.commands.compare import Options, compare_runs
from truesweep.commands.diff import diff
from truesweep.errors import ConfigError

__all__ = ["make_run", "sweep"]  # fixtures


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_and_the_report(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_runs([sweep], Options()) == 0
    shown = capsys.readouterr()
    first = next(line for line in shown.out.splitlines() if "job3" in line)
    cells = [cell.strip() for cell in first.strip("│").split("│")]
    assert cells == ["1", "job3", "0.01", "4", "1.8", "1k", "5 s", "5 s", "completed"]
    assert "Ahead: Best val/loss: 1.8 with lr=0.01 depth=4" in shown.out
    assert (sweep / "report.html").is_file()
    assert "report.html" in shown.err


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(width: int) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
        monkeypatch.setenv("NO_COLOR", "1")  # without codes between the cells
        monkeypatch.setenv("COLUMNS", str(width))

    return at


def cells_of(shown: str, name: str) -> list[str]:
    """Of a run's row, without what a terminal styles them by."""
    line = next(line for line in shown.splitlines() if name in line)
    return [cell.strip() for cell in re.sub(r"\x1b\[\d*m", "", line).strip("│").split("│")]


def test_a_narrow_terminal_is_given_whole_columns_that_fit(
    sweep: Path, capsys: pytest.CaptureFixture[str], narrow: Any
) -> None:
    narrow(52)
    compare_runs([sweep], Options())
    shown = capsys.readouterr().out
    assert cells_of(shown, "job3") == ["1", "job3", "0.01", "4", "1.8", "completed"]
    assert "Left out to fit: cost, tokens, time." in shown  # alike in all runs


def test_rank_keys_and_objective_stay_however_narrow_it_is(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], narrow: Any
) -> None:
    for i in range(2):
        make_run(f"runs/{i}", configuration(model__depth=i, optimizer__betas=[0.9, 0.95 + i / 100]))
    narrow(24)
    compare_runs([tmp_path / "runs"], Options(html=tmp_path / "page.html"))
    shown = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert "…" not in shown
    lines = [line.strip("│").split("│") for line in shown.splitlines() if "│" in line]
    columns = ["".join(map(str.strip, cells)) for cells in zip(*lines, strict=True)]
    assert columns == ["12", "01", "[0.9,0.95][0.9,0.96]", "2.12.1"]


def test_several_folders_report_into_the_current_one(
    sweep: Path, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_run("other/a", configuration(seed=5))
    monkeypatch.chdir(other.parent)
    assert compare_runs([sweep, other], Options()) == 0
    assert (other.parent / "report.html").is_file()
    assert not (sweep / "report.html").exists()


def test_json_has_every_column_and_writes_nothing(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_runs([sweep], Options(json=True, filters=["depth=4"], sort="lr"))
    first, second = rows(capsys)
    assert (first["id"], first["rank"], first["optimizer.lr"]) == ("job2", 2, 0.001)
    assert (second["val/loss"], second["tokens"], second["cost"]) == (1.8, 1000, 5.0)
    assert not (sweep / "report.html").exists()


def test_a_filtered_page_replaces_none_of_all_runs(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_runs([sweep], Options())
    whole = (sweep / "report.html").read_text()
    capsys.readouterr()
    compare_runs([sweep], Options(filters=["depth=4"]))
    assert (sweep / "report.html").read_text() == whole
    assert "give --html PATH" in capsys.readouterr().err
    compare_runs([sweep], Options(filters=["depth=4"], html=sweep / "part.html"))
    assert '"filters":["depth=4"]' in (sweep / "part.html").read_text().replace(" ", "")


def test_csv_can_be_read_back(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_runs([sweep], Options(csv=True, html=tmp_path / "page.html"))
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in found] == ["job3", "job2", "job0", "job1"]
    assert (found[3]["state"], found[3]["rank"]) == ("failed", "")
    assert (tmp_path / "page.html").is_file()


def test_names_are_no_markup(
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_run("a", configuration(optimizer__betas="[bold]x[/nonsense]"))
    make_run("b", configuration(optimizer__betas="[red]"))
    monkeypatch.chdir(tmp_path)  # where the page goes
    assert compare_runs([tmp_path], Options(json=False)) == 0
    assert "[bold]x[/nonsense]" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_no_failure(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_runs([sweep], Options(html=sweep / "missing" / "report.html")) == 0
    assert "No report was written" in capsys.readouterr().err


def test_unknown_keys_end_with_code_2(sweep: Path) -> None:
    done = truesweep("compare", str(sweep), "--filter", "model.dept=4", cwd=sweep)
    assert (done.code, done.out) == (2, "")
    assert "did you mean model.depth?" in done.err


def test_diff(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run("a", end=2.0)
    b = make_run("b", configuration(optimizer__lr=0.01), end=1.5)
    (b / "provenance.json").write_text('{"python": "3.11", "packages": {"torch": "2.14"}}')
    assert diff(a, b, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "configuration": {"optimizer.lr": {"a": 0.001, "b": 0.01}},
        "versions": {"packages.torch": {"a": "2.13", "b": "2.14"}},
        "data": {},
        "results": {"val/loss": {"a": 2.1, "b": 1.6}},
    }
    assert diff(a, b, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "optimizer.lr" in shown
    assert "the same" in shown


def test_diff_says_what_one_side_lacks(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run("a")
    b = make_run("b", state="failed", error="RuntimeError: no")
    diff(a, b, as_json=True)
    results = json.loads(capsys.readouterr().out)["results"]
    assert results["error"] == {"b": "RuntimeError: no"}
    assert results["val/loss"] == {"a": 2.1}


def test_diff_wants_runs(sweep: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        diff(sweep, sweep, as_json=False)
