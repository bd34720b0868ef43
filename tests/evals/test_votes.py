"""Votes whose shares, counts and p-values can be told by hand."""

import logging
from collections.abc import Sequence

import pytest

from data.votes import Choice, Vote
from evals.results import VoteResult
from evals.statistics.paired import compare_paired
from evals.votes import summarise_votes
from tests.data.cast_votes import cast

# Eight won, one lost, one equal: McNemar's exact p is 2 * (1 + 9) / 2**9.
TEN: list[Choice] = ["a", "a", "a", "a", "a", "a", "a", "a", "b", "tie"]
P_TEN = 20 / 512


def summarise(votes: Sequence[Vote], *, own: str = "", **changed: float) -> list[VoteResult]:
    settings = {"confidence": 0.95, "num_resamples": 2000, "seed": 17} | changed
    return summarise_votes(votes, own=own, **settings)  # type: ignore[arg-type]


def on_prompts(choices: Sequence[Choice], **more: object) -> list[Vote]:
    """A vote on each of so many prompts; who stood first alternates."""
    return [
        cast(
            f"Prompt {n}?",
            number=n,
            choice=choice,
            client=f"client {n % 3}",
            shown_first="ab"[n % 2],
            **more,
        )
        for n, choice in enumerate(choices)
    ]


def test_votes_on_single_prompts_are_judged_as_right_and_wrong_answers_are() -> None:
    [one] = summarise(on_prompts(TEN))
    assert (one["model"], one["other"]) == ("ours", "theirs")
    counts = ("num_votes", "num_won", "num_lost", "num_tied", "num_both_bad", "num_prompts")
    assert [one[name] for name in counts] == [10, 8, 1, 1, 0, 10]  # type: ignore[literal-required]
    assert (one["num_voters"], one["num_shown_first"]) == (3, 5)
    assert (one["first_day"], one["last_day"]) == ("2026-03-01", "2026-03-10")
    assert one["share"] == 0.85
    assert one["p_value"] == one["adjusted_p_value"] == pytest.approx(P_TEN, rel=1e-5)
    assert (one["verdict"], one["test_method"]) == ("better", "exact McNemar test")
    same = compare_paired(
        [0] * 8 + [1, 0.5],
        [1] * 8 + [0, 0.5],
        confidence=0.95,
        num_resamples=1000,
        seed=1,
        margin=0.03,
    )
    assert same.delta == pytest.approx(2 * (one["share"] - 0.5))
    assert one["interval"] is not None
    expected = [(1 + bound) / 2 for bound in same.interval]
    assert one["interval"] == pytest.approx(expected, abs=1e-6)
    assert 0.5 < one["interval"][0] < 0.85 < one["interval"][1] < 1
    assert one["warnings"] == []


def test_it_does_not_matter_which_model_a_vote_calls_a() -> None:
    turned: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}
    straight = on_prompts(TEN)
    mixed = [
        cast(
            f"Prompt {n}?",
            number=n,
            choice=turned[choice] if n % 2 else choice,
            models=("theirs", "ours") if n % 2 else ("ours", "theirs"),
            client=f"client {n % 3}",
            shown_first="a",
        )
        for n, choice in enumerate(TEN)
    ]
    assert summarise(mixed) == summarise(straight)
    assert summarise(mixed[::-1]) == summarise(straight)


def test_pairs_are_told_from_the_side_of_the_own_model() -> None:
    [one] = summarise(on_prompts(TEN), own="theirs")
    assert (one["model"], one["other"]) == ("theirs", "ours")
    assert (one["num_won"], one["num_lost"], one["share"]) == (1, 8, 0.15)
    assert one["verdict"] == "worse"
    assert one["num_shown_first"] == 5


def test_own_pairs_come_first_then_those_with_most_votes() -> None:
    votes = [
        *on_prompts(["a"] * 3, models=("x", "y")),
        *on_prompts(["a"] * 4, models=("x", "z")),
        *on_prompts(["a"] * 2, models=("x", "ours")),
    ]
    pairs = [(one["model"], one["other"]) for one in summarise(votes, own="ours")]
    assert pairs == [("ours", "x"), ("x", "z"), ("x", "y")]
    pairs = [(one["model"], one["other"]) for one in summarise(votes)]
    assert pairs == [("x", "z"), ("x", "y"), ("ours", "x")]


