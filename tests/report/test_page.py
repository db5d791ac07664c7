import base64
import hashlib
import html
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tests.report.conftest import MakeRun, configuration, write
from truesweep.report import compare, write_report
from truesweep.report.html import embedded, render
from truesweep.report.payload import payload

HOSTILE = '</script><script>alert(1)</script><!-- <img src=x onerror="alert(2)"> & \u2028 @style@'


def data_of(page: str) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match is not None
    return json.loads(match[1])


def test_hostile_names_stay_data(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", configuration(name=HOSTILE), job={"label": HOSTILE, "varies": {}})
    page = render(compare([tmp_path / "a"]))
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert data_of(page)["runs"][0]["label"] == HOSTILE
    assert f"<title>{html.escape(HOSTILE)} · truesweep</title>" in page


def test_embedded_json_means_the_same() -> None:
    text = embedded(json.dumps(HOSTILE, ensure_ascii=False))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == HOSTILE


def test_the_policy_allows_this_script_and_style_and_nothing_else(sweep: Path) -> None:
    page = render(compare([sweep]))
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    said = html.unescape(policy[1])
    assert said.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in said


def test_the_page_names_no_other_address(sweep: Path) -> None:
    page = render(compare([sweep]))
    assert not re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|@import|url\(""", page)


def test_what_the_page_knows_of_a_run(sweep: Path) -> None:
    made = payload(compare([sweep]))
    best, failed = made["runs"][0], made["runs"][-1]
    assert (best["id"], best["rank"], best["values"]) == ("job3", 1, [0.01, 4])
    assert best["curves"]["val/loss"][0] == [5, 10]
    assert failed["error"] == "RuntimeError: out of memory"
    lr, depth = made["keys"]
    assert (lr["short"], lr["numeric"], depth["key"]) == ("lr", True, "model.depth")


def test_values_that_follow_by_factors_stand_on_a_logarithmic_axis(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for i, lr in enumerate([1e-4, 3e-4, 1e-3, 3e-3]):
        make_run(f"r{i}", configuration(optimizer__lr=lr, model__depth=2 + i))
    keys = payload(compare([tmp_path]))["keys"]
    assert {key["short"]: key["log"] for key in keys} == {"depth": False, "lr": True}


def test_keys_that_vary_as_one_and_those_that_are_noise_are_marked(
    make_run: MakeRun, tmp_path: Path
) -> None:
    draw = np.random.default_rng(1)
    for i, (depth, lr, seed) in enumerate(product([1, 2, 3], [0.1, 0.2], [0, 1])):
        config = configuration(model__depth=depth, model__width=depth, optimizer__lr=lr, seed=seed)
        make_run(f"r{i}", config, end=depth + draw.normal(0, 0.1))
    found = payload(compare([tmp_path]))["importance"]
    first, second = found["shares"]
    assert (first["name"], first["keys"]) == ("depth + width", ["model.depth", "model.width"])
    assert (second["name"], second["keys"]) == ("lr", ["optimizer.lr"])
    assert [one["distinguishable"] for one in (first, second)] == [True, False]
    assert second["noise"] > second["share"]
    assert found["interactions"] == []


def test_configurations_are_kept_as_differences_and_come_back_whole(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", end=1.0)
    make_run("b", configuration(optimizer={"_target_": "truesweep.optim.muon"}), end=2.0)
    made = payload(compare([tmp_path]))
    changes, absent = made["runs"][1]["config"]
    assert changes == {"optimizer._target_": "truesweep.optim.muon"}
    assert absent == ["optimizer.betas", "optimizer.lr"]
    assert made["runs"][0]["config"] == [{}, []]


def test_a_failed_run_shows_its_last_error_without_secrets(
    make_run: MakeRun, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-in-the-mine")
    path = make_run("a", state="failed", error="refused: canary-in-the-mine")
    trace = "Traceback (most recent call last):\nValueError: canary-in-the-mine"
    (path / "logs" / "rank0.log").write_text(
        f"first\nTraceback (most recent call last):\n{trace}\n"
    )
    page = render(compare([path]))
    assert "canary" not in page
    assert data_of(page)["runs"][0]["log"].startswith("Traceback")
    assert "first" not in data_of(page)["runs"][0]["log"]


def test_the_rank_that_raised_is_heard(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("a", state="failed", error="a rank failed")
    (path / "logs" / "rank0.log").write_text("waiting\n")
    trace = "Traceback (most recent call last):\nValueError: on rank 1"
    (path / "logs" / "rank1.log").write_text(f"noise\n{trace}\n")
    assert payload(compare([path]))["runs"][0]["log"] == trace


def test_long_samples_are_cut(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("a")
    write(path / "tables.json", {"samples": [["prompt"], [["x" * 5000]] * 9]})
    (run,) = payload(compare([path]))["runs"]
    _, rows = run["tables"]["samples"]
    assert (len(rows), len(rows[0][0])) == (3, 1201)


def test_sizes_are_drawn_only_where_they_differ(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", configuration(model__depth=1), parameters=1000)
    make_run("b", configuration(model__depth=2), parameters=1000)
    assert payload(compare([tmp_path]))["scaling"]["curves"] == []
    make_run("c", configuration(model__depth=4), parameters=4000)
    curves = payload(compare([tmp_path]))["scaling"]["curves"]
    assert [curve["variable"] for curve in curves] == ["parameters", "compute"]
    assert all(not curve["line"] and "do not bear" in curve["text"] for curve in curves)


def test_a_figure_that_only_ends_like_a_loss_has_no_law(make_run: MakeRun, tmp_path: Path) -> None:
    for depth, gloss in ((1, 3.0), (4, 2.0)):
        path = make_run(
            str(depth), configuration(model__depth=depth), parameters=depth, **{"val/gloss": gloss}
        )
        write(path / "provenance.json", {"figures": {"gloss": {"higher_is_better": True}}})
    assert payload(compare([tmp_path]))["scaling"]["curves"]
    assert payload(compare([tmp_path], "val/gloss"))["scaling"]["curves"] == []


def test_a_size_of_a_run_that_is_not_shown_is_no_point(make_run: MakeRun, tmp_path: Path) -> None:
    for depth in (1, 2, 4):
        make_run(f"d{depth}", configuration(model__depth=depth), parameters=1000 * depth)
    found = compare([tmp_path]).filtered(["depth=2"])
    curves = payload(found)["scaling"]["curves"]
    assert [[point[0] for point in curve["points"]] for curve in curves] == [
        [str(tmp_path / "d2")]
    ] * 2


def test_a_law_is_drawn_where_the_points_bear_one(make_run: MakeRun, tmp_path: Path) -> None:
    for i, size in enumerate([1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7]):
        loss = 1.5 + 40 / size**0.4 - 0.1
        make_run(f"r{i}", configuration(model__depth=i), end=loss, parameters=int(size))
    law = payload(compare([tmp_path]))["scaling"]["curves"][0]
    size, value, low, high = law["line"][-1]
    assert size == 3e7
    assert low <= value <= high
    assert abs(value - (1.5 + 40 / size**0.4)) < 0.02


def test_a_law_of_one_size_is_not_drawn_where_the_other_differs(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for i, size in enumerate([1e4, 3e4, 1e5, 3e5, 1e6, 3e6]):
        totals = {"parameters": int(size), "train/tokens": int(20 * size)}
        loss = 1.5 + 40 / (20 * size) ** 0.4 - 0.1
        make_run(f"r{i}", configuration(model__depth=i), end=loss, **totals)
    found = payload(compare([tmp_path]))["scaling"]
    curves = {curve["variable"]: curve for curve in found["curves"]}
    assert curves["parameters"]["line"] == curves["tokens"]["line"] == []
    assert "differ in tokens, too, from 200k to 60.0M" in curves["parameters"]["text"]
    assert "differ in parameters, too, from 10.0k to 3.00M" in curves["tokens"]["text"]
    assert len(curves["compute"]["line"]) > 1
    assert found["budgets"] == []


def test_a_size_is_judged_by_the_mean_over_its_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    losses = {(1, 0.1): (2.0, 3.0), (1, 0.2): (2.4, 2.4), (2, 0.1): (2.2, 2.2)}
    for (depth, lr), ends in losses.items():
        for seed, end in enumerate(ends):
            config = configuration(model__depth=depth, optimizer__lr=lr, seed=seed)
            make_run(f"d{depth}-{lr}-{seed}", config, end=end, parameters=1000 * depth)
    curve = payload(compare([tmp_path]))["scaling"]["curves"][0]
    best = {Path(path).name for path, _, best in curve["points"] if best}
    assert best == {"d1-0.2-0", "d1-0.2-1", "d2-0.1-0", "d2-0.1-1"}


def test_repeated_data_is_said_to_be_so(make_run: MakeRun, tmp_path: Path) -> None:
    for depth, passes in ((1, 0.8), (2, 1.6)):
        verdict = {"kind": "healthy", "text": "", "best_step": 8, "sufficient_epochs": passes}
        size = {"parameters": 1000 * depth}
        make_run(f"r{depth}", configuration(model__depth=depth), verdict=verdict, **size)
    note = payload(compare([tmp_path]))["scaling"]["note"]
    assert "over the data up to 2 times" in note  # 10 steps, of which 8 are 1.6 passes
    note = payload(compare([tmp_path / "r1"]))["scaling"]["note"]
    assert note == ""


def test_the_report_is_written_whole(sweep: Path) -> None:
    write_report(compare([sweep]), sweep / "report.html")
    assert (sweep / "report.html").read_text().endswith("</html>\n")


def test_an_empty_sweep_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("sweeps: {objective: val/loss}\n")
    assert data_of(render(compare([tmp_path])))["runs"] == []
