from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.labels import count_labels, label_set, macro_f1, score_macro_f1
from evals.metrics.score import Reply
from tests.evals.metrics.questions import question_of


def macro_of(truth: list[str], predicted: list[str]) -> float:
    counts = count_labels([label_set(one) for one in truth], [label_set(one) for one in predicted])
    return float(
        macro_f1(
            counts.true_positives.sum(axis=0),
            counts.false_positives.sum(axis=0),
            counts.false_negatives.sum(axis=0),
        )
    )


def test_labels_are_read_from_a_list() -> None:
    assert label_set("Theft,  Fraud. ") == {"theft", "fraud"}
    assert label_set("fraud, fraud") == {"fraud"}
    assert label_set("None") == {"none"}
    assert label_set(" , ") == label_set("") == frozenset()


@pytest.mark.parametrize(
    ("expected", "answer", "value", "label"),
    [
        ("theft, fraud", "Fraud, Theft.", 1, "fraud, theft"),
        ("theft, fraud", "theft", 0, "theft"),
        ("theft", "theft, fraud", 0, "fraud, theft"),
        ("none", "None.", 1, "none"),
        ("none", "", 0, ""),
        ("spam", "The answer is spam.", 0, "the answer is spam"),
        ("spam", "Spam, because it sells", 0, "because it sells, spam"),
        ("yes", "Yes, because it helps.", 1, "yes"),
        ("yes", "**Yes**. It helps.", 1, "yes"),
        ("maybe", "Maybe\nIt is unclear", 1, "maybe"),
        ("no", "Yes, because no harm is known.", 0, "yes"),
        ("no", "No evidence was found.", 0, "no evidence was found"),
        ("yes", "Yes. No.", 0, "yes. no"),
        ("yes", "yes, no", 0, "no, yes"),
        ("yes", "The answer is yes.", 0, "the answer is yes"),
        ("yes", "Yesterday", 0, "yesterday"),
    ],
)
def test_an_answer_is_its_labels(expected: str, answer: str, value: int, label: str) -> None:
    score = score_macro_f1(Reply(answer), question_of(expected))
    assert (score.value, score.label) == (value, label)


def test_a_model_that_always_says_yes_has_a_low_macro_f1() -> None:
    truth = ["yes"] * 55 + ["no"] * 34 + ["maybe"] * 11
    # yes: precision 55/100, recall 1, F1 110/155; the two others 0.
    assert macro_of(truth, ["yes"] * 100) == pytest.approx(110 / 155 / 3)


def test_against_values_of_scikit_learn() -> None:
    # f1_score(y_true, y_pred, average="macro") of scikit-learn 1.9.1.
    assert macro_of(list("aabbccc"), list("abbbcca")) == pytest.approx(0.7000000000000001)
    # f1_score(indicators, average="macro") of the sets {a, b}, {a}, {}, {b, c}.
    truth, given_ = ["a, b", "a", "none", "b, c"], ["a", "a, b", "none", "b, c"]
    assert macro_of(truth, given_) == pytest.approx(0.8333333333333334)


def test_an_invented_label_is_a_miss_and_no_class() -> None:
    # As f1_score(…, average="macro", labels=["a", "b"]); without `labels` it is 0.5556.
    assert macro_of(["a", "a", "b", "b"], ["a", "a", "b", "banana"]) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_none_is_the_empty_set_among_sets_and_a_class_among_single_labels() -> None:
    sets = count_labels(
        [label_set("a, b"), label_set("none")], [label_set("a, b"), label_set("none")]
    )
    assert sets.labels == ("a", "b")
    singles = count_labels([label_set("a"), label_set("none")], [label_set("a"), label_set("a")])
    assert singles.labels == ("a", "none")
    np.testing.assert_array_equal(singles.false_negatives, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(singles.false_positives, [[0, 0], [1, 0]])


def test_counts_of_resamples_are_averaged_over_the_labels_that_occur_in_them() -> None:
    right, wrong, missed = np.array([[2, 0], [0, 0], [1, 1]]), np.zeros((3, 2)), np.zeros((3, 2))
    np.testing.assert_allclose(macro_f1(right, wrong, missed), [1, 0, 1])
    assert macro_f1(right[None], wrong[None], missed[None]).shape == (1, 3)


def test_unpaired_and_unlabelled_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="against"):
        count_labels([label_set("a")], [])
    with pytest.raises(ValueError, match="no question"):
        count_labels([label_set("")], [label_set("a")])


@given(st.text() | st.text(st.sampled_from("ab., ")))
def test_labels_understood_are_read_again_as_the_same(text: str) -> None:
    labels = label_set(text)
    assert label_set(", ".join(sorted(labels))) == labels


SETS = st.lists(st.frozensets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=20)


@given(SETS, st.randoms())
def test_the_truth_scores_one_and_order_does_not_matter(
    truth: list[frozenset[str]], random: Random
) -> None:
    predicted = [random.choice(truth) for _ in truth]
    pairs = list(zip(truth, predicted, strict=True))
    random.shuffle(pairs)

    def total(first: list[frozenset[str]], second: list[frozenset[str]]) -> float:
        counts = count_labels(first, second)
        arrays = (counts.true_positives, counts.false_positives, counts.false_negatives)
        return float(macro_f1(*(array.sum(axis=0) for array in arrays)))

    assert total(truth, truth) == 1
    assert total(truth, predicted) == pytest.approx(
        total([one for one, _ in pairs], [other for _, other in pairs])
    )
    assert 0 <= total(truth, predicted) <= 1
