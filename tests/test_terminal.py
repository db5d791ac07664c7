"""Nothing that a user has written is markup."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import truesweep
from truesweep.commands.output import show_result
from truesweep.record.files import write_json
from truesweep.runs.run import Run
from truesweep.terminal import console, say, warn

ROOT = Path(truesweep.__file__).parent
LABELS = ("[/x]", "[positive]", "[bold]a[/]", ":smile:", "[link=x]")
"""What rich fails on, shows nothing of, or shows otherwise where it is markup."""
MARKUP = ("[/]", "[bold", "[dim", "[red", "[green", "[yellow")


def test_labels_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for label in LABELS:
        table = Table(label, title=label)
        table.add_row(label)
        console(width=80).print(label, table)
        warn([label])
        said = capsys.readouterr().out
        assert said.count(label) == 5, said


def test_the_final_table_has_every_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "task: {_target_: truesweep.tasks.Classification}"
    run = Run.create(tmp_path / "[/run]", config=config, overrides=[], provenance={})
    figures = {"train/steps": 1, "train/tokens": 1, "train/seconds": 1.0, "best_step": 1}
    verdict = {"kind": "fine", "text": "[/x] is never found"}
    write_json(run.results, {**figures, "val/loss": 1.0, "verdict": verdict})
    rows = [[label, 0.5] for label in LABELS]
    samples = [["[/x]", "[positive]"]]
    tables = {"classes": (["class", "f1"], rows), "[/x]": (["text", "[answer]"], samples)}
    write_json(run.tables, tables)
    (run.path / "wandb/.lock").mkdir(parents=True)
    show_result(run, 0)
    said = capsys.readouterr().out
    for text in (*LABELS, "[/x] is never found", "text: [/x]", "[answer]: [positive]", "[/run]"):
        assert text in said
    assert "wandb leet" not in said, "there is no record"
    (run.path / "wandb/offline-run-1-id").mkdir()
    show_result(run, 0)
    assert "wandb leet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_other_console_is_made_and_no_text_is_markup(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "Console" or path.name == "terminal.py", node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr != "from_markup", node.lineno
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "\n" not in node.value
        ):
            assert not any(sign in node.value for sign in MARKUP), f"{node.lineno}: {node.value}"


def test_sentences_are_one_line_in_a_pipe_and_whole_words_on_a_terminal() -> None:
    text = "a difference half as large would take about 2,617 seeds"
    lines = {}
    for terminal in (False, True):
        printed = io.StringIO()
        say(Console(file=printed, width=20, force_terminal=terminal, color_system=None), text)
        lines[terminal] = printed.getvalue().splitlines()
    assert lines[False] == [text]
    assert " ".join(line.rstrip() for line in lines[True]) == text
    assert all(len(line) <= 20 for line in lines[True])
