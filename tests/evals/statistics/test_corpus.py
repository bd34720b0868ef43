import numpy as np
import pytest
from scipy.stats import t

from evals.metrics.labels import LabelCounts, count_labels, macro_f1
from evals.statistics.comparison import PairedComparison
from evals.statistics.corpus import compare_macro_f1, macro_f1_interval

NAMES = ("a", "b", "c")


def counts(truth: list[str], given: list[str]) -> LabelCounts:
    return count_labels(
        [frozenset({label}) for label in truth], [frozenset({label}) for label in given]
    )


def compare(
    truth: list[str],
    baseline: list[str],
    variant: list[str],
    clusters: list[str] | None = None,
) -> PairedComparison:
    return compare_macro_f1(
        counts(truth, baseline),
        counts(truth, variant),
        clusters=clusters,
        confidence=0.95,
        num_resamples=2000,
        seed=3,
        margin=0.03,
    )


def answers(truth: list[str], share_right: float, rng: np.random.Generator) -> list[str]:
    return [
        label if rng.random() < share_right else str(rng.choice([n for n in NAMES if n != label]))
        for label in truth
    ]


def labels(num: int, rng: np.random.Generator) -> list[str]:
    return [*NAMES, *(str(label) for label in rng.choice(NAMES, num - 3, p=[0.6, 0.3, 0.1]))]


def test_scores_are_the_macro_f1_of_each_side() -> None:
    rng = np.random.default_rng(1)
    truth = labels(120, rng)
    first, second = answers(truth, 0.5, rng), answers(truth, 0.9, rng)
    result = compare(truth, first, second)
    for given, score in ((first, result.baseline_score), (second, result.variant_score)):
        side = counts(truth, given)
        sums = [
            array.sum(axis=0)
            for array in (side.true_positives, side.false_positives, side.false_negatives)
        ]
        assert score == pytest.approx(float(macro_f1(*sums)))
    assert result.delta == pytest.approx(result.variant_score - result.baseline_score)
    assert result.interval[0] < result.delta < result.interval[1]
    assert result.verdict == "better"
    assert result.num_won > result.num_lost


def test_accuracy_that_collapses_to_one_label_is_worse() -> None:
    rng = np.random.default_rng(2)
    truth = labels(300, rng)
    result = compare(truth, answers(truth, 0.6, rng), ["a"] * 300)
    assert result.variant_score < 0.35
    assert result.verdict == "worse"


def test_p_value_counts_the_patterns_that_are_as_far() -> None:
    truth, baseline, variant = list("abcabcab"), list("bbcabcac"), list("abcbbcab")
    result = compare(truth, baseline, variant)
    rows = [number for number in range(8) if baseline[number] != variant[number]]
    deltas = []
    for pattern in range(2 ** len(rows)):
        first, second = baseline.copy(), variant.copy()
        for place, row in enumerate(rows):
            if pattern >> place & 1:
                first[row], second[row] = second[row], first[row]
        swapped = compare(truth, first, second)
        deltas.append(abs(swapped.delta))
    far = sum(delta >= deltas[0] - 1e-12 for delta in deltas)
    assert 0 < far < len(deltas)
    assert result.p_value == pytest.approx(far / len(deltas))


def test_standard_error_is_that_of_leaving_out_each_question() -> None:
    rng = np.random.default_rng(4)
    truth = [*NAMES, *labels(40, rng)]
    first, second = answers(truth, 0.6, rng), answers(truth, 0.7, rng)
    without = np.array(
        [
            compare(*(side[:row] + side[row + 1 :] for side in (truth, first, second))).delta
            for row in range(len(truth))
        ]
    )
    num = len(truth)
    by_hand = np.sqrt((num - 1) / num * ((without - without.mean()) ** 2).sum())
    assert compare(truth, first, second).standard_error == pytest.approx(float(by_hand))


