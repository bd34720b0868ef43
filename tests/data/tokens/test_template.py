from pathlib import Path

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.conversation import Conversation
from data.tokens.chat_template import ChatTemplateRenderer
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import Rendered, Renderer, load_renderer, render_conversations
from tests.conversations import call, chat, row, supervised_texts
from tests.tiny_model import build_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_checkpoint)


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    return load_renderer(tokenizer)


def first(conversation: Conversation, num_turns: int) -> Conversation:
    return row(*conversation.messages[:num_turns])


def render(conversation: Conversation, renderer: Renderer, max_length: int = 100_000) -> Rendered:
    (one,) = render_conversations([conversation], renderer, max_length=max_length)
    return one


# Which renderer is taken; that of Mistral's v7 form is tested beside it.


def test_a_model_with_a_training_template_is_rendered_by_it(renderer: Renderer) -> None:
    assert isinstance(renderer, ChatTemplateRenderer)
    assert "{% generation %}" in renderer.template.text


def test_a_model_without_a_faithful_form_is_refused() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(UserError, match="no training template matches it"):
        load_renderer(tokenizer)


# Rows that are too long.


def test_a_long_row_loses_whole_turns_from_its_end(
    tokenizer: PreTrainedTokenizerBase, renderer: Renderer
) -> None:
    conversation = chat("q 1", "a 1", "q 2", "a 2", "q 3", "a 3", system="s")
    whole, two, one = (render(first(conversation, n), renderer) for n in (7, 5, 3))
    lengths = [len(rendered.input_ids) for rendered in (whole, two, one)]
    assert render(conversation, renderer, lengths[0]) == whole
    for length in (lengths[0] - 1, lengths[1]):
        assert render(conversation, renderer, length) == Rendered(
            two.input_ids, two.assistant_mask, num_dropped_turns=2
        )
    for length in (lengths[1] - 1, lengths[2]):
        assert render(conversation, renderer, length) == Rendered(
            one.input_ids, one.assistant_mask, num_dropped_turns=4
        )
    assert supervised_texts(one, tokenizer) == ["a 1<|im_end|>"]


def test_a_row_whose_first_answer_does_not_fit_teaches_nothing(renderer: Renderer) -> None:
    conversation = chat("q 1", "a 1", "q 2", "a 2")
    length = len(render(first(conversation, 2), renderer).input_ids)
    rendered = render(conversation, renderer, length - 1)
    assert rendered.num_supervised == 0
    assert rendered == Rendered([], [], num_dropped_turns=4)


def test_only_the_long_rows_are_cut(renderer: Renderer) -> None:
    short, long = chat("a", "b"), chat("a", "b", "c" * 50, "d")
    limit = len(render(short, renderer).input_ids) + 5
    rendered = render_conversations([long, short], renderer, max_length=limit)
    assert [one.num_dropped_turns for one in rendered] == [2, 0]
    assert rendered[0].input_ids == rendered[1].input_ids


def test_a_row_that_is_cut_keeps_no_answer_without_the_reply_it_rests_on() -> None:
    tokenizer = build_tiny_tokenizer()
    file = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    tokenizer.chat_template = file.read_text()
    renderer = load_renderer(tokenizer)
    conversation = row(
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call("c")]},
        {"role": "tool", "content": "found " * 30, "tool_call_id": "c"},
        {"role": "assistant", "content": "a"},
    )
    whole = render(conversation, renderer)
    cut = render(conversation, renderer, len(whole.input_ids) - 1)
    assert cut.num_dropped_turns == 2
    assert len(supervised_texts(whole, tokenizer)) == 2
    (answer,) = supervised_texts(cut, tokenizer)
    assert answer.endswith("</tool_call><|im_end|>")


@given(
    contents=st.lists(st.text(min_size=1, max_size=9).filter(str.strip), min_size=2, max_size=12),
    max_length=st.integers(16, 200),
)
def test_as_many_turns_as_fit_are_kept(
    contents: list[str], max_length: int, renderer: Renderer
) -> None:
    conversation = chat(*contents[: len(contents) // 2 * 2])
    num_turns = len(conversation.messages)
    rendered = render(conversation, renderer, max_length)
    num_kept = num_turns - rendered.num_dropped_turns
    assert len(rendered.input_ids) <= max_length
    assert num_kept % 2 == 0
    if num_kept:
        kept = render(first(conversation, num_kept), renderer)
        assert (kept.input_ids, kept.num_supervised) == (
            rendered.input_ids,
            rendered.num_supervised,
        )
    else:
        assert (rendered.input_ids, rendered.num_supervised) == ([], 0)
    if num_kept < num_turns:
        longer = render(first(conversation, num_kept + 2), renderer)
        assert len(longer.input_ids) > max_length


def test_a_row_with_a_problem_keeps_it(renderer: Renderer) -> None:
    rendered = render(chat("a", "", "c", "d"), renderer, 16)
    assert rendered == Rendered([], [], 0, "turn 2 (assistant) is empty")
    assert rendered.num_supervised == 0


def test_no_rows_are_no_rows(renderer: Renderer) -> None:
    assert render_conversations([], renderer, max_length=100) == []
