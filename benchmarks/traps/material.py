"""The samples that both stacks see, and the trained models that both start from."""

import io
import random
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

from benchmarks.traps.ours import quietly
from truesweep.commands.export import export

SIZES = (1, 3, 5, 7, 8, 17)
WORDS = {
    "rot": "red",
    "grün": "green",
    "blau": "blue",
    "kalt": "cold",
    "warm": "warm",
    "klein": "small",
    "groß": "large",
    "alt": "old",
    "neu": "new",
    "schnell": "quick",
    "langsam": "slow",
    "hell": "bright",
    "dunkel": "dark",
    "weich": "soft",
    "laut": "loud",
}
PLACES = {"lm": "{}.txt", "translation": "{}", "classification": "{}.tsv"}
"""By task, how a file of samples is named in the configuration."""
MODEL = [
    "model.depth=2",
    "model.width=32",
    "model.heads=2",
    "data.max_length=96",
    "data.packing=false",
]
TASKS = {
    "lm": ["task=lm", "model=gpt2"],
    "translation": [
        "task=translation",
        "model=bart",
        "tokenizer=word",
        "data.source=de",
        "data.target=en",
        "task.beam_size=1",
        "task.max_new_tokens=12",
        "task.label_smoothing=0",
        "task.val_generated=null",
    ],
    "classification": ["task=classification", "model=bert", "tokenizer=word"],
}


def write(folder: Path, name: str, samples: int, seed: int, other: float = 0.0) -> None:
    """Write sentences of 3 to 9 words as text, as pairs, and with a label.

    Args:
        folder: Where.
        name: What the files are called.
        samples: How many sentences.
        seed: Decides them.
        other: Share of words that are translated otherwise than in training.
    """
    draw = random.Random(seed)
    chosen = [draw.choices(list(WORDS), k=draw.randint(3, 9)) for _ in range(samples)]
    sources = [" ".join(words) for words in chosen]
    targets = [
        " ".join("other" if draw.random() < other else WORDS[w] for w in words) + "."
        for words in chosen
    ]
    labels = [("early", "middle", "late")[len(words) % 3] for words in chosen]
    (folder / f"{name}.txt").write_text("\n".join(sources) + "\n")
    (folder / f"{name}.de").write_text("\n".join(sources) + "\n")
    (folder / f"{name}.en").write_text("\n".join(targets) + "\n")
    rows = [f"{text}\t{label}" for text, label in zip(sources, labels, strict=True)]
    (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")


def write_all(folder: Path) -> None:
    """All files that the traps need."""
    write(folder, "train", 640, seed=0)
    write(folder, "sixty-four", 64, seed=1, other=0.3)
    write(folder, "eighty", 80, seed=2)
    for size in SIZES:
        write(folder, f"n{size}", size, seed=100 + size, other=0.15)


def named(task: str, **splits: str) -> list[str]:
    """Overrides that name a task's data."""
    places = [f"data.{split}={PLACES[task].format(name)}" for split, name in splits.items()]
    return [*TASKS[task], "data=files", *places]


@cache
def trained(task: str, dropout: float) -> Path:
    """A model of the task in Hugging Face layout, good enough to be neither right nor wrong.

    Args:
        task: The task.
        dropout: The rate that the model is trained with, here and later.
    """
    overrides = [*named(task, train="train", val="n17", test="n17"), *MODEL]
    steps = {"lm": 60, "translation": 400, "classification": 40}[task]
    length = ["data.batch_size=32", f"trainer.max_steps={steps}"]
    made = quietly(*overrides, *length, f"model.dropout={dropout}")
    folder = Path("models", f"{task}-{dropout}").absolute()
    with redirect_stdout(io.StringIO()):
        export(made.path, folder, "last")
    return folder
