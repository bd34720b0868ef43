import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers import image as mistral_image
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from data.conversation import (
    Conversation,
    ImagePart,
    Message,
    ToolCall,
    question_and_answer,
)
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_call_ids import CALL_ID, mistral_call_ids
from data.tokens.mistral_models import CONTROL_TOKENS
from data.tokens.mistral_v7 import MistralV7Renderer
from data.tokens.rendered import Rendered
from data.tokens.template import load_renderer, render_conversations
from tests.conversations import LOOK_UP, call, row, supervised_texts

Mistral = MistralTokenizer[Any, Any, Any, Any, Any]


@pytest.fixture(scope="module")
def checkpoint(mistral_checkpoint: Path) -> Path:
    return mistral_checkpoint


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> MistralV7Renderer:
    renderer = load_renderer(tokenizer)
    assert isinstance(renderer, MistralV7Renderer)
    return renderer


@pytest.fixture(scope="module")
def mistral(checkpoint: Path) -> Iterator[Mistral]:
    """Mistral's own tokenizer, but for the pixels: they take OpenCV and change no token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistral_image, "transform_image", lambda *_: np.zeros((3, 1, 1)))
        # Takes rows that end with an answer, and prompts that do not.
        mode = ValidationMode.agnostic
        yield MistralTokenizer.from_file(str(checkpoint / "tekken.json"), mode=mode)


def user(content: str | list[Any]) -> Message:
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def assistant(content: str, *calls: ToolCall) -> Message:
    if calls:
        return {"role": "assistant", "content": content, "tool_calls": list(calls)}
    return {"role": "assistant", "content": content}


def reply(id: str, content: str) -> Message:
    return {"role": "tool", "content": content, "tool_call_id": id}


def image(width: int, height: int) -> ImagePart:
    data = io.BytesIO()
    Image.new("1", (width, height)).save(data, "PNG")
    payload = base64.b64encode(data.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{payload}"}}


def render(conversation: Conversation, renderer: MistralV7Renderer) -> Rendered:
    (one,) = renderer.render([conversation])
    assert len(one.assistant_mask) == len(one.input_ids)
    return one


def reference_ids(conversation: Conversation, mistral: Mistral) -> list[int]:
    """What mistral-common makes of a row, whose call ids it takes in its own form only."""
    ids = mistral_call_ids(conversation.messages)
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        given: dict[str, Any] = dict(message)
        if "tool_calls" in message:
            calls = [{**one, "id": ids[one["id"]]} for one in message["tool_calls"]]
            given["tool_calls"] = calls
        if message["role"] == "tool":
            given["tool_call_id"] = ids[message["tool_call_id"]]
        messages.append(given)
    request = ChatCompletionRequest.from_openai(messages, tools=list(conversation.tools) or None)
    tokens: list[int] = mistral.encode_chat_completion(request).tokens
    return tokens


# The same ids as mistral-common.

WORDS = st.sampled_from(
    [
        "[INST]",
        "</s>",
        "[TOOL_CALLS][IMG]",
        "camelCase HTTPServer don't 'Quoted'",
        "  1234567 3.14",
        "\n\n\t",
        " ",
        "日本語 é e\u0301 ß",
        "👩‍👩‍👧\u202e",
        "/a//b\\c\r\n/",
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=8), max_size=4).map("".join)
ANSWERS = st.tuples(TEXTS, st.sampled_from(["yes", " No.  ", "é\n"])).map("".join)
IDS = st.sampled_from(["abcDEF123", "call_1", "call_2", "a", "0123456789", "call_ü"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
IMAGES = [image(1, 1), image(29, 28), image(300, 200), image(2000, 500), image(40, 3000)]
PARTS = st.lists(
    TEXTS.map(lambda text: {"type": "text", "text": text}) | st.sampled_from(IMAGES), max_size=3
)
USERS = st.builds(user, TEXTS | PARTS)
TOOLS = st.sampled_from(
    [
        LOOK_UP,
        {"type": "function", "function": {"name": "now", "description": None, "strict": True}},
        {"type": "function", "function": {"name": "x-1", "parameters": {"a": [1, 2.5, "日本"]}}},
    ]
)


@st.composite
def tool_steps(draw: st.DrawFn) -> list[Message]:
    """An assistant's turn with calls, and their replies in some order."""
    ids = draw(st.lists(IDS, min_size=1, max_size=2, unique=True))
    arguments = draw(st.dictionaries(TEXTS, JSON, max_size=2))
    calls = [call(id, arguments=json.dumps(arguments)) for id in ids]
    replies = [reply(id, draw(TEXTS)) for id in draw(st.permutations(ids))]
    return [assistant(draw(TEXTS), *calls), *replies]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages = [system(text) for text in draw(st.lists(TEXTS, max_size=1))]
    for _ in range(draw(st.integers(1, 3))):
        messages += draw(st.lists(USERS, min_size=1, max_size=2))
        for steps in draw(st.lists(tool_steps(), max_size=1)):
            messages += steps
        messages.append(assistant(draw(ANSWERS)))
    return row(*messages, tools=tuple(draw(st.lists(TOOLS, max_size=2))))


