"""The README's picture of a report, light and dark: of a real sweep, in a real browser.

    python -m docs.screenshots [SWEEP]

Without the directory of a sweep it trains one first: twelve small models on the text that comes
with the package, in some minutes on two cores. It needs Chromium.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.report.browser import browser

from truesweep.report import compare, write_report

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 1535
"""Of the window: from the report's title down to what was varied."""
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


def picture(sweep: Path) -> None:
    """Write the report's two pictures."""
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        report = Path(folder) / "report.html"
        write_report(compare([sweep]), report)
        for theme in ("light", "dark"):
            page.leave()
            page.open(report, WIDTH, HEIGHT, dark=theme == "dark")
            shot = IMAGES / f"report-{theme}.webp"
            page.screenshot(shot)
            size = shot.stat().st_size
            print(f"{shot}: {size:,} bytes{' (too many)' * (size > LARGEST)}")


def main() -> None:
    """Train a sweep unless there is one, and show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sweep", type=Path, nargs="?", help="directory of a sweep that has ended")
    given = parser.parse_args().sweep
    if given is not None:
        picture(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        picture(train(Path(folder)))


if __name__ == "__main__":
    main()
