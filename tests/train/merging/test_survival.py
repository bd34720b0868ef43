from train.merging.survival import survival_warning, worst_tensors

COSINES = {"a": 0.99, "b": 0.42, "c": 0.9, "d": 0.89, "e": 0.1, "f": 0.3}


def test_the_worst_layers_come_first() -> None:
    assert worst_tensors(COSINES)[:3] == ["e", "f", "b"]


def test_lost_updates_are_named_with_what_to_do() -> None:
    warning = survival_warning(COSINES)
    assert warning is not None
    assert "4 of 6 updates" in warning
    assert "the worst: e 0.10, f 0.30, b 0.42)" in warning
    assert "w4a16" in warning


def test_nothing_is_told_where_nothing_is_lost() -> None:
    assert survival_warning({"a": 0.9, "b": 1.0}) is None
