"""What is said of real trainings, small ones, that end in a known way."""

import json
import random
from pathlib import Path

import pytest

from tests.commands.conftest import WORDS
from truesweep.commands.train import train
from truesweep.report import compare

TINY = [
    "data=files",
    "data.val=val.txt",
    "data.test=val.txt",
    "data.max_length=32",
    "data.batch_size=8",
    "model.depth=1",
    "model.width=32",
    "model.heads=2",
    "task.sample_tokens=0",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.log_every_n_steps=5",
    "logger=none",
    "name=x",
]
ENDS = {
    "overfitting": ["data.train=few.txt", "trainer.max_epochs=40"],
    "undertrained": ["data.train=many.txt", "trainer.max_steps=30", "scheduler=constant"],
    "diverged": [
        "data.train=many.txt",
        "trainer.max_steps=60",
        "optimizer=adamw",
        "optimizer.lr=10",
    ],
    "healthy": ["data.train=many.txt", "trainer.max_steps=300", "data.batch_size=16"],
}
SAID = {
    "overfitting": "Overfitting since step ",
    "undertrained": "Undertrained: at step 30 ",
    "diverged": "Diverged: the training loss rose from ",
    "healthy": "",
}


def write_text(path: Path, lines: int, seed: int) -> None:
    """Words without order, some of them rarer: a model learns their letters, and no more."""
    draw = random.Random(seed)
    weights = range(1, len(WORDS) + 1)
    made = (" ".join(draw.choices(WORDS, weights, k=8)) for _ in range(lines))
    path.write_text("".join(f"{line}\n" for line in made))


@pytest.mark.parametrize("kind", ENDS)
def test_a_training_that_ends_in_a_known_way_is_judged_so(
    workplace: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for seed, (name, lines) in enumerate({"few": 12, "many": 3000, "val": 60}.items()):
        write_text(workplace / f"{name}.txt", lines, seed)
    assert train([*TINY, *ENDS[kind]], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    verdict = json.loads((run / "results.json").read_text())["verdict"]
    assert verdict["kind"] == kind
    assert verdict["text"].startswith(SAID[kind])
    assert ("Verdict:" in capsys.readouterr().out) == (kind != "healthy")
    assert compare([run]).runs[0].verdict == verdict
    if kind == "overfitting":
        assert verdict["best_step"] == verdict["since_step"] < 40
        assert verdict["gap"] > verdict["rise"] > 0.2
