import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
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
    assert cells == ["1", "job3", "0.01", "4", "1.800", "1,000", "5.0 s", "5.0 s", "completed"]
    assert "Ahead: Best val/loss: 1.800 with lr=0.01 depth=4" in shown.out
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
    assert cells_of(shown, "job3") == ["1", "job3", "0.01", "4", "1.800", "completed"]
    assert "Left out to fit: cost, samples, time." in shown  # alike in all runs


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
    assert columns == ["12", "01", "[0.9,0.95][0.9,0.96]", "2.1002.100"]


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
        "noise": {
            "val/loss": {
                "difference": -0.5,
                "margin": None,
                "basis": "none",
                "beyond": None,
                "unlike": [],
            }
        },
    }
    assert diff(a, b, as_json=False) == 0
    shown = capsys.readouterr().out
    assert cells_of(shown, "optimizer.lr") == ["optimizer.lr", "0.001", "0.01"]
    assert cells_of(shown, "val/loss") == ["val/loss", "2.100", "1.600", "-0.50"]
    assert shown.index("optimizer.lr") < shown.index("val/loss") < shown.index("torch")
    assert "Data: the same" in shown


@pytest.mark.parametrize(("error", "said"), [(0.1, "beyond noise"), (0.4, "within noise")])
def test_diff_tells_noise_by_the_standard_errors(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], error: float, said: str
) -> None:
    known = {"val/loss_standard_error": error, "val/flops": 93402574848}
    a, b = (make_run(name, end=end, **known) for name, end in (("a", 2.0), ("b", 1.5)))
    diff(a, b, as_json=False)
    shown = capsys.readouterr().out
    *figures, margin, verdict = cells_of(shown, "val/loss")[1:]
    assert (figures, verdict) == (["2.100", "1.600", "-0.50"], said)
    # One-sided, as a ranking of the two has it.
    assert float(margin.removeprefix("±")) == pytest.approx(1.645 * error * 2**0.5, rel=0.03)
    assert "standard error of each evaluation" in " ".join(shown.split())
    assert "val/loss_standard_error" not in shown


def test_diff_compares_samples_in_pairs(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """What makes a sample hard for both cancels: a difference far below either standard error."""
    hard = np.array([1.0, 9.0, 2.0, 8.0])
    runs = []
    for name, shift in (("a", [0, 0, 0, 0]), ("b", [0.11, 0.1, 0.09, 0.1])):
        end = float((hard + shift).mean())
        runs.append(make_run(name, end=end - 0.1, **{"val/loss_standard_error": 2.0}))
        scores = runs[-1] / "scores"
        scores.mkdir()
        np.savez(scores / "val.npz", nll=hard + shift, count=np.ones(4))
    diff(runs[0], runs[1], as_json=False)
    shown = capsys.readouterr().out
    assert cells_of(shown, "val/loss")[-1] == "beyond noise"
    assert "both evaluations sample by sample" in " ".join(shown.split())


def test_diff_leaves_out_what_a_narrow_terminal_has_no_room_for(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], narrow: Any
) -> None:
    known = {"val/loss_standard_error": 0.1}
    a, b = (make_run(name, end=end, **known) for name, end in (("first", 2.0), ("second", 1.5)))
    loss = ["val/loss", "2.100", "1.600", "-0.50", "±0.23", "beyond noise"]
    for width, columns, left_out in (
        (80, [0, 1, 2, 3, 4, 5], None),
        (60, [0, 1, 2, 3, 5], "noise"),
        (46, [0, 1, 2, 5], "difference, noise"),
        (40, [0, 1, 2], "difference, noise, whether it is beyond noise"),
    ):
        narrow(width)
        diff(a, b, as_json=False)
        shown = capsys.readouterr().out
        assert cells_of(shown, "val/loss") == [loss[i] for i in columns]
        told = " ".join(re.sub(r"\x1b\[\d*m", "", shown).split())
        assert (f"Left out to fit: {left_out}. --json has all." in told) == bool(left_out)
        assert ("Noise: how far" in told) == (5 in columns)


def test_diff_dumps_no_lists_and_fits_a_pipe(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    def verdict(loss: float) -> dict[str, Any]:
        forecasts = [{"loss": loss, "low": loss, "high": loss}] * 20
        return {"kind": "improving", "text": "", "forecasts": forecasts, "best_loss": loss}

    long = configuration(optimizer__betas=list(range(99)), name="words " * 60)
    flops = {"train/flops": 93402574848}
    a = make_run("a", verdict=verdict(1.0), **flops)
    b = make_run("b", long, verdict={**verdict(2.0), "kind": "healthy"}, **{"train/flops": 5})
    assert diff(a, b, as_json=False) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    assert "forecasts" not in shown
    assert cells_of(shown, "verdict") == ["verdict", "undertrained", "healthy", ""]
    assert cells_of(shown, "train/flops") == ["train/flops", "93.4G", "5", "-93.4G"]
    assert "37,38" not in shown
    assert diff(a, b, as_json=True) == 0
    assert "forecasts" in capsys.readouterr().out


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
