"""`truesweep generate`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch

from truesweep.config.types import signature
from truesweep.data.readers import DataFile, stream_lines
from truesweep.errors import ConfigError
from truesweep.jobs.load import Which, load_folder, load_run, named_checkpoint
from truesweep.jobs.parts import task_class, with_defaults
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.tasks import Task, task_of
from truesweep.tasks.sft import SupervisedFineTuning
from truesweep.terminal import warn


@dataclass(frozen=True)
class Options:
    """What the command line says of generation; None leaves the run's own setting.

    Raises:
        ConfigError: One of them cannot be.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    beam_size: int | None = None
    seed: int = 0
    raw: bool = False
    """Continue what is typed, whatever the tokenizer's chat template."""
    trust_remote_code: tuple[str, ...] = ()
    """Folders of models whose own code may be run."""

    def __post_init__(self) -> None:
        for name, (least, end) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value < end:
                option = f"--{name.replace('_', '-')}"
                below = "" if end == inf else f", and less than {end}"
                raise ConfigError(f"{option} {value}: expected {least} or more{below}")


_RANGES = {
    "max_new_tokens": (1, inf),
    "temperature": (0, inf),
    "top_k": (1, inf),
    "beam_size": (1, inf),
    "seed": (0, 2**32),
}
"""From what on options can be, and what they are less than."""


def generate(
    directory: Path,
    prompt: str | None,
    file: Path | None,
    checkpoint: str,
    options: Options,
    as_json: bool = False,
) -> int:
    """Continue, answer, translate or classify each prompt, and print one result for each.

    As JSON, an object a line with `prompt` and `answer`.
    """
    task, packing = open_task(directory, named_checkpoint(checkpoint), options)
    torch.manual_seed(options.seed)
    for text in prompts(prompt, file):
        answer = task.answer(text, packing)
        shown = dump_json({"prompt": text, "answer": answer}) if as_json else answer
        print(shown, flush=True)
    return 0


def open_task(directory: Path, checkpoint: Which, options: Options) -> tuple[Task, bool]:
    """A task over a trained model, and whether it has learned from texts that were joined."""
    max_length = None
    if (directory / "config.yaml").is_file():
        run = Run.open(directory)
        config = with_defaults(run.read_config())
        target = task_class(config)
        loaded = load_run(run, target.head, checkpoint)
        keys = {k: v for k, v in config["task"].items() if k not in ("_target_", "metrics")}
        packing = config["data"]["packing"] is True
        max_length = config["data"]["max_length"]
    else:
        head, loaded = load_folder(directory, options.trust_remote_code)
        chats = head == "causal" and loaded.tokenizer.chat_template and not options.raw
        target = SupervisedFineTuning if chats else task_of(head)
        keys, packing = {}, False
    keys |= _settings(target, options)
    if "labels" in signature(target).parameters:
        keys["labels"] = loaded.labels
    task = target(model=loaded.model, tokenizer=loaded.tokenizer, **keys)
    task.max_length = max_length
    return task.eval(), packing


def _settings(target: type[Task], options: Options) -> dict[str, Any]:
    """The keys of a task that options set; says of those that it has none for."""
    settings = {}
    for option in ("max_new_tokens", "temperature", "top_k", "beam_size"):
        given = getattr(options, option)
        if given is not None and option in target.options:
            settings[target.options[option]] = given
        elif given:
            flag = f"--{option.replace('_', '-')}"
            warn([f"{flag} changes nothing of what {target.__name__} answers"], stderr=True)
    return settings


def prompts(prompt: str | None, file: Path | None) -> Iterator[str]:
    """The prompt given, or the lines of a file or of standard input, blank ones too.

    Raises:
        DataError: The file cannot be read, or what is read is not UTF-8.
    """
    if prompt is not None:
        try:
            prompt.encode()
        except UnicodeEncodeError:  # bytes that the terminal's encoding does not have
            raise ConfigError(f"--prompt {prompt!a}: is no valid UTF-8") from None
        yield prompt
    elif file is not None and str(file) != "-":
        yield from DataFile.read(file).lines()
    elif file is not None or not sys.stdin.isatty():
        yield from stream_lines(sys.stdin.buffer, "standard input")
    else:
        yield ""