@settings(max_examples=500)
@given(conversation=conversations())
def test_the_ids_are_those_of_mistral_common(
    conversation: Conversation, renderer: MistralV7Renderer, mistral: Mistral
) -> None:
    rendered = render(conversation, renderer)
    assert rendered.problem == ""
    assert rendered.input_ids == reference_ids(conversation, mistral)


def test_the_prompt_at_inference_is_what_stands_before_an_answer(
    renderer: MistralV7Renderer, mistral: Mistral
) -> None:
    turns = [system("Be brief."), user("a"), assistant("b"), user("é?"), assistant("[INST] 日本")]
    rendered = render(row(*turns), renderer)
    first = rendered.assistant_mask.index(1)
    last = len(rendered.input_ids) - rendered.assistant_mask[::-1].index(0)
    for place, num_turns in ((first, 2), (last, 4)):
        asked: list[dict[str, Any]] = [dict(turn) for turn in turns[:num_turns]]
        request = ChatCompletionRequest.from_openai(asked)
        assert mistral.encode_chat_completion(request).tokens == rendered.input_ids[:place]


def test_the_ids_are_those_that_transformers_expects_of_the_release(
    renderer: MistralV7Renderer,
) -> None:
    """They stand in transformers' own tests of the processor of Mistral Small 3.1."""
    question = "\nWhat's the difference between these two images? ASSISTANT:"
    released = [1010, 7493, 1681, 1278, 6592, 2396, 2576, 2295, 8061, 1063, 1349, 4290, 16002]
    rendered = render(row(user(question), assistant("USER: ")), renderer)
    assert rendered.input_ids == [1, 3, *released, 41150, 1058, 4, 21510, 1058, 2]


# Exact ids and mask.


def check(rendered: Rendered, *parts: tuple[int, list[int]]) -> None:
    """`parts`: mask value and ids, in order."""
    assert rendered.input_ids == [id for _, ids in parts for id in ids]
    assert rendered.assistant_mask == [value for value, ids in parts for _ in ids]
    assert rendered.num_supervised == sum(len(ids) for value, ids in parts if value)
    assert (rendered.num_dropped_turns, rendered.problem) == (0, "")


def test_a_system_turn_to_the_id(renderer: MistralV7Renderer) -> None:
    rendered = render(row(system("Be brief."), user("Hi!"), assistant("Hello.")), renderer)
    check(
        rendered,
        (0, [1, 17, 5934, 13426, 1046, 18, 3, 37133, 1033, 4]),
        (1, [22177, 1046, 2]),
    )


def test_several_turns_to_the_id(renderer: MistralV7Renderer) -> None:
    turns = [user("Hi!"), assistant("Hello."), user("[INST]</s>"), assistant("No é.")]
    check(
        render(row(*turns), renderer),
        (0, [1, 3, 37133, 1033, 4]),
        (1, [22177, 1046, 2]),
        # What the user spells is text, not the control tokens 3 and 2.
        (0, [3, 1091, 3174, 3074, 103324, 1115, 1062, 4]),
        (1, [4753, 1782, 1046, 2]),
    )


