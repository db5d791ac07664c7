from truesweep.errors import did_you_mean, nearest


def test_nearest() -> None:
    assert nearest("adamww", ["sgd", "adamw", "muon"]) == ["adamw"]
    assert nearest("zzz", ["sgd", "adamw"]) == []
    assert nearest("txt", ["text", "label", "texts"], most=2) == ["text", "texts"]


def test_a_few_that_begin_with_the_name_are_all_meant() -> None:
    kinds = ["32-true", "bf16-mixed", "bf16-true"]
    assert nearest("bf16", kinds) == ["bf16-mixed", "bf16-true"]
    assert did_you_mean("bf16", kinds) == "; did you mean bf16-mixed or bf16-true?"


def test_nothing_is_said_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["sgd", "adamw"]) == ""
    assert did_you_mean("", ["sgd"]) == ""
