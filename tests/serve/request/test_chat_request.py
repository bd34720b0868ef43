"""What becomes of the fields of a request, and how each one that cannot be honoured is refused."""

import json
from typing import Any

import pytest

from serve.engine import Completion, EngineModel, ForcedFunction, JsonAnswer
from serve.errors import ApiError
from serve.request.chat_request import SAFE_PROMPT, parse_chat_request
from tests.serve.request.bodies import PIXEL, body, call, calling, parse, reply, tool, user


def completion(**fields: Any) -> Completion:  # noqa: ANN401
    return parse(body(**fields)).to_completion(images={})


def refusal(content: object) -> ApiError:
    with pytest.raises(ApiError) as error:
        parse(content)
    assert error.value.status == 400
    assert error.value.type == "invalid_params"
    return error.value


def turns(*messages: object) -> tuple[Any, ...]:
    return completion(messages=list(messages)).messages


def test_the_least_that_is_needed_asks_for_the_defaults() -> None:
    message = {"role": "user", "content": "the river"}
    assert completion() == Completion(model="tiny", messages=(message,))  # type: ignore[arg-type]


def test_every_field_of_openai_reaches_the_engine() -> None:
    asked = completion(
        max_completion_tokens=4,
        temperature=1.5,
        top_p=0.9,
        frequency_penalty=-2,
        presence_penalty=2.0,
        stop=["zz", "yy"],
        seed=7,
        n=3,
        logprobs=True,
        top_logprobs=5,
        tools=[tool(description="Looks up.", parameters={"type": "object"}, strict=True)],
        tool_choice="required",
        parallel_tool_calls=False,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "a", "description": "b", "schema": {"x": None}, "strict": True},
        },
        user="someone",
        store=False,
        metadata={},
        logit_bias={},
        modalities=["text"],
        service_tier="auto",
    )
    definition = {
        "name": "look_up",
        "description": "Looks up.",
        "parameters": {"type": "object"},
        "strict": True,
    }
    assert asked == Completion(
        model="tiny",
        messages=({"role": "user", "content": "the river"},),
        tools=({"type": "function", "function": definition},),
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=4,
        temperature=1.5,
        top_p=0.9,
        frequency_penalty=-2,
        presence_penalty=2.0,
        stop=("zz", "yy"),
        seed=7,
        num_choices=3,
        top_logprobs=5,
        json_answer=JsonAnswer(schema={"x": None}, name="a", description="b"),
    )


def test_mistrals_spellings_mean_the_same() -> None:
    tools = [tool()]
    asked = completion(max_tokens=4, random_seed=7, stop="zz", tools=tools, tool_choice="any")
    wanted = completion(
        max_completion_tokens=4, seed=7, stop=["zz"], tools=tools, tool_choice="required"
    )
    assert asked == wanted


def test_whole_numbers_may_be_written_with_a_point() -> None:
    asked = completion(max_tokens=4.0, n=2.0, seed=-3.0)
    assert (asked.max_tokens, asked.num_choices, asked.seed) == (4, 2, -3)
    assert isinstance(asked.max_tokens, int)


def test_null_counts_as_absent_at_every_depth() -> None:
    names = ("stream", "temperature", "stop", "tools", "response_format", "nobody_knows_this")
    message = user("the river", name=None, refusal=None)
    asked = completion(**dict.fromkeys(names), messages=[message])
    assert asked == completion()
    assert turns(user("a"), {"role": "assistant", "content": "b", "tool_calls": None})[1] == {
        "role": "assistant",
        "content": "b",
    }
    assert completion(tools=[tool(parameters={"default": None})]).tools[0]["function"] == {
        "name": "look_up",
        "parameters": {"default": None},
    }


def test_streams_say_what_was_asked_for() -> None:
    request = parse(body(stream=True, stream_options={"include_usage": True}, user="someone"))
    assert (request.stream, request.include_usage, request.user) == (True, True, "someone")
    request = parse(body())
    assert (request.stream, request.include_usage, request.user) == (False, False, None)


