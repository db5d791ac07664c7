"""How much of this program one training enters, and one of its steps: files, and functions.

    python benchmarks/trace.py [--list] [KEY=VALUE]...

Trains for a few steps on the CPU, in a temporary folder, and counts by `sys.setprofile` what of
`src/truesweep` is called, in all threads: functions by file and name, without bodies of modules
and classes, and without what stands inside of another function, such as a lambda. A step is what
every step enters, from one call of `Training.training_step` to the next, that neither writes a row
of metrics nor is validated.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterable
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import truesweep
from truesweep.commands import app

ROOT = Path(truesweep.__file__).parent
USUAL = ["trainer=cpu", "trainer.max_steps=9", "trainer.val_check_interval=9"]
STEP = ("tasks/training.py", "Training.training_step")

Function = tuple[str, str]


class Trace:
    """What is called, by file below `src/truesweep` and name; and the same of each step."""

    def __init__(self) -> None:
        self.entered: set[Function] = set()
        self.steps: list[set[Function]] = []
        self._known: dict[CodeType, Function | None] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Called by Python with everything that is called."""
        if event != "call":
            return
        code = frame.f_code
        if code not in self._known:
            self._known[code] = function_of(code)
        function = self._known[code]
        if function is None:
            return
        if function == STEP:
            self.steps.append(set())
        self.entered.add(function)
        if self.steps:
            self.steps[-1].add(function)


def function_of(code: CodeType) -> Function | None:
    """The file and name of a function of ours; None for anything else."""
    path = Path(code.co_filename)
    if not code.co_flags & CO_NEWLOCALS or not path.is_relative_to(ROOT):
        return None
    name = code.co_qualname.partition(".<locals>")[0]
    return None if "<" in name else (path.relative_to(ROOT).as_posix(), name)


def told(what: str, functions: Iterable[Function]) -> str:
    """How many files and functions these are."""
    known = set(functions)
    return f"{what}: {len({path for path, _ in known})} files, {len(known)} functions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name them, a line each")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        threading.setprofile(trace)
        sys.setprofile(trace)
        try:
            app(["train", *USUAL, *arguments.overrides], standalone_mode=False)
        finally:
            sys.setprofile(None)
            os.chdir("/")
    step = set.intersection(*trace.steps[1:-1])
    if arguments.list:
        for function in sorted(trace.entered):
            print(*function, *(["(step)"] if function in step else []))
    print(told("a training", trace.entered))
    print(told("a step", step))


if __name__ == "__main__":
    main()
