"""The pictures of reports, of real sweeps in a real browser, light and dark.

    python -m docs.screenshots [SWEEP]                README.md's
    python -m docs.screenshots --reading SWEEP SIZES  docs/reading-a-sweep.md's

The first trains a sweep unless it is given one: twelve small models on the text that comes with
the package, in some minutes on two cores. What the others are of, that page says. It needs
Chromium.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.report.browser import Page, browser

from truesweep.report import compare, write_report

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 1535
"""Of the window: from the report's title down to what was varied."""
LAPTOP, PHONE = (1280, 900), (390, 1500)
"""A phone's is longer than it is, to show what is scrolled to."""
THEMES = ("light", "dark")
LARGEST = 150_000
"""Bytes of a picture that people wait for on the front page."""
SWEEP = (
    *("optimizer.lr=0.003,0.01,0.03", "model.depth=2,4", "data.batch_size=16,32"),
    *("trainer.max_steps=120", "trainer.log_every_n_steps=5", "data.max_length=64"),
    *("model.width=64", "model.heads=2", "task.sample_tokens=32", "logger=none"),
    "name=first-sweep",
)


def train(folder: Path) -> Path:
    """Train the sweep; gives its directory."""
    command = [sys.executable, "-m", "truesweep", "train", "-m", *SWEEP]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "outputs/sweeps/first-sweep"


def front(sweep: Path) -> None:
    """Write README.md's two pictures."""
    with report(sweep) as (page, file):
        for theme in THEMES:
            page.open(file, WIDTH, HEIGHT, dark=theme == "dark")
            keep(page, f"report-{theme}", LARGEST)


def reading(sweep: Path, sizes: Path) -> None:
    """Write those of docs/reading-a-sweep.md: whole pages, and a section."""
    with report(sweep) as (page, file):
        for device, window in (("laptop", LAPTOP), ("phone", PHONE)):
            for theme in THEMES:
                page.open(file, *window, dark=theme == "dark")
                keep(page, f"report-{device}-{theme}", 2 * LARGEST, full=device == "laptop")
    with report(sizes) as (page, file):
        page.open(file, *LAPTOP)
        keep(page, "scaling", LARGEST, within="#scaling-section")


@contextmanager
def report(sweep: Path) -> Iterator[tuple[Page, Path]]:
    """A browser, and a sweep's report."""
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        file = Path(folder) / "report.html"
        write_report(compare([sweep]), file)
        yield page, file


def keep(page: Page, name: str, largest: int, full: bool = False, within: str = "") -> None:
    """Write a picture, and leave the page."""
    shot = IMAGES / f"{name}.webp"
    page.screenshot(shot, full=full, within=within)
    size = shot.stat().st_size
    print(f"{shot}: {size:,} bytes{' (too many)' * (size > largest)}")
    page.leave()


def main() -> None:
    """Train a sweep unless there is one, and show it; or those of the page on reading one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sweep", type=Path, nargs="?", help="directory of a sweep that has ended")
    parser.add_argument("--reading", type=Path, nargs=2, metavar=("SWEEP", "SIZES"))
    asked = parser.parse_args()
    if asked.reading:
        reading(*asked.reading)
    elif asked.sweep:
        front(asked.sweep)
    else:
        with tempfile.TemporaryDirectory() as folder:
            front(train(Path(folder)))


if __name__ == "__main__":
    main()
