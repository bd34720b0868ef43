"""The blind vote: nothing tells whose answer is whose before it, and it lands as it was meant."""

import stat
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from data.votes import Vote, read_votes
from tests.workbench.conftest import HOSTED
from tests.workbench.run_folder import RUN
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

SAID = "Clear words of the host."
MAX_LOOKS = 300
MAX_ROUNDS = 16
"""Both orders come up in so many rounds but for one time in 30,000."""


@pytest.fixture
def blind(workbench: WorkbenchPage, votes_file: Path, host: ScriptedHost) -> WorkbenchPage:
    host.answers["Go"] = Answer(text=SAID)
    workbench.set_parameters(max_tokens=8, temperature=0)
    workbench.go_to("compare")
    workbench.choose_compared([RUN, HOSTED])
    workbench.part("blind-toggle").check()
    return workbench


def ask(blind: WorkbenchPage) -> list[Locator]:
    """Both columns, once a vote is asked for."""
    columns = blind.compare("Go")
    expect(blind.part("vote-tie")).to_be_visible()
    return columns


def place_of_host(columns: list[Locator]) -> int:
    places = [index for index, column in enumerate(columns) if SAID in column.inner_text()]
    assert len(places) == 1
    return places[0]


def test_names_are_hidden_until_the_vote(blind: WorkbenchPage) -> None:
    columns = blind.compare("Go")
    view = blind.page.locator("#panel-compare")
    for _ in range(5):
        markup = view.evaluate("one => one.outerHTML")
        assert not any(name in markup for name in (RUN, HOSTED, "hosted/", "tokens/s"))
    expect(blind.part("vote-tie")).to_be_visible()
    markup = view.evaluate("one => one.outerHTML")
    assert not any(name in markup for name in (RUN, HOSTED, "hosted/", "tokens/s"))
    expect(blind.part("metric-speed")).to_have_count(0)
    place = place_of_host(columns)
    blind.part("vote-tie").click()
    expect(blind.part("vote-result")).to_be_visible()
    expect(columns[place]).to_contain_text(HOSTED)
    expect(columns[1 - place]).to_contain_text(RUN)


def test_neither_answer_is_seen_before_the_other(blind: WorkbenchPage, host: ScriptedHost) -> None:
    host.answers["Go"] = Answer(text=SAID, pause_s=0.2)
    columns = blind.compare("Go")
    first_word = SAID.split()[0]
    num_looks = 0
    for _ in range(MAX_LOOKS):
        texts = [column.inner_text() for column in columns]
        if blind.part("vote-tie").count():
            break
        assert all(first_word not in text for text in texts)
        num_looks += host.num_open == 1
        blind.page.wait_for_timeout(20)
    assert num_looks >= 5, "the host's answer was looked at while it came"
    assert any(first_word in column.inner_text() for column in columns)


def test_each_choice_lands_for_whom_it_was_meant_in_both_orders(
    blind: WorkbenchPage, votes_file: Path
) -> None:
    """The host's answer is known by its words, so its side of the page and of the file are."""
    expected: list[tuple[str | None, str]] = []
    orders: set[int] = set()
    while len(expected) < 4 or len(orders) < 2:
        assert len(expected) < MAX_ROUNDS, "only one order was ever shown"
        place = place_of_host(ask(blind))
        orders.add(place)
        choice = ("vote-a", "vote-b", "vote-tie", "vote-both-bad")[len(expected) % 4]
        winner = {"vote-a": place == 0, "vote-b": place == 1}.get(choice)
        blind.part(choice).click()
        expect(blind.part("vote-result")).to_be_visible()
        name = None if winner is None else HOSTED if winner else RUN
        expected.append((name, (HOSTED, RUN)[place]))
    votes = read_votes(votes_file)
    assert [(winner_of(vote), first_of(vote)) for vote in votes] == expected
    assert [vote.choice for vote in votes[2:4]] == ["tie", "both_bad"]
    assert stat.S_IMODE(votes_file.stat().st_mode) == 0o600
    for vote in votes:
        assert text_of(vote, HOSTED) == SAID != text_of(vote, RUN)
        assert vote.messages == [{"role": "user", "content": "Go"}]
        assert vote.parameters == {"max_tokens": 8, "temperature": 0}


def winner_of(vote: Vote) -> str | None:
    return vote.chosen.model if vote.chosen else None


def first_of(vote: Vote) -> str:
    return vote.a.model if vote.shown_first == "a" else vote.b.model


def text_of(vote: Vote, model: str) -> str | None:
    return next(side.message.content for side in (vote.a, vote.b) if side.model == model)


def test_votes_are_cast_by_keys_and_counted_once(blind: WorkbenchPage, votes_file: Path) -> None:
    ask(blind)
    blind.page.keyboard.press("3")
    expect(blind.part("vote-result")).to_be_visible()
    blind.page.keyboard.press("3")
    blind.page.keyboard.press("1")
    expect(blind.part("vote-totals")).to_contain_text("1")
    assert [vote.choice for vote in read_votes(votes_file)] == ["tie"]


def test_a_look_at_the_names_is_no_vote(blind: WorkbenchPage, votes_file: Path) -> None:
    ask(blind)
    blind.part("vote-skip").click()
    expect(blind.part("compare-column").first).to_contain_text(":")
    expect(blind.part("vote-tie")).to_have_count(0)
    assert read_votes(votes_file) == []


def test_an_answer_that_failed_is_not_voted_on(
    blind: WorkbenchPage, host: ScriptedHost, votes_file: Path
) -> None:
    blind.watch.takes_errors = True
    host.answers["Go"] = Answer(text="not today", status=400)
    blind.compare("Go")
    expect(blind.page.get_by_text("nothing to vote on")).to_be_visible()
    expect(blind.part("vote-tie")).to_have_count(0)
    assert read_votes(votes_file) == []
