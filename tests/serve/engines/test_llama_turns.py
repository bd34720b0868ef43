"""What llama.cpp makes of turns is held against what training makes of them."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.conversation import Conversation, Message, ToolDefinition
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_images import ImageForm, open_image
from data.tokens.mistral_v7 import MistralV7Renderer
from serve.engine import RequestRefused, Usage
from serve.engines.llama_images import fit_image, read_image_form, resize
from serve.engines.llama_turns import Turns, find_form, image_urls, lay_out_turns
from serve.llama_process import LlamaProcess, open_llama
from tests.conversations import LOOK_UP, call, row
from tests.serve.engines.asking import answers, assistant, request, user
from tests.serve.tiny_llama import CHAT_TEMPLATE
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE
from train.images import image_pixels

MARKER = re.compile(r"<__media_\w+__>")
SYSTEM: Message = {"role": "system", "content": "Be brief."}


def image(width: int, height: int) -> Any:  # noqa: ANN401 (a part)
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def said(text: str) -> Any:  # noqa: ANN401 (a part)
    return {"type": "text", "text": text}


def parts(*content: Any) -> Message:  # noqa: ANN401
    return {"role": "user", "content": list(content)}


def calling(*ids: str, content: str = "") -> Message:
    calls = [call(id, "" if number else '{"a": 1}') for number, id in enumerate(ids)]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def reply(id: str, content: Any = "found") -> Message:  # noqa: ANN401 (a text or parts)
    return {"role": "tool", "tool_call_id": id, "content": content}


CONVERSATIONS: dict[str, Conversation] = {
    "consecutive": row(SYSTEM, user("a"), user("b"), assistant("c"), assistant("d"), user("e")),
    "parts": row(
        {"role": "system", "content": [said("a"), said("b")]},
        parts(said("c"), said(""), said("d")),
        {"role": "assistant", "content": [said("e"), said("f")]},
        user("g"),
    ),
    "parts of consecutive turns": row(parts(said("a")), user("b"), parts(said("c"), said("d"))),
    "empty": row(user(""), assistant("a"), user("")),
    "tools": row(user("a"), tools=(LOOK_UP,)),
    "tools later": row(SYSTEM, user("a"), assistant("b"), user("c"), user("d"), tools=(LOOK_UP,)),
    "calls": row(
        user("a"), calling("call_1", "abcdef123", content="b"),
        reply("call_1"), reply("abcdef123", [said("x"), said("y")]), tools=(LOOK_UP,),
    ),
    "calls before": row(
        user("a"), calling("1"), reply("1"), assistant("b"), user("c"), tools=(LOOK_UP,)
    ),
    "an image behind its text": row(parts(said("a"), image(112, 84))),
    "an image in front": row(parts(image(112, 84), said("a"))),
    "an image alone": row(parts(image(56, 28))),
    "images and texts": row(parts(said("a"), image(112, 84), said("b"), said("c"), image(28, 28))),
    "an image in the next turn": row(user("a"), parts(image(112, 84)), assistant("b"), user("c")),
    "odd sizes": row(parts(image(113, 85), image(9, 300), said("a"))),
    "an image with tools": row(SYSTEM, parts(said("a"), image(60, 60)), tools=(LOOK_UP,)),
}  # fmt: skip


@pytest.fixture(scope="module")
def renderer(mistral3_with_tokenizer: Path) -> MistralV7Renderer:
    return MistralV7Renderer(load_tokenizer(mistral3_with_tokenizer))


@pytest.fixture(scope="module")
def form(mistral3_mmproj: Path) -> ImageForm:
    form = read_image_form(mistral3_mmproj)
    assert form is not None
    return form


@pytest.fixture(scope="module")
def llama(mistral3_gguf: Path, mistral3_mmproj: Path) -> Iterator[LlamaProcess]:
    with open_llama(
        mistral3_gguf, num_threads=1, context_length=1024, mmproj=mistral3_mmproj
    ) as process:
        yield process


def lay_out(conversation: Conversation, form: ImageForm) -> Turns:
    fitted = {
        url: fit_image(url, form, field=field) for field, url in image_urls(conversation.messages)
    }
    return lay_out_turns(
        conversation.messages, conversation.tools, form="mistral_v7", images=fitted
    )


def prompt_ids(
    llama: LlamaProcess, turns: list[Any], tools: list[ToolDefinition], form: ImageForm
) -> list[int]:
    """The tokens of llama.cpp's prompt, with those of the images that it is given."""
    body: dict[str, Any] = {"messages": turns, "add_generation_prompt": False}
    told = llama.http.post("/apply-template", json=body | ({"tools": tools} if tools else {}))
    prompt = told.raise_for_status().json()["prompt"]
    contents = [turn["content"] for turn in turns if not isinstance(turn["content"], str)]
    urls = [p["image_url"]["url"] for c in contents for p in c if p["type"] == "image_url"]
    ids: list[int] = []
    for number, text in enumerate(MARKER.split(prompt)):
        ids += form.token_ids(open_image(urls[number - 1])) if number else []
        asked = {"content": text, "add_special": not number, "parse_special": True}
        ids += llama.http.post("/tokenize", json=asked).json()["tokens"]
    assert len(urls) == len(MARKER.findall(prompt))
    return ids


