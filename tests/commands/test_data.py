"""What `truesweep data` says of small files with known duplicates and leaks."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import SMALL, WORDS, truesweep
from truesweep.commands import main
from truesweep.commands.data import data
from truesweep.data import leakage
from truesweep.errors import ConfigError, DataError
from truesweep.runs.run import Run

SIZES = {"train": 300, "val": 20, "test": 20}


def write(folder: Path, suffix: str, line: str) -> list[str]:
    """A file for each split, with the lines that `line` makes of a text; the overrides for them.

    The first two texts of val stand in train too, the second in capitals; the third but for its
    last letter; and train's last text twice.
    """
    rng = random.Random(0)
    texts = {s: [" ".join(rng.choices(WORDS, k=12)) for _ in range(n)] for s, n in SIZES.items()}
    train, val = texts["train"], texts["val"]
    val[0], val[1], val[2] = train[0], train[1].upper(), train[2] + "s"
    train.append(train[-1])
    header = "text\tlabel\n" if suffix == ".tsv" else ""
    for split, made in texts.items():
        rows = (line.format(text=text, label="ab"[i % 2]) for i, text in enumerate(made))
        (folder / f"{split}{suffix}").write_text(header + "".join(rows))
    return ["data=files", *(f"data.{split}={split}{suffix}" for split in SIZES)]


@pytest.fixture
def labelled(workplace: Path) -> list[str]:
    """Overrides for labelled texts in the current folder."""
    return ["task=classification", "tokenizer=byte", *write(workplace, ".tsv", "{text}\t{label}\n")]


@pytest.fixture
def text(workplace: Path) -> list[str]:
    """Overrides for plain text in the current folder."""
    return ["task=lm", *write(workplace, ".txt", "{text}\n\n")]


@pytest.fixture
def pairs(workplace: Path) -> list[str]:
    """Overrides for pairs in the current folder."""
    asked = write(workplace, ".de", "{text}\n")
    for split in SIZES:
        source = (workplace / f"{split}.de").read_text()
        (workplace / f"{split}.en").write_text(source.swapcase())
    sides = ["data.source=de", "data.target=en"]
    return ["task=translation", "tokenizer=byte", *sides, *(a.removesuffix(".de") for a in asked)]


def described(asked: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert data(asked, [], show=5, as_json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("task", ["labelled", "text", "pairs"])
def test_planted_duplicates_and_leaks_are_counted(
    task: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    found = described(request.getfixturevalue(task), capsys)
    assert found["kind"] == task
    repeated = {name: part["duplicates"]["repeated"] for name, part in found["splits"].items()}
    assert repeated == {"train": 1, "val": 0, "test": 0}
    counts = {
        (leak["split"], leak["other"]): (leak["passages"], leak["exact"], leak["near"])
        for leak in found["leakage"]
    }
    assert counts == {
        ("val", "train"): (20, 2, 1),
        ("test", "train"): (20, 0, 0),
        ("test", "val"): (20, 0, 0),
    }
    assert [leak["similarity"] == 1 for leak in found["leakage"][0]["examples"]] == [1, 1, 0]
    said = [warning["problem"] for warning in found["warnings"]]
    assert any(s.startswith("val is not independent of train: 3 of its 20") for s in said), said
    assert not any(s.startswith("test is not independent") for s in said), said


def test_leaks_are_looked_for_once(
    text: list[str],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(workplace / "cache"))
    looked: list[object] = []
    look = leakage._look_through

    def counted(*arguments: Any) -> None:
        looked.append(arguments)
        look(*arguments)

    monkeypatch.setattr(leakage, "_look_through", counted)
    found = described(text, capsys)["leakage"]
    assert len(looked) == 2  # through train and through val
    assert described(text, capsys)["leakage"] == found
    assert len(looked) == 2
    assert described([*text, "data.decontaminate=off"], capsys)["leakage"] == []
    assert data([*text, "data.decontaminate=off"], []) == 0
    assert "Leakage" not in capsys.readouterr().out


def typed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of a command line."""
    monkeypatch.setattr("sys.argv", ["truesweep", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_page_fits_eighty_columns_and_shows_what_was_asked(
    labelled: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert typed("data", *labelled, "--show", "1", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("val in train: ") == 1
    assert "Warning: val is not independent of train: 3 of its 20 samples" in printed
    assert not Path("outputs").exists()


def test_nothing_is_shown_of_leaks_if_none_is_asked(
    pairs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(pairs, [], show=0) == 0
    printed = capsys.readouterr().out
    assert "val in train" not in printed
    assert "2 (10 %)" in printed


def test_markup_in_a_text_is_shown_as_it_stands(
    labelled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        with Path(f"{split}.tsv").open("a") as file:
            file.write("[bold]x[/] [/nothing]\t[b]\n")
    assert data(labelled, [], show=9) == 0
    printed = capsys.readouterr().out
    assert "[bold]x[/] [/nothing] → [b]" in printed
    assert "│ [b] " in printed


@pytest.mark.usefixtures("workplace")
def test_data_that_cannot_be_used_end_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["task=lm", "data=files", "data.train=none.txt"]
    assert typed("data", *asked, monkeypatch=monkeypatch) == 2
    assert "none.txt does not exist" in capsys.readouterr().err


def test_labels_that_read_alike_are_told(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"{word} {i}\t{label}" for i in range(40) for word, label in (("a", "Pos"), ("b", "pos"))
    ]
    Path("t.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    asked = ["task=classification", "data=files", "data.train=t.tsv", "data.batch_size=4"]
    assert data(asked, []) == 0
    assert "the labels 'Pos', 'pos' differ in case" in " ".join(capsys.readouterr().out.split())


def test_a_label_that_training_lacks_is_an_error(labelled: list[str]) -> None:
    with Path("val.tsv").open("a") as file:
        file.write("text\tc\n")
    with pytest.raises(DataError, match=r"val.tsv, line 22: label 'c' is in val and not in train"):
        data(labelled, [])


def test_a_negative_number_of_examples_is_refused(labelled: list[str]) -> None:
    with pytest.raises(ConfigError, match="--show -1"):
        data(labelled, [], show=-1)


@pytest.mark.parametrize("task", ["lm", "translation", "classification"])
def test_embedded_data_are_described(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = described([f"task={task}", "tokenizer=byte"], capsys)
    assert min(part["samples"] for part in found["splits"].values()) > 0
    judged = {leak["split"]: leak for leak in found["leakage"] if leak["other"] == "train"}
    assert judged["test"]["exact"] + judged["test"]["near"] < 0.02 * judged["test"]["passages"]
    assert not any(warning["problem"].startswith("test ") for warning in found["warnings"])


def test_a_page_has_figures_and_examples_and_no_markup_of_the_data(
    workplace: Path, capsys: pytest.CaptureFixture[str], labelled: list[str]
) -> None:
    evil = "<script>alert(1)</script> is what <b>this</b> text of ten words is all about"
    for split in ("train", "val"):
        with (workplace / f"{split}.tsv").open("a") as file:
            file.write(f"{evil}\ta\n" * 2 + f"schÃ¶n {split} in deed\tb\n")
    asked = [*labelled, "data.clean.unicode=true", "data.clean.duplicates=true"]
    assert data(asked, [], html=Path("page.html")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = (workplace / "page.html").read_text()
    for told in ("unicode", "duplicates", "distinct word 2-grams", "1 are changed (1 by unicode)"):
        assert told in printed
        assert told in page
    assert "schÃ¶n" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "script-src" not in page  # and default-src 'none'
    assert "Of val, and in train" in page


def test_a_rule_is_swept_and_its_account_is_kept(labelled: list[str], workplace: Path) -> None:
    with (workplace / "train.tsv").open("a") as file:
        file.write("this line of text stands there twice\ta\n" * 2)
    swept = [*labelled, *SMALL, "data.clean.duplicates=false,true", "name=s"]
    done = truesweep("train", "-m", *swept, cwd=workplace)
    assert done.code == 0, done.out + done.err
    runs = [Run.open(path.parent) for path in workplace.glob("outputs/sweeps/s/*/results.json")]
    kept, cleaned = sorted((run.read_results() for run in runs), key=lambda r: "cleaned" in r)
    assert cleaned["cleaned"]["train"]["dropped"] == {"duplicates": cleaned["train/dropped"]}
    assert "cleaned" not in kept
    assert kept["val/samples"] == cleaned["val/samples"] == 20
    assert kept["val/leaked_share"] == cleaned["val/leaked_share"] > 0
