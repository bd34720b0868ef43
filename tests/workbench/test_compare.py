"""Compare: several models at once, each with its figures, whatever becomes of the others."""

import re

import pytest
from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED, HOSTED_TOO
from tests.workbench.run_folder import RUN
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

WORDS = " ".join(f"word{n}" for n in range(30))


@pytest.fixture
def compared(workbench: WorkbenchPage) -> WorkbenchPage:
    workbench.go_to("compare")
    return workbench


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_models_are_asked_at_the_same_time(
    compared: WorkbenchPage, host: ScriptedHost, count: int
) -> None:
    host.answers["Go"] = Answer(text=WORDS, pause_s=0.03)
    names = [HOSTED, HOSTED_TOO, HOSTED, HOSTED_TOO][:count]
    compared.choose_compared(names)
    columns = compared.compare("Go")
    assert len(columns) == count
    for column in columns:
        expect(column).to_contain_text("word2")
    assert host.num_open == host.most_open == count
    assert "word29" not in columns[0].inner_text()
    compared.wait_for_columns()
    for column in columns:
        expect(column).to_contain_text("word29")
    assert [body["model"] for body in compared.sent] == names
    assert len({str(body["messages"]) for body in compared.sent}) == 1


def test_four_are_the_most_and_two_the_least(compared: WorkbenchPage) -> None:
    compared.choose_compared([HOSTED] * 4)
    expect(compared.part("compare-add")).to_have_count(0)
    for _ in range(2):
        compared.page.get_by_role("button", name="Remove model 1").click()
    expect(compared.page.get_by_role("button", name="Remove model")).to_have_count(0)
    expect(compared.part("compare-model-1")).to_be_visible()


def test_figures_are_those_of_the_answers(compared: WorkbenchPage, host: ScriptedHost) -> None:
    host.answers["Go"] = Answer(text=WORDS, pause_s=0.02)
    compared.choose_compared([HOSTED, RUN])
    compared.set_parameters(max_tokens=6, temperature=0)
    hosted, own = compared.compare("Go")
    compared.wait_for_columns()

    def figure(column: int, name: str) -> str:
        return (hosted, own)[column].get_by_test_id(f"metric-{name}").inner_text()

    assert figure(0, "tokens") == "7 in, 30 out"
    assert re.fullmatch(r"\d+ in, 6 out", figure(1, "tokens"))
    # 7 x 2 + 30 x 6 EUR per million
    assert figure(0, "cost") == "€0.000194"
    assert figure(1, "cost") == "–"
    speed = re.fullmatch(r"([\d.]+) tokens/s", figure(0, "speed"))
    assert speed
    assert 5 < float(speed[1]) < 50, "a word is sent each 20 ms at most"
    for column in (0, 1):
        assert re.fullmatch(r"\d+ ms|[\d.]+ s", figure(column, "first-token"))
    expect(own.get_by_test_id("metric-finish")).to_have_text("length")


def test_one_may_fail_while_the_others_go_on(compared: WorkbenchPage, host: ScriptedHost) -> None:
    compared.watch.takes_errors = True
    host.answers["unanswerable"] = Answer(text=WORDS, pause_s=0.01)
    compared.choose_compared([RUN, HOSTED])
    failing, other = compared.compare("unanswerable")
    compared.wait_for_columns()
    expect(failing.get_by_test_id("error")).to_be_visible()
    expect(other).to_contain_text("word29")
    expect(other.get_by_test_id("error")).to_have_count(0)
    expect(other.get_by_test_id("metric-tokens")).to_have_text("7 in, 30 out")


def test_one_may_be_stopped_while_the_others_go_on(
    compared: WorkbenchPage, host: ScriptedHost
) -> None:
    host.answers["Go"] = Answer(text=WORDS, pause_s=0.05)
    compared.choose_compared([HOSTED, HOSTED_TOO])
    first, second = compared.compare("Go")
    expect(first).to_contain_text("word1")
    first.get_by_role("button", name="Stop").click()
    expect(second).to_contain_text("word29")
    compared.wait_for_columns()
    assert "word29" not in first.inner_text()
    expect(first.get_by_test_id("metric-finish")).to_have_text("stopped by you")
    assert host.num_cut_off == 1


def test_differing_words_are_marked(compared: WorkbenchPage, host: ScriptedHost) -> None:
    host.answers["Go"] = Answer(text="The river is ninety kilometres long and rather cold.")
    compared.choose_compared([HOSTED, HOSTED_TOO])
    compared.compare("Go")
    compared.wait_for_columns()
    compared.part("diff-toggle").click()
    diff = compared.part("diff")
    expect(diff).to_contain_text("Both say the same")
    expect(diff.locator("mark")).to_have_count(0)


def test_the_marks_are_the_words_that_differ(compared: WorkbenchPage, host: ScriptedHost) -> None:
    common = "The river is {} kilometres long and rather cold, as all of them know."
    host.in_turn["Go"] = [
        Answer(text=common.format("ninety")),
        Answer(text=common.format("nine hundred")),
    ]
    compared.choose_compared([HOSTED, HOSTED_TOO])
    compared.compare("Go")
    compared.wait_for_columns()
    compared.part("diff-toggle").click()
    marks = compared.part("diff").locator("mark")
    expect(marks).to_have_count(2)
    assert sorted(text.strip() for text in marks.all_inner_texts()) == ["nine hundred", "ninety"]


def test_the_chats_messages_come_along(compared: WorkbenchPage, host: ScriptedHost) -> None:
    compared.go_to("chat")
    compared.part("system-prompt").fill("Be brief.")
    compared.exchange("One")
    compared.exchange("Two")
    compared.go_to("compare")
    compared.page.get_by_role("button", name="Take the chat's messages").click()
    expect(compared.part("compare-prompt")).to_have_value("Two")
    compared.choose_compared([HOSTED, HOSTED_TOO])
    compared.part("compare-run").click()
    compared.wait_for_columns()
    roles = [turn["role"] for turn in host.requests[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