def test_equal_and_both_bad_count_half() -> None:
    [one] = summarise(on_prompts(["a", "a", "a", "tie", "both_bad", "both_bad"]))
    assert one["share"] == 0.75
    assert (one["num_tied"], one["num_both_bad"]) == (1, 2)
    [even] = summarise(on_prompts(["tie", "both_bad", "tie"]))
    assert (even["share"], even["p_value"], even["verdict"]) == (0.5, 1.0, "inconclusive")


def test_votes_on_one_prompt_belong_together() -> None:
    [apart] = summarise(on_prompts(["a"] * 12))
    assert apart["verdict"] == "better"
    same = [cast("Prompt?", number=n, client=f"c{n}", shown_first="ab"[n % 2]) for n in range(12)]
    [together] = summarise(same)
    assert (together["num_prompts"], together["num_votes"], together["share"]) == (1, 12, 1.0)
    assert (together["p_value"], together["verdict"]) == (1.0, "inconclusive")
    assert together["interval"] is not None
    assert together["interval"][0] < 0.5
    assert "cluster" in together["test_method"]


def test_one_vote_has_no_interval() -> None:
    [one] = summarise([cast()])
    assert (one["share"], one["interval"], one["p_value"]) == (1.0, None, None)
    assert (one["adjusted_p_value"], one["verdict"], one["warnings"]) == (None, "inconclusive", [])
    assert (one["interval_method"], one["test_method"]) == ("", "")


def test_p_values_are_adjusted_over_the_pairs() -> None:
    # Six of six: p is 2 / 2**6.
    votes = [
        *on_prompts(["a"] * 6, models=("x", "y")),
        *on_prompts(["a", "b"] * 4, models=("x", "z")),
        cast(models=("y", "z")),
    ]
    equal, clear, single = summarise(votes)
    assert clear["p_value"] == 0.03125
    assert clear["adjusted_p_value"] == 0.0625
    assert clear["verdict"] == "inconclusive"
    assert (equal["p_value"], equal["adjusted_p_value"]) == (1.0, 1.0)
    assert single["adjusted_p_value"] is None
    [alone] = summarise(votes[:6])
    assert (alone["adjusted_p_value"], alone["verdict"]) == (0.03125, "better")


def test_the_confidence_is_that_of_the_configuration() -> None:
    [wide] = summarise(on_prompts(TEN), confidence=0.99)
    [narrow] = summarise(on_prompts(TEN))
    assert wide["interval"] is not None
    assert narrow["interval"] is not None
    assert wide["interval"][0] < narrow["interval"][0]
    assert wide["verdict"] == "inconclusive"


def test_the_place_of_an_answer_is_told_where_it_has_moved_the_votes() -> None:
    # Whatever stood first was chosen: no model is preferred.
    choices: list[Choice] = ["a", "b"] * 6
    [one] = summarise(on_prompts(choices))
    assert (one["share"], one["verdict"]) == (0.5, "inconclusive")
    assert one["warnings"] == [
        "The answer shown first was chosen in 12 of 12 decided votes (p 0.00049): where an answer "
        "stood has moved the votes, or the order was not left to chance."
    ]
    # Ties say nothing of places, and what stood second may draw votes as well.
    second: list[Choice] = ["b", "a"] * 6
    ties: list[Choice] = ["tie"] * 30
    [last] = summarise(on_prompts([*second, *ties]))
    assert last["warnings"][0].startswith("The answer shown first was chosen in 0 of 12 decided")
    # Eight of twelve may be chance.
    [chance] = summarise(on_prompts([*choices[:8], *("b", "a", "b", "a")]))
    assert chance["warnings"] == []


def test_votes_of_one_voter_are_told() -> None:
    votes = [cast(str(n), number=n, shown_first="ab"[n % 2]) for n in range(5)]
    [one] = summarise(votes)
    assert one["num_voters"] == 1
    assert one["warnings"] == [
        "All votes came with one key or from one address: they may be one person's taste."
    ]


def test_a_model_against_itself_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    votes = [*on_prompts(TEN), cast(models=("ours", "ours")), cast(models=("ours", "ours"))]
    with caplog.at_level(logging.WARNING):
        assert summarise(votes, own="ours") == summarise(on_prompts(TEN), own="ours")
    assert caplog.messages == ["2 votes between ours and itself are left out"]


def test_no_votes_say_nothing() -> None:
    assert summarise([]) == []
