from typing import Any

import pytest

from truesweep.sweeps.labels import label, labels, short_names


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0003, "3e-4"),
        (0.00123456, "0.001235"),
        (0.01, "0.01"),
        (0.5, "0.5"),
        (123456.0, "1.235e5"),
        (0.0, "0"),
        (-0.0003, "-3e-4"),
        (1e-10, "1e-10"),
        (6, "6"),
        (1000000, "1000000"),
        (True, "true"),
        (None, "null"),
        ("gpt2", "gpt2"),
        ("data/small/train.txt", "train.txt"),
        ([0.9, 0.95], "0.9,0.95"),
    ],
)
def test_values_are_short(value: Any, shown: str) -> None:
    assert label({"a.b": value}) == f"b={shown}"


def test_the_last_part_of_a_key_unless_it_is_ambiguous() -> None:
    names = short_names(["optimizer.lr", "model.depth", "other.lr", "model", "x.model.width"])
    assert list(names.values()) == ["optimizer.lr", "depth", "other.lr", "model", "width"]


def test_labels_tell_jobs_apart() -> None:
    rates: list[dict[str, Any]] = [{"a.lr": lr} for lr in (0.123456, 0.1234561, 0.2)]
    jobs = [*rates, {"a.x": "p/t"}, {"a.x": "q/t"}]
    assert labels(jobs) == ["lr=0.123456", "lr=0.1234561", "lr=0.2", "x=p/t", "x=q/t"]


def test_paths_are_told_apart_by_their_folders() -> None:
    found = labels([{"data.train": path} for path in ("a/text.txt", "b/text.txt", "c/other.txt")])
    assert found == ["train=a/text.txt", "train=b/text.txt", "train=other.txt"]