def trained_prompt(renderer: MistralV7Renderer, conversation: Conversation) -> list[int]:
    """What an answer was trained behind."""
    whole = row(*conversation.messages, assistant("said"), tools=conversation.tools)
    if conversation.messages[-1]["role"] == "assistant":
        whole = conversation
    (rendered,) = renderer.render([whole])
    assert not rendered.problem
    num_supervised = rendered.assistant_mask[::-1].index(0)
    return rendered.input_ids[: len(rendered.input_ids) - num_supervised]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_prompt_is_what_answers_were_trained_behind(
    name: str, llama: LlamaProcess, renderer: MistralV7Renderer, form: ImageForm
) -> None:
    conversation = CONVERSATIONS[name]
    turns = lay_out(conversation, form)
    expected = trained_prompt(renderer, conversation)
    assert prompt_ids(llama, turns.all, turns.tools, form) == expected
    # What is kept of it between requests is its beginning.
    if turns.prefix:
        held = prompt_ids(llama, turns.prefix, turns.prefix_tools, form)
        assert len(held) > 1
        assert expected[: len(held)] == held
    body = {"messages": turns.all, "max_tokens": 1, "temperature": 0}
    body |= {"tools": turns.tools} if turns.tools else {}
    usage = llama.http.post("/v1/chat/completions", json=body).json()["usage"]
    assert usage["prompt_tokens"] == len(expected)


def test_the_engine_counts_images_and_sees_them(
    mistral3_gguf: Path, mistral3_mmproj: Path, renderer: MistralV7Renderer
) -> None:
    conversation = CONVERSATIONS["odd sizes"]
    other = row(parts(image(114, 85), image(9, 300), said("a")))
    asked = [request(*one.messages, max_tokens=4, top_logprobs=3) for one in (conversation, other)]
    first, second, again = answers(
        mistral3_gguf, *asked, asked[0], mmproj=mistral3_mmproj, context_length=1024
    )
    expected = len(trained_prompt(renderer, conversation))
    assert first.usage == second.usage == Usage(prompt_tokens=expected, completion_tokens=4)
    assert first == again
    assert first.choices[0].logprobs != second.choices[0].logprobs


@pytest.mark.parametrize("size", [(112, 84), (100, 50), (300, 20), (3, 5), (500, 400), (1, 1)])
def test_images_have_the_pixels_that_training_saw(size: tuple[int, int], form: ImageForm) -> None:
    url = image(*size)["image_url"]["url"]
    fitted = open_image(fit_image(url, form, field=""))
    mean, std = (np.array(channels)[:, None, None] for channels in (form.mean, form.std))
    trained = (image_pixels(open_image(url), form).numpy() * std + mean) * 255
    found = np.asarray(fitted, np.float32).transpose(2, 0, 1)
    assert found.shape == trained.shape
    # Rounded, and without what overshoots.
    assert np.abs(found - np.clip(trained, 0, 255)).max() < 0.52
    if fitted.size != size:
        smoothed = open_image(url).resize(fitted.size, Image.Resampling.BICUBIC)
        plain = np.asarray(smoothed, np.float32).transpose(2, 0, 1)
        assert size == (1, 1) or np.abs(plain - np.clip(trained, 0, 255)).max() > 2


def test_the_form_of_images_is_read_from_the_file(form: ImageForm) -> None:
    assert (form.patch_size, form.merge_size, form.longest_edge) == (14, 2, 224)


def test_an_image_that_fits_is_left_alone() -> None:
    picture = open_image(image(56, 28)["image_url"]["url"])
    assert resize(picture, 56, 28) is picture


def test_other_templates_get_texts_joined_without_anything() -> None:
    first, second = image(28, 28), image(56, 28)
    messages: tuple[Message, ...] = (
        {"role": "system", "content": [said("a"), said("b")]},
        user("c"),
        parts(said("d"), first, said("e"), said("f"), second),
        calling("call_1"),
        reply("call_1"),
    )
    urls = {one["image_url"]["url"]: f"data:{n}" for n, one in enumerate((first, second))}
    turns = lay_out_turns(messages, (), form=find_form(CHAT_TEMPLATE), images=urls)
    assert turns.all[:3] == [
        {"role": "system", "content": "ab"},
        user("c"),
        parts(
            said("d"), {"type": "image_url", "image_url": {"url": "data:0"}},
            said("ef"), {"type": "image_url", "image_url": {"url": "data:1"}},
        ),
    ]  # fmt: skip
    assert turns.all[3]["tool_calls"][0]["id"] == turns.all[4]["tool_call_id"] == "call_1"
    assert turns.prefix == turns.all[:-1]


def test_mistrals_form_is_known_by_its_template() -> None:
    assert find_form(MISTRAL_V7_TEMPLATE.read_text()) == "mistral_v7"
    assert find_form(CHAT_TEMPLATE) == "other"


def test_an_empty_text_of_arguments_is_an_empty_object() -> None:
    turns = lay_out_turns((user("a"), calling("1", "2")), (), form="other", images={})
    arguments = [one["function"]["arguments"] for one in turns.all[1]["tool_calls"]]
    assert arguments == ['{"a": 1}', "{}"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "assistant", "content": [image(28, 28)]}, "messages[1].content"),
        ({"role": "assistant", "content": "", "tool_calls": [call("1", "[1]")]},
         "messages[1].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_what_the_form_does_not_hold_is_refused(message: Message, field: str) -> None:
    with pytest.raises(RequestRefused) as error:
        lay_out_turns((user("a"), message), (), form="mistral_v7", images={})
    assert error.value.field == field
