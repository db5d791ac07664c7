"""How numbers, times and names are written."""

import math
from typing import Any

import pytest

from truesweep import text
from truesweep.text import Condition


@pytest.mark.parametrize(
    ("chosen", "typed"),
    [
        (0.001, "0.001"),
        (0.0003, "0.0003"),
        (0.0001, "0.0001"),
        (0.00003, "3e-5"),
        (0.0000351, "3.51e-5"),
        (0.00123456, "0.001235"),
        (0.30000000000000004, "0.3"),
        (0.01, "0.01"),
        (0.5, "0.5"),
        (123456.0, "123456"),
        (1e6, "1e6"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.0003, "-0.0003"),
        (1e-10, "1e-10"),
        (0.99998, "0.99998"),
        (0.999989993, "0.99999"),
        (-1.00001, "-1.00001"),
        (1.0, "1"),
        (1e22, "1e22"),
        (math.nan, "NaN"),
        (6, "6"),
        (1000000, "1000000"),
        (True, "true"),
        (None, "null"),
        ("gpt2", "gpt2"),
        ("data/small/train.txt", "train.txt"),
        ("data/small/", "small"),
        ("/", "/"),
        ("true and/or false", "true and/or false"),
        ("[b]x[/b]", "[b]x[/b]"),
        ([0.9, 0.95], "[0.9,0.95]"),
        ({"a": 1e-5}, "{a:1e-5}"),
    ],
)
def test_values_are_written_as_they_are_typed(chosen: Any, typed: str) -> None:
    assert text.value(chosen) == typed


@pytest.mark.parametrize("chosen", [0.1 + 0.2, 1 / 3, 1e-5, 123456.789, 5e-324, 1.7e308, 1e16])
def test_a_whole_value_reads_as_the_same_number(chosen: float) -> None:
    assert float(text.value(chosen, digits=None)) == chosen


def test_values_that_short_does_not_tell_apart_are_whole() -> None:
    assert text.values([0.123456, 0.1234561, 0.2]) == ["0.123456", "0.1234561", "0.2"]
    assert text.values(["a/t.txt", "b/t.txt", "c/u.txt"]) == ["a/t.txt", "b/t.txt", "u.txt"]
    assert text.values([0.123456, 0.123456]) == ["0.1235", "0.1235"]


@pytest.mark.parametrize(
    ("measured", "written"),
    [
        (1.49, "1.490"),
        (22.6, "22.60"),
        (0.96666, "0.9667"),
        (0.99996, "1.000"),
        (9999.6, "10,000"),
        (12345.6, "12,346"),
        (0.00012, "0.0001200"),
        (1e-7, "1.000e-7"),
        (1e9, "1.000e9"),
        (-2.5, "-2.500"),
        (0.0, "0.000"),
        (math.inf, "Infinity"),
        (math.nan, "NaN"),
        ("NaN", "NaN"),
        (None, ""),
        (1234, "1,234"),
    ],
)
def test_figures_keep_their_digits(measured: float | str | None, written: str) -> None:
    assert text.figure(measured) == written


def test_a_column_has_the_same_decimals_throughout() -> None:
    assert text.figures([2.489, 2.5, 2.0, 11.02], 4) == ["2.489", "2.500", "2.000", "11.020"]
    assert text.figures([39.4, 0.48], 4, decimals=2) == ["39.40", "0.48"]
    assert text.figures([0.8912, 0.9, 1.0], 4) == ["0.8912", "0.9000", "1.0000"]
    assert text.figures([999.96, 999.96], 4) == ["1,000", "1,000"]


def test_what_would_not_show_in_a_column_has_its_own_digits() -> None:
    assert text.figures([2.5, 4e-6, 3.1e9, None, "NaN", 3.0, 0.0], 4) == [
        *("2.500", "4.0e-6", "3.100e9", "", "NaN", "3.000", "0.000")
    ]


def test_a_column_of_nothing() -> None:
    assert text.figures([], 4) == []
    assert text.figures([None, 0.0, math.nan], 4) == ["", "0.000", "NaN"]


def test_differences_have_their_sign() -> None:
    assert [text.signed(d) for d in (0.0123, -0.5, 0.0)] == ["+0.012", "-0.50", "+0.0"]


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "0"),
        (883, "883"),
        (9999, "9,999"),
        (10_000, "10.0k"),
        (819_200, "819k"),
        (999_499, "999k"),
        (999_960, "1.00M"),
        (93402574848, "93.4G"),
        (1e22, "10,000E"),
        (950.3, "950"),
        (5.44, "5.44"),
        (-81_900, "-81.9k"),
        (None, ""),
    ],
)
def test_counts_have_three_digits_and_a_prefix(amount: float | None, written: str) -> None:
    assert text.count(amount) == written


