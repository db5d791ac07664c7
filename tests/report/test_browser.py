"""The page as a browser shows it; skipped where there is no Chromium."""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import Page, browser, chromium
from tests.report.conftest import MakeRun, configuration
from truesweep import text as text_rules
from truesweep.report import compare, write_report

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="needs Chromium (apt-get install chromium)"
)
LABEL = "lr=0.001 </script><script>window.hacked = 1</script><b>bold</b>"


@pytest.fixture
def report(sweep: Path, make_run: MakeRun) -> Path:
    make_run(
        "sweep/hostile",
        configuration(optimizer__lr=0.003, model__depth=2),
        end=2.5,
        job={"label": LABEL, "varies": {"optimizer.lr": 0.003, "model.depth": 2}},
    )
    make_run(
        "sweep/queued",
        configuration(optimizer__lr=0.003, model__depth=4),
        state=None,
        job={"label": "lr=0.003 depth=4", "varies": {"optimizer.lr": 0.003, "model.depth": 4}},
    )
    write_report(compare([sweep]), sweep / "report.html")
    return sweep / "report.html"


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    opened.leave()
    return opened


def ids(page: Page) -> list[str]:
    found: list[str] = page.run(
        "[...document.querySelectorAll('#table tbody .link')].map(b => b.textContent)"
    )
    return found


