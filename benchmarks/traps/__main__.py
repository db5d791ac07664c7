"""Measure the traps that are named, or all of them."""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import traps
from benchmarks.traps import evaluation, others, perplexity, rates, resume, splits
from benchmarks.traps.material import write_all
from benchmarks.traps.processes import preload
from benchmarks.traps.report import Section, replace

TRAPS: dict[str, Callable[[], Section]] = {
    "evaluation": evaluation.measure,
    "splits": splits.measure,
    "perplexity": perplexity.measure,
    "rates": rates.measure,
    "others": others.measure,
    "resume-1": partial(resume.measure, ranks=1),
    "resume-2": partial(resume.measure, ranks=2),
}


def main() -> None:
    """Print each trap's section as it is measured, and put it into a file."""
    parser = argparse.ArgumentParser(description=(traps.__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *TRAPS], help="all of them by default")
    parser.add_argument("--write", type=Path, help="a Markdown file whose sections are replaced")
    asked = parser.parse_args()
    file = asked.write and asked.write.absolute()
    preload()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRUESWEEP_CACHE"] = f"{folder}/cache"
        os.chdir(folder)
        write_all(Path())
        for name in asked.names or TRAPS:
            section = TRAPS[name]()
            print(section.markdown(), flush=True)
            if file:
                replace(file, section)


if __name__ == "__main__":
    main()
