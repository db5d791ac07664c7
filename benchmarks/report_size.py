"""How quick the report stays with many runs of many points, in a real browser.

    python -m benchmarks.report_size [--runs 500] [--points 2000]

Runs are made up: a curve each, swept over learning rate, depth, width and seed. It prints the
seconds that reading them anew and writing the page take, its size, and the milliseconds until the
page has loaded, has filtered its runs, has changed an axis and has smoothed its curves.
"""

import argparse
import itertools
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from tests.report.browser import Page, browser
from tests.report.conftest import configuration, write

from truesweep.report import compare, write_report

ACTIONS = {
    "filter": """q => { const box = document.querySelector('input[type=search], input[type=text]');
        box.value = 'depth=4'; box.dispatchEvent(new Event('input', {bubbles: true})); }""",
    "axis": """q => { const menu = [...document.querySelectorAll('select')].find(
        s => [...s.options].some(o => o.value == 'tokens'));
        menu.value = 'tokens'; menu.dispatchEvent(new Event('change', {bubbles: true})); }""",
    "smooth": """q => { const slide = document.querySelector('input[type=range]');
        slide.value = slide.max / 2; slide.dispatchEvent(new Event('input', {bubbles: true})); }""",
}


def make(folder: Path, runs: int, points: int) -> None:
    """A sweep's directory, as finished jobs leave it."""
    rng = random.Random(0)
    grid = itertools.product(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (2, 4, 6, 8, 10), (32, 64), range(runs)
    )
    by_seed = sorted(grid, key=lambda point: point[3])[:runs]
    for number, (lr, depth, width, seed) in enumerate(by_seed):
        path = folder / f"job{number}"
        path.mkdir(parents=True)
        config = configuration(optimizer__lr=lr, model__depth=depth, model__width=width, seed=seed)
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        end = 1.5 + abs(math.log10(lr / 1e-2)) / 5 + 1 / depth + rng.gauss(0, 0.02)
        made = [_row(step, points, end, rng) for step in range(1, points + 1)]
        (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
        write(path / "status.json", {"state": "completed", "step": points, "error": None})
        write(path / "provenance.json", {"python": "3.11", "packages": {}})
        totals = {"train/tokens": 100 * points, "train/seconds": points / 10, "train/steps": points}
        final = {"val/loss": end, "best_step": points, "parameters": 1000 * width * depth, **totals}
        write(path / "results.json", final)
        varies = {"optimizer.lr": lr, "model.depth": depth, "model.width": width, "seed": seed}
        label = " ".join(f"{key.split('.')[-1]}={value}" for key, value in varies.items())
        write(path / "job.json", {"sweep": "many", "label": label, "varies": varies})
    settings = {"sweeps": {"objective": "val/loss", "direction": None}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))


def _row(step: int, points: int, end: float, rng: random.Random) -> dict[str, Any]:
    loss = end + 2.5 * math.exp(-6 * step / points) + rng.gauss(0, 0.03)
    row = {"step": step, "tokens": 100 * step, "time": step / 10, "train/loss": loss}
    return row | ({"val/loss": loss + 0.1} if step % (points // 20) == 0 else {})


def act(page: Page, script: str) -> float:
    """Milliseconds until the page has drawn what an action changed."""
    wait = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))"
    timed = f"(async () => {{ const t = performance.now(); ({script})(); await {wait};"
    return float(page.run(f"{timed} return performance.now() - t; }})()"))


def main() -> None:
    """Make the runs, write the page, open it, and print a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--points", type=int, default=2000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "many")
        make(folder, asked.runs, asked.points)
        found = {"runs": asked.runs, "points": asked.points}
        began = time.perf_counter()
        write_report(compare([folder], None), folder / "report.html")
        found["seconds to write"] = round(time.perf_counter() - began, 1)
        found["megabytes"] = round((folder / "report.html").stat().st_size / 1e6, 1)
        with browser() as page:
            began = time.perf_counter()
            page.open(folder / "report.html")
            found["ms to open"] = round(1e3 * (time.perf_counter() - began))
            for name, script in ACTIONS.items():
                found[f"ms to {name}"] = round(act(page, script))
            assert page.problems() == []
        print(json.dumps(found))


if __name__ == "__main__":
    main()
