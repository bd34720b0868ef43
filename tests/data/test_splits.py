from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import (
    DataConfig,
    FilesSource,
    NearDuplicatesConfig,
)
from data.splits import (
    BEYOND_LIMIT,
    NEAR_TEST,
    NEAR_VALIDATION,
    SAME_QUESTION,
    SIDE_CODES,
    TASK,
    TEST,
    THINNED,
    TRAIN,
    VALIDATION,
    RaggedHashes,
    RowFacts,
    assign_sides,
    side_share,
    units_of,
)

FREE = SIDE_CODES[""]


def config(**settings: object) -> DataConfig:
    source = FilesSource(kind="files", path="rows.jsonl")  # type: ignore[arg-type]
    fractions = {"test_fraction": 0.3, "validation_fraction": 0.2}
    return DataConfig(source=source, **(fractions | settings))  # type: ignore[arg-type]


def hashes(values: Sequence[int]) -> np.ndarray:
    """Numbers spread as hashes are."""
    return np.array([(value * 0x9E3779B97F4A7C15 + 1) % 2**64 for value in values], np.uint64)


def facts(
    num_rows: int,
    *,
    questions: Sequence[int] | None = None,
    asked: Sequence[Sequence[int]] | None = None,
    groups: Sequence[int] | None = None,
    fixed: Sequence[int] | None = None,
    source: Sequence[int] | None = None,
    task: Sequence[bool] | None = None,
    cluster: Sequence[int] | None = None,
) -> RowFacts:
    """Rows with questions of their own, free to stand anywhere, unless said otherwise."""
    question = hashes(questions or range(num_rows))
    asked_values = (
        [hashes(own) for own in asked] if asked else [question[[n]] for n in range(num_rows)]
    )
    group = hashes(groups) if groups else np.zeros(num_rows, np.uint64)
    if groups:
        group[np.array(groups) == 0] = 0
    return RowFacts(
        group=group,
        question=question,
        asked=RaggedHashes(
            np.concatenate(asked_values), np.cumsum([0, *(len(own) for own in asked_values)])
        ),
        fixed=np.array(fixed or [FREE] * num_rows, np.int8),
        source=np.array(source or [0] * num_rows, np.int16),
        task=np.array(task or [False] * num_rows),
        cluster=np.array(cluster or range(num_rows)),
    )


def sides(rows: RowFacts, *, weights: Sequence[float] = (1.0,), **settings: object) -> list[int]:
    found: list[int] = assign_sides(
        rows, units_of(rows), config(**settings), list(weights)
    ).tolist()
    return found


# Free rows.


def test_fractions_are_met() -> None:
    found = np.array(sides(facts(20_000)))
    assert (found == TEST).mean() == pytest.approx(0.3, abs=0.01)
    assert (found == VALIDATION).mean() == pytest.approx(0.7 * 0.2, abs=0.01)
    assert set(found) == {TRAIN, VALIDATION, TEST}


def test_sides_are_for_good() -> None:
    """These are stored in run directories: other numbers would move rows from test to training."""
    assert sides(facts(12)) == [1, 0, 0, 0, 2, 2, 0, 0, 2, 2, 0, 0]
    assert side_share(hashes([1, 2, 3]), "test").round(6).tolist() == [0.345252, 0.581611, 0.463358]


