"""A sweep's workspace, as W&B's own library makes it, and what is sent of it."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import wandb

from truesweep.record import dashboard
from truesweep.record.dashboard import Dashboard, main, read, send, view, write

# Of the library's own making, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

GOLDEN = Path(__file__).with_name("dashboard.json")
SHOWN = Dashboard(
    name="lr_range",
    objectives={"val/loss": "min", "val/bleu": "max"},
    swept={"lr": True, "model": False},
    curves=["grad_norm", "lr", "train/loss", "val/bleu", "val/loss", "val/perplexity"],
    runs=12,
    text="**Ahead**: 1a2b3c4d with lr=0.03.",
)


def made(shown: Dashboard = SHOWN, key: str = "key") -> dict[str, Any]:
    return view(shown, key, "", "truesweep", "lr_range")


def panels_of(one: dict[str, Any]) -> list[dict[str, Any]]:
    sections = one["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the library sends to W&B, which gives each view the id 7."""
    from wandb_workspaces.workspaces import internal

    asked: list[dict[str, Any]] = []

    def execute(api: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        asked.append(variables)
        return {"upsertView": {"view": {"id": "7", "name": variables["name"]}, "inserted": True}}

    monkeypatch.setattr(internal, "execute_graphql", execute)
    client = SimpleNamespace(app_url="https://wandb.ai/")
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="us", client=client))
    return asked


def test_a_workspace_is_as_it_was(tmp_path: Path) -> None:
    """If it is meant to be another: delete the file, and this test writes it anew, and fails."""
    file = tmp_path / "workspace.json"
    write(file, made())
    if not GOLDEN.exists():
        GOLDEN.write_bytes(file.read_bytes())
        pytest.fail(f"{GOLDEN} is written anew; look at it")
    assert json.loads(file.read_text()) == json.loads(GOLDEN.read_text())


def test_the_library_reads_its_file_as_what_it_was_made_from() -> None:
    from wandb_workspaces.workspaces import internal

    read_back = internal.View.model_validate(made())
    assert read_back.model_dump(mode="json", by_alias=True, exclude_none=True) == made()


def test_each_leading_curve_is_drawn_over_steps_tokens_and_time() -> None:
    curves = [
        (panel["config"]["metrics"], panel["config"]["xAxis"])
        for panel in panels_of(made())
        if panel["viewType"] == "Run History Line Plot"
    ]
    leading = ("val/loss", "val/bleu", "train/loss", "val/perplexity")
    drawn = [([name], axis) for name in leading for axis in ("step", "tokens", "time")]
    assert curves == [*drawn, (["grad_norm"], "step"), (["lr"], "step")]


def test_two_sweeps_of_a_project_have_a_workspace_each() -> None:
    assert made()["name"] == made(replace(SHOWN, runs=13))["name"]
    assert made()["name"] != made(key="other")["name"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lm_max_steps=30_lr", "lm_max_steps-30_lr"),
        ("naïve +1|~<$>`^ it's", "naïve -1------- it's"),
        ("⚗ lr", "- lr"),
        ("学習率", "学習率"),
    ],
)
def test_a_sweep_of_any_name_has_a_workspace_of_its_runs(name: str, shown: str) -> None:
    workspace = view(replace(SHOWN, name=name), "key", "", "truesweep", name)
    assert workspace["displayName"] == shown  # W&B refuses symbols in it
    group = workspace["spec"]["section"]["runSets"][0]["filters"]["filters"][0]
    assert (group["key"]["name"], group["op"], group["value"]) == ("group", "=", name)


def test_where_nothing_is_swept_there_is_nothing_to_lay_beside() -> None:
    kinds = {panel["viewType"] for panel in panels_of(made(replace(SHOWN, swept={})))}
    assert kinds == {"Markdown Panel", "Run History Line Plot"}


def test_what_was_sent_is_replaced_by_what_is_sent_next(
    tmp_path: Path, server: list[dict[str, Any]]
) -> None:
    file = tmp_path / "workspace.json"
    write(file, made())
    name = made()["name"]
    url = f"https://wandb.ai/us/truesweep?nw={name.removeprefix('nw-').removesuffix('-v')}"
    assert send(file) == read(file)["url"] == url
    write(file, made())  # by the sweep, which went on
    assert "url" not in read(file)
    send(file)
    first, second = server
    assert (first["entityName"], first["projectName"], first["name"]) == ("us", "truesweep", name)
    assert json.loads(first["spec"]) == made()["spec"]
    assert "id" not in first
    assert second["id"] == "7"


class _Answers(BaseHTTPRequestHandler):
    """What W&B's server says to who saves a view, and what it was asked."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        data: dict[str, Any] = {}
        if self.path == "/graphql":
            question = json.loads(body)
            if "upsertView" in question["query"]:
                self.asked.append(question["variables"])
                view = {"id": "7", "name": question["variables"]["name"]}
                data = {"upsertView": {"view": view, "inserted": True}}
            else:
                us = {"username": "us", "email": "", "flags": "{}", "teams": {"edges": []}}
                data = {"viewer": {"id": "1", "entity": "us", **us}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_the_library_sends_it_to_the_server_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "workspace.json"
    write(file, made())
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-m", "truesweep.record.dashboard", str(file)],
            env=os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40},
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    (asked,) = _Answers.asked
    assert (asked["entityName"], asked["projectName"]) == ("us", "truesweep")
    assert json.loads(asked["spec"]) == made()["spec"]
    assert read(file)["url"].startswith(f"{address}/us/truesweep?nw=")


def test_why_it_is_not_sent_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "workspace.json"
    file.write_text("{")
    monkeypatch.setattr(sys, "argv", ["dashboard", str(file)])
    assert main() == 1
    assert "is damaged; `truesweep resume" in capsys.readouterr().err
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert main() == 1
    assert "type pip install 'truesweep[dashboard]'" in capsys.readouterr().err
