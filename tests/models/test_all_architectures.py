"""`benchmarks/architectures.py` finds what holds of an architecture, and writes its page."""

from pathlib import Path

import pytest
from benchmarks import architectures
from benchmarks.architectures import Found, attempt, described, page

from truesweep.errors import ConfigError


def test_an_architecture_is_tried(workplace: Path) -> None:
    (workplace / "data").mkdir()
    config = described("causal", workplace / "data")
    found = attempt("gemma3", "causal", config, thorough=True)
    assert (found.trains, found.differs, found.said) == (True, [], "")
    assert found.notes == ["its text part, gemma3_text"]
    with pytest.raises(ConfigError, match="reformer reads only samples"):
        attempt("reformer", "causal", config)


def test_the_page_has_totals_and_a_row_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [
        Found("bert", "causal", trains=True),
        Found("bert", "masked", trains=True, differs=["export"]),
        Found("emu3", "causal", said="transformers has no emu3_text_model"),
        Found("odd", "masked", said="breaks: ValueError"),
    ]
    written = tmp_path / "architectures.md"
    written.write_text(page(results))
    monkeypatch.setattr(architectures, "PAGE", written)
    assert "| `lm` | 1 | 2 | 1 |" in written.read_text()
    assert "| `mlm` | 1 | 2 | 0 |" in written.read_text()
    assert "| bert | yes |  |  | but |" in written.read_text()
    assert "| odd |  |  |  | fails |" in written.read_text()
    assert "| emu3 | `lm` | transformers has no emu3_text_model |" in written.read_text()
    assert architectures._trained_before() == {("bert", 0), ("bert", 3)}