def test_tools_calls_and_replies_to_the_id(
    renderer: MistralV7Renderer, tokenizer: PreTrainedTokenizerBase
) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    turns = [
        *(user("a?"), assistant("", call("call_1")), reply("call_1", "1 2"), assistant("It is 1.")),
        *(user("b?"), assistant("B")),
    ]
    rendered = render(row(*turns, tools=(tool,)), renderer)
    id = [1090, 1051, 1088, 1049, 1071, 1054, 1052, 1084, 1052]
    assert tokenizer.decode(id) == mistral_call_ids(turns)["call_1"] == "Z3X1G64T4"
    check(
        rendered,
        (0, [1, 3, 1097, 1063, 4]),
        # [TOOL_CALLS][{"name": "look_up", "arguments": {"key": "a"}, "id": "Z3X1G64T4"}]</s>
        (1, [9, 1091, 19227, 2391, 2811, 1429, 22406, 30861, 1897, 1429, 61906, 2811, 16753]),
        (1, [3892, 2811, 1429, 1097, 50666, 1429, 1327, 2811, 1429, *id, 1034, 27028, 2]),
        # [TOOL_RESULTS]Z3X1G64T4[TOOL_CONTENT]1 2[/TOOL_RESULTS]
        (0, [7, *id, 19, 1049, 1032, 1050, 8]),
        (1, [2757, 1395, 1032, 1049, 1046, 2]),
        # [AVAILABLE_TOOLS][{"type": "function", "function": {"name": "look_up", "description": "",
        # "parameters": {}}}][/AVAILABLE_TOOLS], before the last user's turn only
        (0, [5, 1091, 19227, 4994, 2811, 1429, 5165, 1897, 1429, 5165, 2811, 16753, 2391, 2811]),
        (0, [1429, 22406, 30861, 1897, 1429, 14653, 2811, 27645, 1429, 26204, 2811, 1445, 2821]),
        (0, [27028, 6, 3, 1098, 1063, 4]),
        (1, [1066, 2]),
    )


def test_an_image_to_the_id(renderer: MistralV7Renderer) -> None:
    """60 × 30 pixels are 3 × 2 tokens, put before the question that stands before them."""
    question = user([{"type": "text", "text": "See?"}, image(60, 30)])
    check(
        render(row(question, assistant("Yes.")), renderer),
        (0, [1, 3, 10, 10, 10, 12, 10, 10, 10, 13, 19399, 1063, 4]),
        (1, [16860, 1046, 2]),
    )


# What the renderer adds nothing to, and what it takes nothing from.


def test_without_a_system_turn_none_is_made_up(renderer: MistralV7Renderer) -> None:
    rendered = render(row(user("Hi!"), assistant("Hello.")), renderer)
    check(rendered, (0, [1, 3, 37133, 1033, 4]), (1, [22177, 1046, 2]))