def text(page: Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector({selector!r}).textContent")
    return found


def painted(page: Page, selector: str) -> int:
    """Pixels of a chart's runs that are not empty."""
    count: int = page.run(
        f"""(() => {{ const c = document.querySelector({selector!r} + ' .base');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return d.filter((v, i) => i % 4 === 3 && v > 0).length; }})()"""
    )
    return count


def fill(page: Page, value: str) -> None:
    page.run(
        f"""(() => {{ const f = document.getElementById('filter'); f.value = {value!r};
        f.dispatchEvent(new Event('input')); }})()"""
    )
    page.settle()


def test_it_draws_asks_for_nothing_and_runs_no_names(page: Page, report: Path) -> None:
    page.open(report)
    assert page.problems() == []
    assert page.requests() == [report.as_uri()]
    assert ids(page) == ["job3", "job2", "job0", "hostile", "job1", "queued"]
    assert page.run("document.getElementById('filtered').hidden")
    assert painted(page, "#curves") > 1000
    assert painted(page, "#parallel") > 1000
    assert painted(page, "#scatter") > 100
    assert page.run("window.hacked") is None
    assert page.run("document.querySelectorAll('main b b, td b').length") == 0


def test_keys_that_are_no_more_than_noise_are_pale(
    page: Page, make_run: MakeRun, tmp_path: Path
) -> None:
    for depth, (i, lr) in product([1, 2], enumerate([0.1, 0.2, 0.3])):
        end = depth + [0.01, -0.02, 0.01][i] * (-1) ** depth
        make_run(f"{depth}-{i}", configuration(model__depth=depth, optimizer__lr=lr), end=end)
    write_report(compare([tmp_path]), tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    assert page.problems() == []
    assert text(page, "#importance .bar .name") == "depth"
    assert text(page, "#importance .pale .name") == "lr"
    assert "1 of 2 keys is not distinguishable" in text(page, "#importance .note")
    assert "pale: no more" in text(page, "#importance .note")


CUT = """
window.cut = [];
const draw = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, ...rest) {
  if (this.textAlign === "right" && x < this.measureText(text).width) window.cut.push(text);
  window.drawn = (window.drawn ?? 0) + 1;
  return draw.call(this, text, x, ...rest);
};
"""


def test_numbers_that_hardly_differ_fit_beside_their_axis(
    page: Page, make_run: MakeRun, tmp_path: Path
) -> None:
    for i in range(4):
        make_run(
            f"job{i}",
            configuration(optimizer__lr=0.001 * 2**i, model__depth=2 + i),
            job={"sweep": "s", "label": f"lr={i}", "varies": {"optimizer.lr": 0.001 * 2**i}},
            **{"val/loss": 2.0781 + 0.0003 * i, "parameters": 1000 * 2**i},
        )
    write_report(compare([tmp_path]), tmp_path / "report.html")
    page.open(tmp_path / "report.html")
    page.run(CUT)
    fill(page, "state=completed")  # all is drawn again
    page.settle()
    assert page.run("window.drawn") > 10
    assert page.run("window.cut") == []


def test_lists_and_missing_values_have_a_place_of_their_own(
    page: Page, make_run: MakeRun, tmp_path: Path
) -> None:
    for i, (lr, second) in enumerate(product([0.01, 0.02, None], [0.95, 0.99])):
        config = configuration(optimizer__lr=lr, optimizer__betas=[0.9, second])
        make_run(f"r{i}", config, end=2 - i / 10)
    write_report(compare([tmp_path]), tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    told = {"0.01": 1, "0.02": 1, "null": 1, "[0.9,0.95]": 1, "[0.9,0.99]": 1}
    for chart in ("scatter", "parallel"):
        said = written_on(page, chart)
        assert {text: said[text] for text in told} == told
    assert page.problems() == []


def written_on(page: Page, chart: str) -> Counter[str]:
    """What the charts of a section say when they are drawn again."""
    page.run(
        """(() => { window.said = []; const pen = CanvasRenderingContext2D.prototype;
        window.plain ??= pen.fillText;
        pen.fillText = function (text, ...rest) {
          window.said.push([this.canvas, text]); return window.plain.call(this, text, ...rest); };
        document.getElementById('theme').click(); })()"""
    )
    page.settle()
    said = page.run(f"said.filter(([c]) => c.closest('#{chart}')).map(([, text]) => text)")
    return Counter(said)


def test_filter_sort_and_brush(page: Page, report: Path) -> None:
    page.open(report)
    fill(page, "depth=4 state=completed")
    assert ids(page) == ["job3", "job2"]
    assert text(page, "#shown") == "2 of 6 runs"
    fill(page, "dept=4")
    assert "dept" in text(page, "#shown")
    fill(page, "")
    page.run("[...document.querySelectorAll('th button')].find(b => b.textContent == 'lr').click()")
    assert ids(page)[:2] == ["job2", "job0"]
    brush(page)
    assert set(ids(page)) == {"job2", "job3", "queued"}
    page.run("document.getElementById('clear').click()")
    page.settle()
    assert len(ids(page)) == 6


def test_a_filtered_page_says_so_and_draws_what_it_has(
    page: Page, make_run: MakeRun, tmp_path: Path
) -> None:
    for depth in (1, 2, 4):
        make_run(f"d{depth}", configuration(model__depth=depth), parameters=1000 * depth)
    conditions = ["depth>1", "lr<1"]
    write_report(compare([tmp_path]).filtered(conditions), tmp_path / "page.html", conditions)
    page.open(tmp_path / "page.html")
    assert page.problems() == []
    assert "depth>1 and lr<1: 2 of 3 runs" in text(page, "#filtered")
    assert painted(page, "#scaling") > 50
    page.leave()
    write_report(compare([tmp_path]).filtered(["depth=9"]), tmp_path / "page.html", ["depth=9"])
    page.open(tmp_path / "page.html")
    assert page.problems() == []
    assert text(page, "#summary") == "No run meets the filter."


def brush(page: Page) -> None:
    """Drag over the upper half of the axis of the depth."""
    box = page.run(
        """(() => { const p = document.getElementById('parallel');
        p.scrollIntoView({block: 'center'}); const b = p.getBoundingClientRect();
        return [b.left, b.top, b.width]; })()"""
    )
    axes = 3
    names = page.run("[...document.querySelectorAll('#scatter canvas.base')].map(c => c.ariaLabel)")
    place = next(i for i, name in enumerate(names) if name.endswith("model.depth"))
    x = box[0] + 46 + place / (axes - 1) * (box[2] - 108)
    page.mouse("mouseMoved", x, box[1] + 30)
    page.mouse("mousePressed", x, box[1] + 30)
    page.mouse("mouseMoved", x, box[1] + 80)
    page.mouse("mouseReleased", x, box[1] + 80)
    page.settle()


def test_a_curve_opens_its_run_and_escape_closes_it(page: Page, report: Path) -> None:
    page.open(report)
    x, y, _, _ = page.run(
        "(() => { const b = document.getElementById('curves').getBoundingClientRect();"
        "return [b.left + b.width * 0.7, b.top + b.height * 0.6, b.width, b.height]; })()"
    )
    page.click(x, y)
    assert page.run("document.getElementById('details').hidden") is False
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    page.settle()
    assert page.run("document.getElementById('details').hidden") is True


def test_details_of_a_failed_run(page: Page, report: Path) -> None:
    page.open(report)
    page.run("document.querySelectorAll('#table tbody .link')[4].click()")
    page.settle()
    assert "RuntimeError: out of memory" in text(page, "#details")
    assert "optimizer.lr" in text(page, "#details")


def test_two_runs_side_by_side(page: Page, report: Path) -> None:
    page.open(report)
    rows = page.run("[...document.querySelectorAll('#pair tbody tr')].map(r => r.innerText)")
    assert "optimizer.lr\t0.01\t0.001" in rows
    assert not any(row.startswith("model.depth") for row in rows)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_follows_the_theme(page: Page, report: Path, dark: bool) -> None:
    page.open(report, 390, 844, dark)
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    page.run("document.getElementById('theme').click()")
    assert page.run("document.documentElement.dataset.theme") == ("light" if dark else "dark")
    assert page.problems() == []


def test_an_empty_sweep_says_so(page: Page, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("sweeps: {objective: val/loss}\n")
    write_report(compare([tmp_path]), tmp_path / "report.html")
    page.open(tmp_path / "report.html")
    assert page.problems() == []
    assert text(page, "#summary") == "No run has started yet."


def test_a_bound_that_is_no_number_is_named(page: Page, report: Path) -> None:
    page.open(report)
    fill(page, "lr>=abc")
    assert text(page, "#shown") == ">= compares numbers, and “abc” is none."
    fill(page, "lr>=0.003 depth=4")
    assert ids(page) == ["job3", "queued"]


def test_a_pair_is_written_as_declared(page: Page, make_run: MakeRun, tmp_path: Path) -> None:
    for name, end in (("a", 1.9), ("b", 2.0)):
        more = {"val/loss_standard_error": 0.01 * end, "train/flops": int(93402574848 * end)}
        make_run(name, end=end, **more, **{"train/seconds": 130.0 * end})
    write_report(compare([tmp_path]), tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    rows = page.run("[...document.querySelectorAll('#pair tr')].map(row => row.innerText)")
    assert [row.split() for row in rows][4:-2] == [
        ["val/loss", "2.000", "2.100"],
        ["train/seconds", "4:07", "min", "4:20", "min"],
        ["train/flops", "177G", "187G"],
    ]


CHOSEN = [0.001, 3e-5, 3.51e-5, 0.00123456, 0.30000000000000004, 123456, 123456.789, 0, -0.0003]
TYPED = [True, None, "gpt2", "data/small/train.txt", "a and/or b", [0.9, 0.95], {"a": 1e-5}]
MEASURED = [1.49, 22.6, 0.96666, 0.99996, 9999.6, 12345.6, 0.00012, 1e-7, 1e9, -2.5, 0.0, None]
AMOUNTS = [0, 883, 9999, 10_000, 81_920, 999_499, 999_960, 93402574848, 950.3, 5.25, 0.402]
COLUMN = [2.489, 2.5, 11.02, 4e-6, 3.1e9, -0.7]
RULES: dict[str, list[list[Any]]] = {
    "value": [[v] for v in (*CHOSEN, *TYPED)] + [[1 / 3, None], ["data/small/", None]],
    "values": [[[0.123456, 0.1234561, 0.2]], [["a/t.txt", "b/t.txt", "c/u.txt"]]],
    "figure": [[v] for v in MEASURED] + [[v, 2] for v in MEASURED],
    "figures": [[COLUMN, 4], [COLUMN, 6], [[39.4, 0.48, None], 4], [[], 4]],
    "count": [[v] for v in AMOUNTS],
    "counts": [[AMOUNTS[:3]], [AMOUNTS], [[1e7, None]]],
    "plural": [[1, "run"], [16, "run"], [81_920, "token"]],
    "percent": [[v] for v in (0, 0.0025, 0.0251, 0.2513, 1)],
    "duration": [[v] for v in (0, 8.42, 9.96, 84.2, 250, 3599.6, 6720, 400_000)],
}
"""Functions that the page and `truesweep.text` both have, and what they are given."""


def test_the_page_writes_numbers_as_the_terminal_does(page: Page, tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text("<!doctype html>")
    page.open(tmp_path / "empty.html")
    folder = files("truesweep.report").joinpath("page")
    source = "\n".join(folder.joinpath(f"{name}.js").read_text() for name in ("base", "text"))
    given = json.dumps([[name, args] for name, cases in RULES.items() for args in cases])
    answers = page.run(
        f"(() => {{ {source}; const rules = {{{', '.join(RULES)}}};"
        f" return {given}.map(([name, args]) => rules[name](...args)); }})()"
    )
    expected = [getattr(text_rules, name)(*args) for name, cases in RULES.items() for args in cases]
    assert answers == blank_as_dash(expected)


def blank_as_dash(written: Any) -> Any:
    """What has no value is a dash on the page, and blank in a terminal."""
    if isinstance(written, list):
        return [blank_as_dash(one) for one in written]
    return written or "—"
