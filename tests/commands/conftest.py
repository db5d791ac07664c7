"""Small data and small runs of each task, made by the real commands."""

import json
import random
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.conftest import THREADS
from truesweep.record.rows import read

SMALL = [
    "model.depth=2",
    "model.width=32",
    "model.heads=2",
    "data.batch_size=8",
    "data.max_length=32",
    "trainer.accelerator=cpu",
    f"trainer.threads={THREADS}",
    "trainer.max_steps=12",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=2",
    "logger=none",
]
WORDS = [
    "red",
    "green",
    "blue",
    "cold",
    "warm",
    "small",
    "large",
    "old",
    "new",
    "quick",
    "slow",
    "bright",
    "dark",
    "soft",
    "loud",
]

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0.tar.xz"
MADE_IN = "/home/user/project"

TIMES = ("time", "tokens_per_second", "flops_per_second", "mfu")
TIMED = ("train/seconds", "train/flops_per_second", "train/mfu")
"""What a clock says in rows, and in final figures."""


def write_data(folder: Path) -> dict[str, list[str]]:
    """Text, pairs and labelled texts in files; the overrides that name them, by task."""
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(400)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    (folder / "pairs.de").write_text("\n".join(lines) + "\n")
    (folder / "pairs.en").write_text("\n".join(line.upper() for line in lines) + "\n")
    rows = [f"{line}\t{line.split()[0] < 'm'}" for line in lines]
    (folder / "labelled.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return {
        "lm": ["task=lm", "data=files", "data.train=text.txt"],
        "translation": [
            "task=translation",
            "tokenizer.vocab_size=300",
            "data=files",
            "data.train=pairs",
            "data.source=de",
            "data.target=en",
            "task.max_new_tokens=8",
        ],
        "classification": [
            "task=classification",
            "tokenizer.vocab_size=300",
            "data=files",
            "data.train=labelled.tsv",
        ],
    }


def write_chats(folder: Path) -> list[str]:
    """Conversations of one and two answers in a file; the overrides that name them."""
    rng = random.Random(0)

    def turn() -> list[dict[str, str]]:
        words = rng.choices(WORDS, k=rng.randint(2, 5))
        talk = {"user": " ".join(words), "assistant": " ".join(reversed(words))}
        return [{"role": role, "content": content} for role, content in talk.items()]

    rows = [{"messages": [m for _ in range(1 + i % 2) for m in turn()]} for i in range(300)]
    (folder / "chats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["task=sft", "tokenizer.vocab_size=300", "data=files", "data.train=chats.jsonl"]


def write_preferences(folder: Path) -> list[str]:
    """Answers that repeat a question, and worse ones, in a file; the overrides that name them."""
    rows = [
        {"prompt": f"{a} {b}", "chosen": f"{a} {b}", "rejected": "no no no"[: 2 + 3 * (i % 3)]}
        for a in WORDS
        for i, b in enumerate(WORDS)
    ]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["task=dpo", "tokenizer.vocab_size=300", "data=files", "data.train=pairs.jsonl"]


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


def truesweep(*arguments: str, cwd: Path) -> Finished:
    """Run a command in a process of its own."""
    done = processes.run(["-m", "truesweep", *arguments], cwd=cwd)
    return Finished(done.returncode, done.stdout, done.stderr)


def typed(*arguments: str, cwd: Path) -> Finished:
    """Run a command as a user does, by an interpreter that imports for seconds.

    Each command is so in one test, which sees what it forgets to import, and what depends on the
    order of sets, which is another one in each interpreter.
    """
    command = [sys.executable, "-m", "truesweep", *arguments]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def start(asked: list[str], cwd: Path, command: str = "train") -> processes.Process:
    return processes.Process(["-m", "truesweep", command, *asked], cwd=cwd)


def wait_for_rows(folder: Path, rows: int) -> Path:
    """The directory of the run in a folder, once it has written some rows of metrics."""
    deadline = time.monotonic() + 300  # a busy machine takes a minute to import
    while time.monotonic() < deadline:
        for path in folder.glob("*/metrics.jsonl"):
            if path.read_bytes().count(b"\n") >= rows:
                return path.parent
        time.sleep(0.01)
    raise AssertionError(f"no metrics in {folder}")


def values(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics without what a clock says."""
    rows = read(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_ranked_by(figure: str, sweep: Path) -> None:
    """Assert that of two jobs the one with more of a figure is first, and is in the report."""
    ranking = json.loads(truesweep("compare", str(sweep), "--json", cwd=sweep).out)
    first, second = (row[figure] for row in ranking)
    assert first > second
    assert figure in (sweep / "report.html").read_text()


@pytest.fixture
def data(workplace: Path) -> dict[str, list[str]]:
    """Overrides that name small data, by task; the current folder holds it."""
    return write_data(workplace)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> dict[str, Path]:
    """A finished run of each task, by its name."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = write_data(folder)
    runs = {}
    for task, named in overrides.items():
        done = truesweep("train", *named, *SMALL, f"name={task}", cwd=folder)
        assert done.code == 0, done.out + done.err
        (runs[task],) = (folder / "outputs" / task).iterdir()
    return runs


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and sweeps of version 0.1.0, in the folder that they were made in; only to be read."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    for file in (*folder.rglob("*.json"), *folder.rglob("sweep.yaml")):
        file.write_text(file.read_text().replace(MADE_IN, str(folder)))
    return folder