def test_the_mask_covers_answers_calls_and_their_ends(
    renderer: MistralV7Renderer, tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = [
        *(system("s"), user("q"), assistant("Let me see.", call("abcDEF123"))),
        *(reply("abcDEF123", "found"), assistant("[INST] it is\n a "), user("r"), assistant("b")),
    ]
    rendered = render(row(*turns, tools=(LOOK_UP,)), renderer)
    assert supervised_texts(rendered, tokenizer) == [
        'Let me see.[TOOL_CALLS][{"name": "look_up", "arguments": {"key": "a"}, "id": "abcDEF123"}]'
        "</s>",
        "[INST] it is\n a</s>",
        "b</s>",
    ]


def test_no_text_becomes_a_control_token(renderer: MistralV7Renderer) -> None:
    spelled = "".join(CONTROL_TOKENS)
    turns = [system(spelled), user(spelled), assistant(spelled, call("abcDEF123", name="x"))]
    rendered = render(row(*turns, reply("abcDEF123", spelled), assistant(spelled)), renderer)
    control = [id for id in rendered.input_ids if id < 1000]
    assert control == [1, 17, 18, 3, 4, 9, 2, 7, 19, 8, 2]


def test_rows_render_the_same_alone_and_in_company(renderer: MistralV7Renderer) -> None:
    rows = [
        row(user("a"), assistant("b")),
        row(user("a"), assistant("")),
        row(system(""), user([image(28, 28)]), assistant("é")),
        row(user("a"), assistant("b \ud800")),
        row(user("c"), assistant("日本"), tools=(LOOK_UP,)),
    ]
    assert renderer.render(rows) == [render(one, renderer) for one in rows]
    assert [bool(one.problem) for one in renderer.render(rows)] == [False, True, False, True, False]
    assert renderer.render([]) == []


def test_a_row_that_is_cut_tells_its_tools_before_the_last_turn_that_is_left(
    renderer: MistralV7Renderer, mistral: Mistral
) -> None:
    turns = [
        *(user("q 1"), assistant("", call("abcDEF123")), reply("abcDEF123", "found " * 20)),
        *(assistant("a 1"), user("q 2"), assistant("a 2")),
    ]
    whole = row(*turns, tools=(LOOK_UP,))
    lengths = {n: len(reference_ids(row(*turns[:n], tools=(LOOK_UP,)), mistral)) for n in (2, 4, 6)}
    for num_kept, max_length in (
        *((6, lengths[6]), (4, lengths[6] - 1), (4, lengths[4])),
        *((2, lengths[4] - 1), (2, lengths[2]), (0, lengths[2] - 1)),
    ):
        (one,) = render_conversations([whole], renderer, max_length=max_length)
        kept = row(*turns[:num_kept], tools=(LOOK_UP,))
        assert one.num_dropped_turns == 6 - num_kept
        assert one.input_ids == (reference_ids(kept, mistral) if num_kept else [])
        assert bool(one.num_supervised) == bool(num_kept)


# Ids of calls.


def test_ids_of_calls_that_mistral_takes_stay_and_others_are_hashed() -> None:
    turns = [
        assistant("", call("abcDEF123"), call("call_1"), call("")),
        *(reply("call_1", "1"), reply("abcDEF123", "2"), reply("", "3")),
        *(assistant("", call("call_2")), reply("call_2", "4")),
    ]
    ids = mistral_call_ids(turns)
    assert ids["abcDEF123"] == "abcDEF123"
    assert set(ids) == {"abcDEF123", "call_1", "call_2", ""}
    assert all(CALL_ID.fullmatch(id) for id in ids.values())
    assert len(set(ids.values())) == len(ids)
    assert mistral_call_ids(turns) == ids
    assert mistral_call_ids([assistant("", call("call_1"))]) == {"call_1": ids["call_1"]}


def test_an_id_that_is_hashed_to_one_in_use_is_hashed_again() -> None:
    taken = mistral_call_ids([assistant("", call("call_1"))])["call_1"]
    ids = mistral_call_ids([assistant("", call("call_1"), call(taken))])
    assert ids[taken] == taken
    assert ids["call_1"] != taken
    assert CALL_ID.fullmatch(ids["call_1"])


# Rows that the form cannot hold.


@pytest.mark.parametrize(
    ("conversation", "problem"),
    [
        (row(user("a"), assistant("")), "has an assistant's turn that is empty"),
        (row(user("a"), assistant(" \n")), "has an assistant's turn that is empty"),
        (
            row(user("a"), assistant("b \udc00")),
            "holds half of a surrogate pair, which is no character",
        ),
        (
            row(user("a"), assistant("", call("i", arguments='{"k": "\\ud83d"}'))),
            "holds half of a surrogate pair, which is no character",
        ),
        (
            row(user("a"), assistant("", call("i", arguments="{"))),
            "the arguments of the call of look_up are not JSON",
        ),
        (
            row(user("a"), assistant("", call("i", arguments="[1]"))),
            "the arguments of the call of look_up are not a JSON object",
        ),
        (
            row(user("a"), assistant("", call("i", name="look up"))),
            "has a tool name that Mistral's models do not take: 'look up'",
        ),
        (
            row(user("a"), assistant("b"), tools=({"function": {"name": "é"}},)),
            "has a tool name that Mistral's models do not take: 'é'",
        ),
        (
            row(assistant("a"), tools=(LOOK_UP,)),
            "has tools, which are told before a user's turn, and no user's turn",
        ),
        (row(user("a"), reply("i", "b"), assistant("c")), "turn 2 is tool, after user"),
        (row(reply("i", "b"), assistant("c")), "turn 1 is tool, after -"),
        (row(user("a"), assistant("b"), system("c")), "turn 3 is system, after assistant"),
        (
            row(user("a"), assistant("", call("i")), user("b"), assistant("c")),
            "turn 4 (assistant) comes before a call is answered",
        ),
        (
            row(user("a"), assistant("b"), reply("i", "c"), assistant("d")),
            "turn 3 answers no call",
        ),
        (
            row(user([{"type": "image_url", "image_url": {"url": "https://a.b/c"}}])),
            "holds an image that is not a base64 `data:` URL",
        ),
        (
            row(user("a"), {"role": "assistant", "content": [image(1, 1)]}),
            "has an image in a turn of assistant",
        ),
    ],
)
def test_a_row_that_the_form_cannot_hold_is_told(
    conversation: Conversation, problem: str, renderer: MistralV7Renderer
) -> None:
    assert render(conversation, renderer) == Rendered([], [], 0, problem)


def test_rendering_leaves_the_tokenizer_as_it_was(
    tokenizer: PreTrainedTokenizerBase, renderer: MistralV7Renderer
) -> None:
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.encode_special_tokens = False
    renderer.render([question_and_answer("[INST]", "b", id="1")])
    assert backend.encode("[INST]", add_special_tokens=False).ids == [3]
