import pytest

from truesweep.errors import ConfigError
from truesweep.report.comparison import find_key, parse

KNOWN = ["model.depth", "optimizer.lr", "scheduler.lr_end", "lr", "state", "data.packing"]
SHORT = {"optimizer.lr": "lr"}


@pytest.mark.parametrize(
    ("text", "value", "accepted"),
    [
        ("model.depth=4", 4, True),
        ("model.depth=4.0", 4, True),
        ("model.depth==4", 5, False),
        ("model.depth!=4", 5, True),
        ("model.depth != 4", None, True),
        ("lr<1e-3", 5e-4, True),
        ("lr<1e-3", 1e-3, False),
        ("lr<=1e-3", 1e-3, True),
        ("lr>=1e-3", "auto", False),
        ("lr>1e-3", None, False),
        ("state=failed", "failed", True),
        ("data.packing=true", True, True),
        ("data.packing=1", True, False),
        ("model.depth=null", None, True),
    ],
)
def test_conditions(text: str, value: object, accepted: bool) -> None:
    _, condition = parse(text, KNOWN, SHORT)
    assert condition.accepts(value) is accepted


def test_a_short_name_comes_before_a_figure_of_that_name() -> None:
    assert parse("lr=1", KNOWN, SHORT)[0] == "optimizer.lr"
    assert parse("lr=1", KNOWN, {})[0] == "lr"
    assert parse("depth=1", KNOWN, {})[0] == "model.depth"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.dept=4", "did you mean model.depth"),
        ("stat=failed", "did you mean state"),
        ("qqqq=1", "there are model.depth"),
        ("model.depth", "expected KEY=VALUE"),
        ("model.depth<four", "with < > <= or >= and a number"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, KNOWN, SHORT)


def test_an_end_that_two_keys_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"several keys end so: a\.x, b\.x"):
        find_key("x", ["a.x", "b.x"], {}, "--sort")