@given(st.permutations(range(60)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    groups = [n // 3 + 1 for n in range(60)]
    straight = sides(facts(60, groups=groups))
    shuffled = sides(facts(60, questions=order, groups=[groups[n] for n in order]))
    assert shuffled == [straight[n] for n in order]


def test_rows_keep_their_side_when_others_come() -> None:
    before, after = sides(facts(500)), sides(facts(5000))
    assert after[:500] == before


def test_a_group_keeps_its_side_when_it_grows() -> None:
    before = sides(facts(200, groups=[n // 2 + 1 for n in range(200)]))
    grown = facts(800, groups=[n % 200 // 2 + 1 for n in range(800)])
    assert sides(grown)[:200] == before


@pytest.mark.parametrize("kind", ["groups", "questions", "cluster"])
def test_what_belongs_together_shares_a_side(kind: str) -> None:
    labels = [n // 4 for n in range(400)]
    own: dict[str, list[int]] = {
        "groups": [label + 1 for label in labels],
        "questions": labels,
        "cluster": [label * 4 for label in labels],
    }
    found = sides(facts(400, **{kind: own[kind]}))  # type: ignore[arg-type]
    assert all(len(set(found[n : n + 4])) == 1 for n in range(0, 400, 4))
    assert set(found) == {TRAIN, VALIDATION, TEST}


def test_units_reach_over_groups_questions_and_clusters() -> None:
    rows = facts(
        6, groups=[1, 1, 0, 0, 0, 0], questions=[1, 2, 2, 3, 4, 5], cluster=[0, 1, 2, 2, 4, 5]
    )
    assert units_of(rows).tolist() == [0, 0, 0, 0, 1, 2]


def test_a_large_cluster_is_trained_on() -> None:
    own = [0] * 21 + [21] * 20
    for seed in range(40):
        rows = facts(41, questions=range(seed * 41, seed * 41 + 41), cluster=own)
        assert set(sides(rows)[:21]) == {TRAIN}
    found = {
        side
        for seed in range(40)
        for side in sides(facts(41, questions=range(seed * 41, seed * 41 + 41), cluster=own))[21:]
    }
    assert found == {TRAIN, VALIDATION, TEST}
    limit = NearDuplicatesConfig(max_held_out_rows=19)
    rows = facts(41, cluster=own)
    assert set(sides(rows, near_duplicates=limit)) == {TRAIN}


# Official splits.


def test_an_official_test_split_is_honoured() -> None:
    found = np.array(sides(facts(1000, fixed=[TEST] * 100 + [TRAIN] * 900)))
    assert set(found[:100]) == {TEST}
    assert set(found[100:]) == {TRAIN, VALIDATION}
    assert (found[100:] == VALIDATION).mean() == pytest.approx(0.2, abs=0.03)


def test_with_an_official_validation_split_training_rows_stay_what_they_are() -> None:
    found = sides(facts(300, fixed=[TEST] * 20 + [VALIDATION] * 30 + [TRAIN] * 250))
    assert found == [TEST] * 20 + [VALIDATION] * 30 + [TRAIN] * 250


def test_a_training_row_near_an_official_test_row_is_not_used() -> None:
    rows = facts(5, fixed=[TRAIN, TEST, TRAIN, VALIDATION, TRAIN], cluster=[0, 0, 2, 2, 4])
    assert sides(rows) == [NEAR_TEST, TEST, NEAR_VALIDATION, VALIDATION, TRAIN]


def test_a_free_row_beside_a_training_row_is_not_held_out() -> None:
    for seed in range(30):
        rows = facts(2, questions=[2 * seed, 2 * seed + 1], fixed=[TRAIN, FREE], cluster=[0, 0])
        assert TEST not in sides(rows)


def test_a_training_row_that_asks_what_is_tested_is_not_used() -> None:
    rows = facts(
        3,
        questions=[7, 8, 9],
        asked=[[7], [7, 8], [9]],
        fixed=[TEST, TRAIN, TRAIN],
    )
    assert sides(rows, validation_fraction=1e-9) == [TEST, SAME_QUESTION, TRAIN]


# Evaluation tasks, limits, mixtures.


def test_rows_of_a_task_are_not_written_and_keep_others_out() -> None:
    rows = facts(
        4,
        questions=[1, 1, 2, 3],
        fixed=[TEST, FREE, FREE, TRAIN],
        source=[1, 0, 0, 0],
        task=[True, False, False, False],
        cluster=[0, 1, 0, 3],
    )
    assert sides(rows)[:3] == [TASK, SAME_QUESTION, NEAR_TEST]


def test_rows_beyond_the_limit_decide_nothing() -> None:
    rows = facts(4, fixed=[TEST, TRAIN, TRAIN, TEST], cluster=[0, 1, 2, 2])
    found = sides(rows, max_rows=3, validation_fraction=1e-9)
    assert found == [TEST, TRAIN, TRAIN, BEYOND_LIMIT]


def test_the_limit_does_not_count_rows_of_tasks() -> None:
    rows = facts(4, fixed=[TEST] * 4, source=[1, 1, 0, 0], task=[True, True, False, False])
    assert sides(rows, max_rows=1) == [TASK, TASK, TEST, BEYOND_LIMIT]


def test_a_mixture_is_thinned_to_its_weights() -> None:
    rows = facts(1500, fixed=[TRAIN] * 1400 + [TEST] * 100, source=[0] * 1000 + [1] * 500)
    found = np.array(sides(rows, weights=[1.0, 3.0], validation_fraction=1e-9))
    assert (found[:1000] == TRAIN).sum() == 133
    assert (found[1000:1400] == TRAIN).all()
    assert (found[1400:] == TEST).all()
    assert (found == THINNED).sum() == 1000 - 133
    # The first rows in the order of the hashes stay.
    assert (found[:133] == TRAIN).all()


def test_a_part_without_training_rows_thins_no_other() -> None:
    rows = facts(100, fixed=[TRAIN] * 60 + [TEST] * 40, source=[0] * 60 + [1] * 40)
    assert THINNED not in sides(rows, weights=[1.0, 5.0])