def test_a_column_of_counts_is_exact_or_not_as_a_whole() -> None:
    assert text.counts([512, 4096, 8192]) == ["512", "4,096", "8,192"]
    assert text.counts([512, 4096, 16384, None]) == ["512", "4.10k", "16.4k", ""]


def test_units_take_the_prefix() -> None:
    assert text.quantity(93402574848, "FLOP") == "93.4 GFLOP"
    assert text.quantity(950, "B") == "950 B"


def test_plurals() -> None:
    assert [text.plural(n, "token") for n in (0, 1, 2, 81_920)] == [
        *("0 tokens", "1 token", "2 tokens", "81.9k tokens")
    ]


@pytest.mark.parametrize(
    ("share", "written"),
    [
        *((0, "0 %"), (1e-6, "under 0.01 %"), (0.0002, "0.02 %"), (0.025, "2.5 %")),
        *((0.0996, "10 %"), (1, "100 %")),
    ],
)
def test_shares(share: float, written: str) -> None:
    assert text.percent(share) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (8.4, "8.4 s"),
        (9.96, "10 s"),
        (84.2, "84 s"),
        (99.6, "1:40 min"),
        (250, "4:10 min"),
        (3599.4, "59:59 min"),
        (3599.6, "1:00 h"),
        (6720, "1:52 h"),
        (360_000, "100:00 h"),
        (None, ""),
    ],
)
def test_durations(seconds: float | None, written: str) -> None:
    assert text.duration(seconds) == written


def test_the_last_part_of_a_key_unless_it_is_ambiguous() -> None:
    names = text.short_names(["optimizer.lr", "model.depth", "other.lr", "model", "x.model.width"])
    assert list(names.values()) == ["optimizer.lr", "depth", "other.lr", "model", "width"]


def test_a_key_that_ends_another_one_stays_whole() -> None:
    assert text.short_names(["lr", "optimizer.lr"]) == {"lr": "lr", "optimizer.lr": "optimizer.lr"}


def test_a_class_goes_by_its_node() -> None:
    keys = ["optimizer._target_", "model.depth"]
    assert list(text.short_names(keys).values()) == ["optimizer", "depth"]
    both = text.short_names(["optimizer._target_", "optimizer"])
    assert len(set(both.values())) == 2


def test_a_label_has_no_name_twice() -> None:
    pretrained = {"model.name_or_path": "gpt2", "tokenizer.name_or_path": "gpt2"}
    assert text.label(pretrained) == "model.name_or_path=gpt2 tokenizer.name_or_path=gpt2"


def test_labels_tell_jobs_apart() -> None:
    rates: list[dict[str, Any]] = [{"a.lr": lr} for lr in (0.123456, 0.1234561, 0.2)]
    jobs = [*rates, {"a.x": "p/t"}, {"a.x": "q/t"}, {"a.x": "q/t"}]
    assert text.labels(jobs) == [
        *("lr=0.123456", "lr=0.1234561", "lr=0.2", "x=p/t", "x=q/t", "x=q/t #2")
    ]


@pytest.mark.parametrize(
    ("condition", "found", "accepted"),
    [
        (">= 0.01", 0.01, True),
        (">=0.01", 0.001, False),
        ("<1e-3", "0.0001", True),
        ("<1", None, False),
        ("<1", "fast", False),
        ("=0.001", 1e-3, True),
        ("==4", 4, True),
        ("!=4", 5, True),
        ("=muon", "muon", True),
        ("!=muon", "adamw", True),
        ("=true", True, True),
        ("=1", True, False),
        ("=[0.9,0.95]", [0.9, 0.95], True),
        ("=", "", True),
    ],
)
def test_conditions(condition: str, found: Any, accepted: bool) -> None:
    read = Condition.read(condition)
    assert read is not None
    assert read.accepts(found) is accepted


@pytest.mark.parametrize("words", ["muon", "0.01", "<fast", "> ", "", "a < 1"])
def test_what_is_no_condition(words: str) -> None:
    assert Condition.read(words) is None


@pytest.mark.parametrize(
    ("kept", "today"),
    [
        ("lr=1e-3 depth=6", "lr=0.001 depth=6"),
        ("betas=[0.9,5e-4] lr=1e-05", "betas=[0.9,0.0005] lr=1e-5"),
        ("lr=3e-5", "lr=3e-5"),
        ("model=t5e-3b data=a1e-3.txt", "model=t5e-3b data=a1e-3.txt"),
        ("x=1e-3</b>", "x=1e-3</b>"),
    ],
)
def test_labels_of_earlier_versions_are_written_as_todays(kept: str, today: str) -> None:
    assert text.relabel(kept) == today
    assert text.relabel(today) == today


def test_an_order_of_what_is_no_number_is_none() -> None:
    assert Condition.orders_text(">= abc")
    assert Condition.orders_text("<")
    assert not any(map(Condition.orders_text, (">= 1e-3", "abc", "=abc", "!= abc")))