def test_log_probabilities_without_alternatives() -> None:
    assert completion().top_logprobs is None
    assert completion(logprobs=False).top_logprobs is None
    assert completion(logprobs=True).top_logprobs == 0
    assert completion(logprobs=True, top_logprobs=20).top_logprobs == 20


def test_text_parts_stand_on_lines_of_their_own() -> None:
    parts = [{"type": "text", "text": "the river"}, {"type": "text", "text": "stone"}]
    for role in ("system", "developer", "user", "assistant"):
        message = turns({"role": role, "content": parts})[0]
        assert message["content"] == "the river\nstone"
        assert message["role"] == ("system" if role == "developer" else role)


def test_both_spellings_of_an_image_are_found_and_replaced() -> None:
    address = "https://example.org/a.png"
    content = [
        {"type": "image_url", "image_url": address},
        {"type": "text", "text": "what is it?"},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}},
    ]
    request = parse(body(messages=[{"role": "system", "content": "a"}, user(content)]))
    assert list(request.images()) == [
        ("messages[1].content[0].image_url", address),
        ("messages[1].content[3].image_url", PIXEL),
    ]
    fetched = "data:image/png;base64,AAAA"
    asked = request.to_completion(images={address: fetched, PIXEL: PIXEL})
    assert asked.messages[1]["content"] == [
        {"type": "image_url", "image_url": {"url": fetched}},
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("", "{}"),
        (" \n", "{}"),
        ("{}", "{}"),
        ({}, "{}"),
        ('{"a": 1.50}', '{"a": 1.50}'),
        ({"ä": None}, '{"ä":null}'),
    ],
)
def test_arguments_are_json_text_of_an_object(sent: object, kept: str) -> None:
    asked = turns(user("a"), calling(call(arguments=sent)), reply())
    assert asked[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "look_up", "arguments": kept},
            }
        ],
    }
    assert asked[2] == {"role": "tool", "tool_call_id": "call_1", "content": "42"}


def test_an_answer_of_ours_can_be_sent_back() -> None:
    echoed = calling(
        call() | {"index": 0}, refusal=None, annotations=None, audio=None, function_call=None
    )
    assert turns(user("a"), echoed)[1]["tool_calls"] == [call()]
    mistrals = {"role": "assistant", "content": "b", "tool_calls": None, "prefix": False}
    assert turns(user("a"), mistrals)[1] == {"role": "assistant", "content": "b"}


def test_an_id_may_come_again_once_its_call_is_answered() -> None:
    messages = [user("a"), calling(call()), reply(), calling(call()), reply(name="look_up")]
    assert [turn["role"] for turn in turns(*messages)][-1] == "tool"


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "look_up"}}, ForcedFunction("look_up")),
        ({"function": {"name": "look_up"}}, ForcedFunction("look_up")),
    ],
)
def test_both_spellings_of_a_tool_choice(choice: object, kept: object) -> None:
    assert completion(tools=[tool()], tool_choice=choice).tool_choice == kept


def test_a_choice_without_meaning_needs_no_tools() -> None:
    for choice in ("auto", "none", None):
        assert completion(tool_choice=choice, tools=[], parallel_tool_calls=True).tools == ()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        ({}, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonAnswer()),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": False}},
            JsonAnswer(schema={}, name="a"),
        ),
    ],
)
def test_the_form_of_an_answer(sent: object, kept: JsonAnswer | None) -> None:
    assert completion(response_format=sent).json_answer == kept


def test_the_safe_prompt_comes_first_as_one_turn_of_the_system() -> None:
    safe = {"role": "system", "content": SAFE_PROMPT}
    assert completion(safe_prompt=True).messages == (safe, user("the river"))
    asked = completion(safe_prompt=True, messages=[{"role": "system", "content": "b"}, user("a")])
    assert asked.messages == ({"role": "system", "content": f"{SAFE_PROMPT}\n\nb"}, user("a"))
    assert completion(safe_prompt=False) == completion()


