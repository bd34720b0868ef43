import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation, Message, ToolCall, ToolDefinition
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_models import is_mistral_v7
from data.tokens.mistral_v7 import MistralV7Renderer
from serve.llama_scorer import LlamaScorer, open_gguf
from tests.conversations import LOOK_UP, call, chat, row
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

TEMPLATE = MISTRAL_V7_TEMPLATE.read_text(encoding="utf-8")
BARE: ToolDefinition = {"type": "function", "function": {"name": "stop"}}
# No brackets: words that spell a control token are one where a template is read.
TEXTS = st.text(alphabet=' aZé\n"\\{}12.,ß漢\t', max_size=12)
SAID = TEXTS.filter(str.strip)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=3).map(json.dumps)
IDS = st.text(alphabet="aZ09", min_size=9, max_size=9)


def user(content: str | list[Any]) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, *calls: ToolCall) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Rows of every form that the renderer takes, but for images."""
    tools = draw(st.sampled_from([(), (LOOK_UP,), (LOOK_UP, BARE)]))
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXTS)})
    for _ in range(draw(st.integers(1, 3))):
        messages += [user(text) for text in draw(st.lists(TEXTS, min_size=1, max_size=3))]
        if tools and draw(st.booleans()):
            ids = draw(st.lists(IDS, min_size=1, max_size=2, unique=True))
            calls = [call(id, draw(ARGUMENTS)) for id in ids]
            messages.append(assistant(draw(TEXTS), *calls))
            messages += [{"role": "tool", "tool_call_id": id, "content": draw(TEXTS)} for id in ids]
        texts = draw(st.lists(SAID, min_size=1, max_size=2))
        messages += [{"role": "assistant", "content": text} for text in texts]
    return row(*messages, tools=tools)


@pytest.fixture(scope="module")
def tokenizer(mistral3_with_tokenizer: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(mistral3_with_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> MistralV7Renderer:
    return MistralV7Renderer(tokenizer)


@pytest.fixture(scope="module")
def llama(mistral3_gguf: Path) -> Iterator[LlamaScorer]:
    with open_gguf(mistral3_gguf, num_threads=1, context_length=1024) as llama:
        yield llama


def trained_ids(renderer: MistralV7Renderer, conversation: Conversation) -> list[int]:
    (rendered,) = renderer.render([conversation])
    assert not rendered.problem
    return rendered.input_ids


def templated_ids(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Any:  # noqa: ANN401
    messages: list[Any] = []
    for message in conversation.messages:
        # Templates are given what a call's arguments mean, not their text.
        calls = [
            {"id": one["id"], "function": one["function"] | {"arguments": arguments}}
            for one in message.get("tool_calls", ())
            for arguments in [json.loads(one["function"]["arguments"])]
        ]
        messages.append({**message, **({"tool_calls": calls} if calls else {})})
    return tokenizer.apply_chat_template(
        messages, tools=list(conversation.tools) or None, tokenize=True, return_dict=False
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=conversations())
def test_transformers_gives_the_ids_that_were_trained_on(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, renderer: MistralV7Renderer
) -> None:
    assert templated_ids(tokenizer, conversation) == trained_ids(renderer, conversation)


@settings(max_examples=40)
@given(conversation=conversations())
def test_llama_cpp_gives_the_ids_that_were_trained_on(
    conversation: Conversation, llama: LlamaScorer, renderer: MistralV7Renderer
) -> None:
    assert llama.prompt_ids(conversation) == trained_ids(renderer, conversation)


# Pieces that splittings tell apart; a lone combining accent is left out, which llama.cpp counts
# as punctuation whatever the splitting.
PIECES = [
    "'S",
    "'s",
    "'ll",
    "'Re",
    "a",
    "B",
    "Mc",
    "eF",
    "/",
    "//",
    "_",
    "\n",
    " ",
    "\t",
    "1",
    "23",
]


@settings(max_examples=150)
@given(text=st.lists(st.sampled_from([*PIECES, "é", "ß", "КМ", "漢"]), min_size=4).map("".join))
def test_llama_cpp_splits_texts_as_the_tokenizer_does(
    text: str, llama: LlamaScorer, renderer: MistralV7Renderer
) -> None:
    conversation = chat(text, "x")
    assert llama.prompt_ids(conversation) == trained_ids(renderer, conversation)


@pytest.mark.parametrize(
    "conversation",
    [
        chat("Hi"),
        chat("Hi", "Hello ", "And é?", system="Be brief."),
        row(
            user("find"),
            assistant("", call("abcdef123"), call("abcdef124", "{}")),
            tools=(LOOK_UP,),
        ),
    ],
)
def test_prompts_are_what_answers_were_trained_behind(
    conversation: Conversation, llama: LlamaScorer, renderer: MistralV7Renderer
) -> None:
    messages = (*conversation.messages, *chat("", "said").messages[1:])
    if conversation.messages[-1]["role"] == "assistant":
        replies: list[Message] = [
            {"role": "tool", "tool_call_id": id, "content": "1"}
            for id in ("abcdef123", "abcdef124")
        ]
        messages = (*conversation.messages, *replies, *chat("", "said").messages[1:])
    whole = row(*messages, tools=conversation.tools)
    (rendered,) = renderer.render([whole])
    prompt = row(*messages[:-1], tools=conversation.tools)
    said = rendered.assistant_mask[::-1].index(0)
    assert llama.prompt_ids(prompt) == rendered.input_ids[:-said]


def test_a_single_image_stands_in_front_of_its_text(tokenizer: PreTrainedTokenizerBase) -> None:
    image, text = {"type": "image"}, {"type": "text", "text": "What?"}
    for parts, expected in (
        ([text, image], "[IMG]What?"),
        ([image, text], "[IMG]What?"),
        ([image, text, image], "[IMG]What?[IMG]"),
        ([text, image, text], "What?[IMG]What?"),
        ([text, text], "What?\n\nWhat?"),
    ):
        turn: Any = {"role": "user", "content": parts}
        said = tokenizer.apply_chat_template([turn], tokenize=False)
        assert said == f"<s>[INST]{expected}[/INST]"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "poet", "content": "x"}, "has the role poet"),
        ({"role": "system", "content": [{"type": "image"}]}, "cannot take: image"),
    ],
)
def test_what_the_model_does_not_know_is_refused(
    message: dict[str, Any], said: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(Exception, match=said):
        tokenizer.apply_chat_template([message], tokenize=False)


def test_the_model_is_still_known_by_its_template(tokenizer: PreTrainedTokenizerBase) -> None:
    assert is_mistral_v7(tokenizer)
