"""The unmodified Mistral client, on `/v1` and on the path with Mistral's own errors."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError
from mistralai.client.models import BaseModelCard
from pydantic import BaseModel

from tests.serve.conftest import ALIAS, MODEL
from tests.serve.outside.find_tool import FIND

QUESTION: Any = [{"role": "user", "content": "the river"}]


class Place(BaseModel):
    number: int


@pytest.fixture(params=["", "/mistral"])
def client(server_url: str, request: pytest.FixtureRequest) -> Iterator[Mistral]:
    with Mistral(api_key="none", server_url=server_url + request.param) as client:
        yield client


def test_an_answer(client: Mistral) -> None:
    answer = client.chat.complete(
        model=MODEL, messages=QUESTION, max_tokens=5, random_seed=3, stop=["zzz"], safe_prompt=True
    )
    [choice] = answer.choices
    assert choice.message is not None
    assert choice.message.content
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_a_stream(client: Mistral) -> None:
    texts, reasons = [], []
    with client.chat.stream(model=MODEL, messages=QUESTION, max_tokens=5, temperature=0) as events:
        for event in events:
            [choice] = event.data.choices
            texts.append(choice.delta.content or "")
            reasons.append(choice.finish_reason)
    whole = client.chat.complete(model=MODEL, messages=QUESTION, max_tokens=5, temperature=0)
    assert whole.choices[0].message is not None
    assert "".join(map(str, texts)) == whole.choices[0].message.content
    assert reasons[-1] == "length"


def test_a_tool_call_and_its_reply(client: Mistral) -> None:
    answer = client.chat.complete(
        model=MODEL,
        messages=QUESTION,
        tools=[FIND],
        tool_choice="any",
        parallel_tool_calls=False,
        max_tokens=500,
    )
    message = answer.choices[0].message
    assert message is not None
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = message.tool_calls or []
    arguments = call.function.arguments
    assert isinstance(arguments, str)
    assert 0 <= json.loads(arguments)["number"] <= 9
    reply = client.chat.complete(
        model=MODEL,
        messages=[
            *QUESTION,
            message,
            {"role": "tool", "name": "find", "tool_call_id": call.id, "content": "a stone"},
        ],
        max_tokens=5,
    )
    assert reply.choices[0].message is not None


def test_a_pydantic_model_comes_back_parsed(client: Mistral) -> None:
    answer = client.chat.parse(Place, model=MODEL, messages=QUESTION, max_tokens=200, temperature=0)
    assert answer.choices is not None
    message = answer.choices[0].message
    assert message is not None
    assert isinstance(message.parsed, Place)


def test_models(client: Mistral) -> None:
    listed = client.models.list().data or []
    cards = [card for card in listed if isinstance(card, BaseModelCard)]
    assert [card.id for card in cards] == [MODEL, ALIAS]
    assert all(card.capabilities.completion_chat for card in cards)
    one = client.models.retrieve(model_id=ALIAS)
    assert isinstance(one, BaseModelCard)
    assert one.id == ALIAS


def test_errors_on_the_common_path(server_url: str) -> None:
    with Mistral(api_key="none", server_url=server_url) as client:
        with pytest.raises(SDKError) as error:
            client.chat.complete(model=MODEL, messages=QUESTION, temperature=3)
        assert error.value.status_code == 400


def test_errors_on_mistrals_path_are_its_own(server_url: str) -> None:
    with Mistral(api_key="none", server_url=f"{server_url}/mistral") as client:
        with pytest.raises(HTTPValidationError) as invalid:
            client.chat.complete(model=MODEL, messages=QUESTION, temperature=3)
        [detail] = invalid.value.data.detail or []
        assert detail.loc == ["body", "temperature"]
        with pytest.raises(SDKError) as unknown:
            client.chat.complete(model="nobody", messages=QUESTION)
        body = json.loads(unknown.value.body)
        assert body["object"] == "error"
        assert body["message"] == "Model not found: nobody"