def test_orders_that_few_templates_take_are_left_to_the_template() -> None:
    assert len(turns(user("a"), user("b"), {"role": "system", "content": "c"})) == 3
    assert len(turns({"role": "assistant", "content": ""})) == 1
    assert len(turns(user("a"), calling(call()), user("b"))) == 3


def named(**fields: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": {}} | fields}


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "You must specify a model to call"),
    ({"model": ""}, "model", "You must specify a model to call"),
    ({"model": 5}, "model", "model: Input should be a valid string"),
    ({"model": "a" * 513}, "model", "at most 512"),
    ({"messages": []}, "messages", "Messages array cannot be empty"),
    ({"messages": None}, "messages", "Field required"),
    ({"messages": "hello"}, "messages", "valid list"),
    ({"messages": [5]}, "messages[0]", "must be an object"),
    ({"messages": [{"content": "a"}]}, "messages[0].role", "Field required"),
    ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role", "not 'function'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "Field required"),
    ({"messages": [user(None)]}, "messages[0].content", "Field required"),
    ({"messages": [user(5)]}, "messages[0].content", "a string or an array"),
    ({"messages": [user([])]}, "messages[0].content", "at least 1"),
    ({"messages": [user([IMAGE] * 1001)]}, "messages[0].content", "at most 200"),
    ({"messages": [user(["a"])]}, "messages[0].content[0]", "must be an object"),
    ({"messages": [user([{"text": "a"}])]}, "messages[0].content[0].type", "Field required"),
    (
        {"messages": [user([{"type": "input_audio"}])]},
        "messages[0].content[0].type",
        "must be one of 'text', 'image_url', not 'input_audio'",
    ),
    (
        {"messages": [user([{"type": "text", "text": 5}])]},
        "messages[0].content[0].text",
        "valid string",
    ),
    (
        {"messages": [{"role": "system", "content": [IMAGE]}]},
        "messages[0].content[0].image_url",
        "not supported",
    ),
    (
        {"messages": [user([{"type": "image_url", "image_url": {}}])]},
        "messages[0].content[0].image_url.url",
        "Field required",
    ),
    (
        {"messages": [user([{"type": "image_url", "image_url": {"url": "a", "detail": "low"}}])]},
        "messages[0].content[0].image_url.detail",
        "'auto' or 'high', not 'low'",
    ),
    ({"messages": [user("a", name="b")]}, "messages[0].name", "not supported: no chat template"),
    ({"messages": [user("a", contnet="b")]}, "messages[0].contnet", "did you mean `content`?"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content", "needed"),
    ({"messages": [calling()]}, "messages[0].content", "needed"),
    (
        {"messages": [{"role": "assistant", "content": "a", "prefix": True}]},
        "messages[0].prefix",
        "only false",
    ),
    (
        {"messages": [user("a"), calling(call(arguments="[]"))]},
        "messages[1].tool_calls[0].function.arguments",
        "must be JSON text of an object",
    ),
    (
        {"messages": [user("a"), calling(call(arguments="{"))]},
        "messages[1].tool_calls[0].function.arguments",
        "must be JSON text of an object",
    ),
    (
        {"messages": [user("a"), calling(call(arguments=deep(101)))]},
        "messages[1].tool_calls[0].function.arguments",
        "nested more than 100 deep",
    ),
    (
        {"messages": [user("a"), calling(call(arguments=json.dumps(deep(101))))]},
        "messages[1].tool_calls[0].function.arguments",
        "nested more than 100 deep",
    ),
    ({"messages": [calling(call(), call())]}, "messages[0].tool_calls[1].id", "two calls"),
    ({"messages": [calling(call(name=""))]}, "messages[0].tool_calls[0].function.name", "least 1"),
    ({"messages": [user("a"), reply()]}, "messages[1].tool_call_id", "answers no call"),
    (
        {"messages": [user("a"), calling(call()), reply(), reply()]},
        "messages[3].tool_call_id",
        "answers no call",
    ),
    ({"messages": [calling(call()), reply(name="b")]}, "messages[1].name", "one of look_up"),
    ({"messages": [calling(call()), reply(tool_call_id=None)]}, "messages[1].tool_call_id", "Fiel"),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": "0.5"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    ({"frequency_penalty": 3}, "frequency_penalty", "less than or equal to 2"),
    ({"presence_penalty": -3}, "presence_penalty", "greater than or equal to -2"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
    ({"max_tokens": True}, "max_tokens", "valid integer"),
    ({"max_tokens": 2**31}, "max_tokens", "less than or equal to 2147483647"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "equal to 1"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens", "not both"),
    ({"seed": 1, "random_seed": 1}, "random_seed", "not both"),
    ({"seed": 0.5}, "seed", "valid integer"),
    ({"seed": 2**63}, "seed", "less than or equal to 9223372036854775807"),
    ({"random_seed": -(2**70)}, "random_seed", "greater than or equal to"),
    ({"stop": ""}, "stop[0]", "at least 1"),
    ({"stop": ["a"] * 17}, "stop", "at most 16"),
    ({"stop": 5}, "stop", "valid list"),
    ({"stop": [None]}, "stop[0]", "valid string"),
    ({"stream": "yes"}, "stream", "valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not supported"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
        "only false",
    ),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 17}, "n", "less than or equal to 16"),
    ({"logprobs": 5}, "logprobs", "valid boolean"),
    ({"top_logprobs": 1}, "top_logprobs", "needs logprobs: true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"tools": [tool("a b")]}, "tools[0].function.name", "match pattern"),
    ({"tools": [tool("a" * 65)]}, "tools[0].function.name", "match pattern"),
    ({"tools": [tool(), tool()]}, "tools[1].function.name", "two tools have the name look_up"),
    ({"tools": [tool(parameters="{}")]}, "tools[0].function.parameters", "must be an object"),
    ({"tools": [tool(parameters=deep(101))]}, "tools[0].function.parameters", "nested more"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'function', not 'web_search'"),
    ({"tools": [tool()] * 129}, "tools", "at most 128"),
    ({"tools": [tool()], "tool_choice": "always"}, "tool_choice", "not 'always'"),
    ({"tools": [tool()], "tool_choice": 5}, "tool_choice", "must be an object"),
    ({"tool_choice": "required"}, "tool_choice", "required needs tools"),
    ({"tool_choice": "any", "tools": []}, "tool_choice", "any needs tools"),
    (
        {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "b"}}},
        "tool_choice.function.name",
        "b is not among the tools",
    ),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "not 'allowed_tools'"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "not 'xml'"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "goes with"),
    ({"response_format": named() | {"type": "text"}}, "response_format.json_schema", "goes with"),
    ({"response_format": named(schema=[])}, "response_format.json_schema.schema", "an object"),
    ({"response_format": named(schema=None)}, "response_format.json_schema.schema", "required"),
    ({"response_format": named(schema=deep(101))}, "response_format.json_schema.schema", "nested"),
    ({"response_format": named(name="")}, "response_format.json_schema.name", "at least 1"),
    ({"prediction": {"type": "content", "content": "a"}}, "prediction.content", "not 'a'"),
    ({"safe_prompt": "yes"}, "safe_prompt", "valid boolean"),
    ({"user": 5}, "user", "valid string"),
    ({"user": "a" * 513}, "user", "at most 512"),
    ({"store": True}, "store", "only false"),
    ({"store": 0}, "store", "valid boolean"),
    ({"metadata": {"a": "b"}}, "metadata.a", "not supported"),
    ({"logit_bias": {"50256": -100}}, "logit_bias.50256", "not supported"),
    ({"modalities": ["audio"]}, "modalities[0]", "not 'audio'"),
    ({"modalities": ["text", "audio"]}, "modalities", "at most 1"),
    ({"service_tier": "flex"}, "service_tier", "not 'flex'"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "not 'high'"),
    ({"temprature": 1}, "temprature", "did you mean `temperature`?"),
    ({"functions": []}, "functions", "not supported: use `tools`"),
    ({"top_k": 5}, "top_k", "not supported: sampling is by temperature"),
    ({"guardrails": []}, "guardrails", "not supported"),
    ({"prompt_mode": "reasoning"}, "prompt_mode", "not supported"),
    ({"{message}": 1}, "{message}", "not supported"),
]