def test_copies_of_a_question_add_no_certainty() -> None:
    rng = np.random.default_rng(5)
    truth = labels(60, rng)
    sides = [truth, answers(truth, 0.55, rng), answers(truth, 0.75, rng)]
    alone = compare(sides[0], sides[1], sides[2])
    copied = [[label for label in side for _ in range(4)] for side in sides]
    groups = [str(row // 4) for row in range(240)]
    clustered = compare(copied[0], copied[1], copied[2], groups)
    assert clustered.num_clusters == 60
    assert clustered.standard_error == pytest.approx(alone.standard_error)
    assert clustered.p_value == alone.p_value


def test_the_same_answers_leave_no_difference() -> None:
    truth = list("abcabcabc")
    result = compare(truth, list("abbabcabc"), list("abbabcabc"))
    assert (result.delta, result.p_value) == (0.0, 1.0)
    assert result.interval[0] < 0 < result.interval[1]


def test_other_labels_or_numbers_of_questions_are_refused() -> None:
    options = {"confidence": 0.95, "num_resamples": 1000, "seed": 1, "margin": 0.03}
    side = counts(list("abc"), list("abc"))
    with pytest.raises(ValueError, match="the same labels"):
        compare_macro_f1(side, counts(list("abd"), list("abd")), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not paired"):
        compare_macro_f1(side, counts(list("abcc"), list("abcc")), **options)  # type: ignore[arg-type]
    single = counts(["a"], ["a"])
    with pytest.raises(ValueError, match="two questions"):
        compare_macro_f1(single, single, **options)  # type: ignore[arg-type]


# One side's interval.


def score(truth: list[str], given: list[str]) -> float:
    side = counts(truth, given)
    kinds = (side.true_positives, side.false_positives, side.false_negatives)
    return float(macro_f1(*(kind.sum(axis=0) for kind in kinds)))


def test_a_sides_interval_is_students_around_its_score_with_the_jackknifes_spread() -> None:
    rng = np.random.default_rng(6)
    truth = labels(40, rng)
    given = answers(truth, 0.6, rng)
    without = np.array(
        [score(truth[:n] + truth[n + 1 :], given[:n] + given[n + 1 :]) for n in range(40)]
    )
    spread = np.sqrt(39 / 40 * ((without - without.mean()) ** 2).sum())
    for confidence in (0.95, 0.8):
        reach = t.ppf((1 + confidence) / 2, 39) * spread
        low, high = macro_f1_interval(counts(truth, given), confidence=confidence)
        assert low == pytest.approx(score(truth, given) - reach)
        assert high == pytest.approx(score(truth, given) + reach)


def test_copies_of_a_question_do_not_narrow_a_sides_interval() -> None:
    rng = np.random.default_rng(7)
    truth = labels(60, rng)
    given = answers(truth, 0.7, rng)
    copied = [[label for label in side for _ in range(4)] for side in (truth, given)]
    groups = [str(row // 4) for row in range(240)]
    alone = macro_f1_interval(counts(truth, given), confidence=0.95)
    clustered = macro_f1_interval(counts(*copied), clusters=groups, confidence=0.95)
    assert clustered == pytest.approx(alone)
    assert macro_f1_interval(counts(*copied), confidence=0.95)[0] > alone[0] + 0.02


def test_a_sides_interval_stays_between_nought_and_one() -> None:
    truth = list("aaaabbbbcccc")
    low, high = macro_f1_interval(counts(truth, [*truth[:-1], "a"]), confidence=0.95)
    assert 0 < low < high == 1.0
    low, high = macro_f1_interval(counts(truth, ["a", *"ccccccccaaa"]), confidence=0.95)
    assert 0.0 == low < high < 1


def test_a_sides_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)

    def draw(num: int) -> tuple[list[str], list[str]]:
        truth = [str(label) for label in rng.choice(NAMES, num, p=[0.5, 0.3, 0.2])]
        return truth, answers(truth, 0.7, rng)

    target = score(*draw(40_000))
    num_held = 0
    for _ in range(300):
        low, high = macro_f1_interval(counts(*draw(80)), confidence=0.9)
        num_held += low <= target <= high
    # 90 %, give or take three standard errors.
    assert 0.848 < num_held / 300 < 0.952
