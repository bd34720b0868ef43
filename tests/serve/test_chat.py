import io

import pytest
from openai import OpenAI
from rich.console import Console

from serve.chat import MAX_TOKENS, chat
from tests.serve.conftest import MODEL


def converse(
    server_url: str, typed: str, monkeypatch: pytest.MonkeyPatch, model: str = MODEL
) -> str:
    """What the terminal shows when `typed` is typed, up to the end of input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    screen = io.StringIO()
    chat(f"{server_url}/v1", model, console=Console(file=screen, width=100))
    return screen.getvalue()


def test_the_answer_is_what_any_client_gets(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OpenAI(base_url=f"{server_url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "the river"}],
        temperature=0,
        max_tokens=MAX_TOKENS,
    )
    expected = "".join((answer.choices[0].message.content or "").split())
    assert expected
    shown = "".join(converse(server_url, "the river\n", monkeypatch).split())
    assert expected in shown


def test_earlier_turns_are_sent_along_until_an_empty_line(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = converse(server_url, "the river\n", monkeypatch)
    twice = converse(server_url, "the river\nthe river\n", monkeypatch)
    fresh = converse(server_url, "the river\n\nthe river\n", monkeypatch)
    answer = once.partition("you> ")[2]
    assert fresh.count(answer.strip()) == 2
    assert twice.count(answer.strip()) == 1


def test_a_refused_request_is_told_and_the_conversation_goes_on(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = converse(server_url, "hello\nhello\n", monkeypatch, model="nobody")
    assert shown.count("Model not found: nobody") == 2