@pytest.mark.parametrize(("fields", "param", "message"), REFUSED)
def test_what_cannot_be_honoured_is_a_400_that_names_the_field(
    fields: dict[str, Any], param: str, message: str
) -> None:
    error = refusal(body(**fields))
    assert error.param == param
    assert message in error.message
    json.dumps(error.body())


def test_all_faulty_fields_are_told_and_the_first_one_is_named() -> None:
    error = refusal(body(temperature=3, n=0, seed="a"))
    assert error.param == "temperature"
    assert [fault.path for fault in error.faults] == [("temperature",), ("seed",), ("n",)]
    assert "; seed: " in error.message


MESSAGES = b'"messages": [{"role": "user", "content": "a"}]'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe{",
        b"\xef\xbb\xbf{}",
        b"model=tiny",
        b'{"model": "tiny", ' + MESSAGES + b', "temperature": NaN}',
        b'{"model": "tiny", ' + MESSAGES + b', "temperature": 1e999}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
        b'{"model": "tiny", ' + MESSAGES + b', "\\ud800": 1}',
        b'{"model": "\\ud800", ' + MESSAGES + b"}",
        b'{"model": "tiny", ' + MESSAGES + b', "seed": ' + b"9" * 5000 + b"}",
        b'{"model": "tiny", ' + MESSAGES + b', "tools": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "tiny", "messages": [' + b"0," * 1_000_000 + b"0]}",
        b'{"model": "tiny", "messages": [' + b"{}," * 100_000 + b"{}]}",
        b'{"model": "tiny", ' + MESSAGES + b', "stop": [' + b"0," * 1_000_000 + b"0]}",
        b'{"model": "tiny", ' + MESSAGES + b', "modalities": [' + b"0," * 1_000_000 + b"0]}",
        json.dumps(body(**{f"field_{index}": 1 for index in range(100_000)})).encode(),
        json.dumps(body(messages=[user("a")] * 10_001)).encode(),
        json.dumps(body(messages=[user([{"type": "text", "text": ""}] * 1000)] * 20)).encode(),
        json.dumps(body(tools=[tool(parameters={"a": [[]] * 500_000})])).encode(),
    ],
    ids=lambda content: repr(content[:24]) + f" of {len(content)}",
)
def test_no_body_is_anything_but_a_400(content: bytes) -> None:
    with pytest.raises(ApiError) as error:
        parse_chat_request(content)
    assert error.value.status == 400
    assert 0 < len(json.dumps(error.value.body())) < 4000
    json.dumps(error.value.mistral_body()).encode()


def test_what_a_model_cannot_give_is_refused() -> None:
    model = EngineModel(name="tiny", context_length=100)
    unknown = EngineModel(name="tiny", context_length=None, takes_images=True)
    for field in ("max_tokens", "max_completion_tokens"):
        parse(body(**{field: 100})).check_model(model)
        request = parse(body(**{field: 101}))
        request.check_model(unknown)
        with pytest.raises(ApiError, match="at most 100, the model's context") as error:
            request.check_model(model)
        assert (error.value.status, error.value.param) == (400, field)
    request = parse(body(messages=[user([IMAGE])]))
    request.check_model(unknown)
    with pytest.raises(ApiError, match="takes no images") as error:
        request.check_model(model)
    assert (error.value.status, error.value.param) == (400, "messages[0].content[0].image_url")
