"""`truesweep generate`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from truesweep.data.encode import encode_inputs
from truesweep.data.samples import Kind
from truesweep.errors import ConfigError, DataError
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.load import load_folder, load_run
from truesweep.jobs.parts import task_class
from truesweep.models import Head
from truesweep.tasks import (
    Classification,
    LanguageModeling,
    Task,
    Translation,
    context_length,
)

TASKS: dict[str, type[Task]] = {
    "causal": LanguageModeling,
    "seq2seq": Translation,
    "classifier": Classification,
}


@dataclass(frozen=True)
class Options:
    """What the command line says of generation; None leaves the run's own setting."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    beam_size: int | None = None
    seed: int = 0


def generate(
    directory: Path, prompt: str | None, file: Path | None, checkpoint: str, options: Options
) -> int:
    """Continue, translate or classify each prompt, and print one result for each."""
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint {checkpoint}: expected best or last")
    task, packing = open_task(directory, checkpoint, options)
    torch.manual_seed(options.seed)
    for text in prompts(prompt, file):
        print(answer(task, text, packing), flush=True)
    return 0


def open_task(directory: Path, checkpoint: str, options: Options) -> tuple[Task, bool]:
    """A task over a trained model, and whether it has learned from packed text."""
    if (directory / "config.yaml").is_file():
        run = RunDirectory.open(directory)
        config = run.read_config()
        target = task_class(config)
        loaded = load_run(run, cast(Head, target.head), cast(Any, checkpoint))
        keys = {k: v for k, v in config["task"].items() if k != "_target_"}
        packing = bool(config["data"]["packing"])
    else:
        loaded = load_folder(directory)
        target, keys, packing = TASKS[loaded.head], {}, False
    keys |= _settings(target, options)
    if target.kind == "labelled":
        keys["labels"] = loaded.labels
    task = target(model=loaded.model, tokenizer=loaded.tokenizer, **keys)
    return task.eval(), packing


def _settings(target: type[Task], options: Options) -> dict[str, Any]:
    """The options that were given, under the names of the task's own."""
    names = {
        "text": {
            "max_new_tokens": "sample_tokens",
            "temperature": "sample_temperature",
            "top_k": "sample_top_k",
        },
        "pairs": {"max_new_tokens": "max_new_tokens", "beam_size": "beam_size"},
        "labelled": {},
    }[target.kind]
    return {
        key: getattr(options, option)
        for option, key in names.items()
        if getattr(options, option) is not None
    }


def answer(task: Task, text: str, packing: bool) -> str:
    """A continuation with its prompt, a translation, or a class with its probability."""
    kind = cast(Kind, task.kind)
    limit = context_length(task.model) or 1_000_000
    ids = encode_inputs(task.tokenizer, kind, [text], limit)[0]
    if isinstance(task, LanguageModeling):
        if packing:  # windows of packed text begin anywhere, with no special token
            ids = task.tokenizer(text or "\n", add_special_tokens=False)["input_ids"]
        return str(task.tokenizer.decode(task.sample(ids), skip_special_tokens=True))
    tokens = torch.tensor([ids], device=task.device)
    if isinstance(task, Translation):
        return task.translate_ids(tokens, torch.ones_like(tokens))[0]
    assert isinstance(task, Classification)
    with torch.inference_mode():
        logits = task.logits({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
    probability, index = logits.float().softmax(-1)[0].max(0)
    return f"{task.labels[int(index)]}\t{float(probability):.4f}"


def prompts(prompt: str | None, file: Path | None) -> Iterator[str]:
    """The prompt given, or the lines of a file or of standard input.

    Raises:
        DataError: The file does not exist or is not UTF-8.
    """
    if prompt is not None:
        yield prompt
    elif file is not None and str(file) != "-":
        try:
            yield from file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise DataError(f"--file {file}: there is no such file") from None
        except UnicodeDecodeError as error:
            raise DataError(f"--file {file}: not UTF-8 at byte {error.start}") from None
    elif file is not None or not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
    else:
        yield ""
