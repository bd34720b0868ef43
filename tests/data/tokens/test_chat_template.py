from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from transformers import BatchEncoding, PreTrainedTokenizerBase

from data.conversation import Conversation, Message, question_and_answer
from data.tokens.chat_template import ChatTemplateRenderer
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.rendered import Rendered
from data.tokens.training_template import load_training_template
from tests.conversations import LOOK_UP, call, chat, row, supervised_texts
from tests.tiny_model import build_tiny_tokenizer

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# A turn's frame, and the default system turn, in the tiny tokenizer's tokens (Ġ: blank, Ċ: line).
SYSTEM_TURN = (
    "<|im_start|> syste m Ċ You Ġare Ġa Ġhelpful ĠAI Ġassistant Ġnamed ĠSmolLM , Ġtrained Ġby "
    "ĠHugging ĠFace <|im_end|> Ċ"
)
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_checkpoint)


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> ChatTemplateRenderer:
    return ChatTemplateRenderer(tokenizer)


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    """The tiny tokenizer with a template that TRL ships, or a text of one."""
    tokenizer = build_tiny_tokenizer()
    file = Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja"
    tokenizer.chat_template = template if "{" in template else file.read_text()
    return tokenizer


def plain(messages: tuple[Message, ...]) -> list[Any]:
    return [dict(turn) for turn in messages]


def render(conversation: Conversation, renderer: ChatTemplateRenderer) -> Rendered:
    (one,) = renderer.render([conversation])
    assert len(one.assistant_mask) == len(one.input_ids)
    return one


def check_tokens(
    rendered: Rendered, tokenizer: PreTrainedTokenizerBase, parts: list[tuple[int, str]]
) -> None:
    """`parts`: mask value and tokens, in order."""
    tokens = [token for _, part in parts for token in part.split(" ")]
    mask = [value for value, part in parts for _ in part.split(" ")]
    assert rendered.problem == ""
    assert tokenizer.convert_ids_to_tokens(rendered.input_ids) == tokens
    assert rendered.input_ids == tokenizer.convert_tokens_to_ids(tokens)
    assert rendered.assistant_mask == mask
    assert rendered.num_supervised == sum(mask)
    assert rendered.num_dropped_turns == 0


# Exact tokens and mask.


def test_one_turn_to_the_token(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatTemplateRenderer
) -> None:
    check_tokens(
        render(chat("Which colour is the sky?", "The sky is 12."), renderer),
        tokenizer,
        [
            (0, SYSTEM_TURN),
            (0, "<|im_start|> user Ċ Which Ġcolour Ġis Ġthe Ġsky ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "The Ġsky Ġis Ġ 1 2 . <|im_end|>"),
            (0, "Ċ"),
        ],
    )


def test_several_turns_to_the_token(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatTemplateRenderer
) -> None:
    turns = ["Which number?", "1", "Which colour?", "blue\né"]
    check_tokens(
        render(chat(*turns, system="Name the colour."), renderer),
        tokenizer,
        [
            (0, "<|im_start|> syste m Ċ Name Ġthe Ġcolour . <|im_end|> Ċ"),
            (0, "<|im_start|> user Ċ Which Ġnumber ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "1 <|im_end|>"),
            (0, "Ċ"),
            (0, "<|im_start|> user Ċ Which Ġcolour ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "b lu e Ċ Ã © <|im_end|>"),
            (0, "Ċ"),
        ],
    )


def test_the_special_tokens_are_single_ids(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatTemplateRenderer
) -> None:
    rendered = render(chat("a", "b"), renderer)
    assert rendered.input_ids[0] == 1
    assert rendered.input_ids.count(1) == 3
    assert rendered.input_ids.count(2) == 3
    # The last supervised token ends the answer; the line break after it is not to be learned.
    *_, last, after = zip(rendered.input_ids, rendered.assistant_mask, strict=True)
    assert last == (tokenizer.eos_token_id, 1)
    assert after == (tokenizer.convert_tokens_to_ids("Ċ"), 0)


def test_of_trls_marks_the_line_breaks_around_an_answer_are_left_out() -> None:
    tokenizer = tokenizer_with("qwen2_5")
    rendered = render(
        chat("Which?", "1", "And?", " 2", system="s"), ChatTemplateRenderer(tokenizer)
    )
    check_tokens(
        rendered,
        tokenizer,
        [
            (0, "<|im_start|> syste m Ċ s <|im_end|> Ċ"),
            (0, "<|im_start|> user Ċ Which ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "1 <|im_end|>"),
            (0, "Ċ"),
            (0, "<|im_start|> user Ċ A n d ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "Ġ 2 <|im_end|>"),
            (0, "Ċ"),
        ],
    )
    # TRL's own marks take them in.
    own = tokenizer.apply_chat_template(
        plain(chat("Which?", "1").messages),
        chat_template=load_training_template(tokenizer),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert isinstance(own, BatchEncoding)
    assert own["assistant_masks"][-5:] == [0, 1, 1, 1, 1]


def test_tools_calls_and_replies_to_the_token() -> None:
    tokenizer = tokenizer_with("qwen2_5")
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "tool_response"])
    rendered = render(
        row(
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": "", "tool_calls": [call("c", '{"key":  "a\\"b"}')]},
            {"role": "tool", "content": "12", "tool_call_id": "c"},
            {"role": "assistant", "content": "It is 12."},
            tools=(LOOK_UP,),
        ),
        ChatTemplateRenderer(tokenizer),
    )
    text = str(tokenizer.decode(rendered.input_ids))
    head, _, tail = text.partition("<|im_end|>\n")
    assert head.startswith(f"<|im_start|>system\n{QWEN_SYSTEM}\n\n# Tools\n")
    assert '"name": "look_up", "description": "Look up é."' in head
    num_head = len(tokenizer.encode(f"{head}<|im_end|>\n", add_special_tokens=False))
    assert not any(rendered.assistant_mask[:num_head])
    check_tokens(
        Rendered(rendered.input_ids[num_head:], rendered.assistant_mask[num_head:], 0),
        tokenizer,
        [
            (0, "<|im_start|> user Ċ Which ? <|im_end|> Ċ <|im_start|> ass istant Ċ"),
            (1, '<tool_call> Ċ { " n am e " : Ġ " lo o k _ u p " , Ġ " a r g u m e n t s " : Ġ'),
            (1, '{ " k e y " : Ġ " a \\ " b " } } Ċ </tool_call> <|im_end|>'),
            (0, "Ċ <|im_start|> user Ċ < tool_response > Ċ 1 2 Ċ < / tool_response > <|im_end|>"),
            (0, "Ċ <|im_start|> ass istant Ċ"),
            (1, "I t Ġis Ġ 1 2 . <|im_end|>"),
            (0, "Ċ"),
        ],
    )
    assert tail.count("<|im_end|>") == 4


# The form is the model's own.


def test_the_prompt_at_inference_is_what_stands_before_an_answer(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatTemplateRenderer
) -> None:
    contents = ("Which is it?", "The number 345", "And 日本?", "é 2.", "c", "d")
    for one_tokenizer, one in (
        (tokenizer, renderer),
        (other := tokenizer_with("qwen2_5"), ChatTemplateRenderer(other)),
    ):
        conversation = chat(*contents, system="s s")
        rendered = render(conversation, one)
        mask = rendered.assistant_mask
        starts = [n for n, value in enumerate(mask) if value and not mask[n - 1]]
        for number, start in enumerate(starts):
            prompt = one_tokenizer.apply_chat_template(
                plain(conversation.messages[: 2 + 2 * number]),
                add_generation_prompt=True,
                return_dict=False,
            )
            assert prompt == rendered.input_ids[:start]
        assert len(starts) == 3


def test_rows_render_the_same_alone_and_in_company(renderer: ChatTemplateRenderer) -> None:
    rows = [
        chat("a", "b"),
        chat("a", ""),
        chat("Which colour?", "blue", "and?", "green"),
        row({"role": "user", "content": "a"}, tools=(LOOK_UP,)),
        chat("c", "日本 \udc00"),
        chat("c", "日本"),
    ]
    together = renderer.render(rows)
    assert together == [render(one, renderer) for one in rows]
    assert [bool(one.problem) for one in together] == [False, True, False, True, True, False]
    assert renderer.render([]) == []


def test_a_row_that_the_template_does_not_take_spoils_no_other() -> None:
    tokenizer = tokenizer_with("gemma3")
    tokenizer.add_special_tokens({"eos_token": "<end_of_turn>"})
    renderer = ChatTemplateRenderer(tokenizer)
    first, second, third = renderer.render([chat("a", "b"), chat("a", "b", "c"), chat("d", "e")])
    assert (first.problem, second.problem, third.problem) == ("", "", "")
    wrong = row({"role": "assistant", "content": "b"}, {"role": "user", "content": "b"})
    assert renderer.render([chat("a", "b"), wrong, chat("d", "e")]) == [
        first,
        Rendered(
            [],
            [],
            0,
            "the chat template does not take it: Conversation roles must alternate "
            "user/assistant/user/assistant/...",
        ),
        third,
    ]


def test_without_a_system_turn_the_models_own_one_stands_there(
    renderer: ChatTemplateRenderer,
) -> None:
    assert render(chat("a", "b"), renderer) == render(
        chat("a", "b", system=DEFAULT_SYSTEM), renderer
    )


# Whatever the text, the mask is the assistant's words and their end.

FRAGMENTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "12",
            "  34",
            "\n\n",
            "日本語",
            "👩‍👩‍👧",
            "e\u0301",
            "\u202e",
            "{{ x }}",
            "{% y %}",
            "assistant\n",
        ]
    ),
    st.sampled_from(["<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n"]),
)
CONTENTS = (
    st.lists(FRAGMENTS, min_size=1, max_size=4)
    .map("".join)
    .map(str.strip)
    .filter(lambda content: content and "\0" not in content)
)


@cache
def loaded(template: str) -> tuple[PreTrainedTokenizerBase, ChatTemplateRenderer]:
    tokenizer = build_tiny_tokenizer() if template == "smollm2" else tokenizer_with(template)
    return tokenizer, ChatTemplateRenderer(tokenizer)


@pytest.mark.parametrize("template", ["smollm2", "qwen2_5"])
@given(
    exchanges=st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=3),
    system=st.none() | CONTENTS,
)
def test_the_mask_covers_exactly_the_assistants_contents(
    template: str,
    exchanges: list[tuple[str, str]],
    system: str | None,
) -> None:
    tokenizer, renderer = loaded(template)
    conversation = chat(*(content for pair in exchanges for content in pair), system=system)
    rendered = render(conversation, renderer)
    assert supervised_texts(rendered, tokenizer) == [
        f"{answer}<|im_end|>" for _, answer in exchanges
    ]
    messages = plain(conversation.messages)
    assert rendered.input_ids == tokenizer.apply_chat_template(messages, return_dict=False)


def test_a_token_that_holds_the_end_of_the_prompt_is_not_supervised() -> None:
    """A leading line break merges with the prompt's own one."""
    tokenizer = tokenizer_with("qwen2_5")
    tokenizer.add_tokens(["\n\n"])
    rendered = render(chat("a", "\n\nb"), ChatTemplateRenderer(tokenizer))
    assert supervised_texts(rendered, tokenizer) == ["\nb<|im_end|>"]


def test_a_blank_that_its_tokens_range_leaves_out_is_supervised_with_its_word() -> None:
    tokenizer = tokenizer_with("llama3")
    tokenizer.add_tokens([AddedToken("<|eot_id|>", special=True)])
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert tokenizer.backend_tokenizer.encode("a is").offsets == [(0, 1), (2, 4)]
    turn = MARKED_TURN.replace("<|im_end|>", "<|eot_id|>")
    tokenizer.chat_template = LOSSY.replace("{}", turn)
    rendered = render(chat("a", " is b"), ChatTemplateRenderer(tokenizer))
    assert supervised_texts(rendered, tokenizer) == [" is b<|eot_id|>"]


def test_a_setting_of_an_earlier_call_changes_nothing(
    tokenizer: PreTrainedTokenizerBase, renderer: ChatTemplateRenderer
) -> None:
    rows = [chat("a", "b"), chat("Which colour?", "<|im_end|>")]
    before = renderer.render(rows)
    tokenizer(
        ["a b c", "d"], padding=True, truncation=True, max_length=2, split_special_tokens=True
    )
    assert renderer.render(rows) == before


# Rows that the template would render in part only.


def without_tools(problem: str) -> str:
    return f"the chat template leaves out {problem} of the tools and calls"


@pytest.mark.parametrize(
    ("conversation", "problem"),
    [
        (row(*chat("look_up", "b").messages, tools=(LOOK_UP,)), without_tools("'look_up'")),
        (
            row(
                {"role": "user", "content": "Which one is 12?"},
                {"role": "assistant", "content": "Well.", "tool_calls": [call("c", '{"key": 12}')]},
            ),
            without_tools("'look_up'"),
        ),
        (
            row(
                {"role": "user", "content": "look_up"},
                {"role": "assistant", "content": "", "tool_calls": [call("c", '{"key": [')]},
            ),
            "the arguments of the call of look_up are not JSON",
        ),
        (chat("a", ""), "turn 2 (assistant) is empty"),
        (chat("a", " \n"), "turn 2 (assistant) is empty"),
        (chat("a", "b\ud800"), "holds half of a surrogate pair, which is no character"),
        (
            row(
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
                    ],
                },
                {"role": "assistant", "content": "b"},
            ),
            "holds an image, which rows for this model cannot have",
        ),
    ],
)
def test_a_row_that_would_lose_something_is_told(
    conversation: Conversation, problem: str, renderer: ChatTemplateRenderer
) -> None:
    assert render(conversation, renderer) == Rendered([], [], 0, problem)


def test_parts_of_text_alone_are_one_text(renderer: ChatTemplateRenderer) -> None:
    parts: Message = {
        "role": "user",
        "content": [{"type": "text", "text": "Which "}, {"type": "text", "text": "colour?"}],
    }
    answer: Message = {"role": "assistant", "content": "blue"}
    assert render(row(parts, answer), renderer) == render(chat("Which colour?", "blue"), renderer)


MARKED_TURN = "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
# Each `{}` is what a turn of the assistant is rendered as.
LOSSY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>' }}{}"
    "{% else %}{{ m.role + ':' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("turn", "contents", "problem"),
    [
        (
            MARKED_TURN.replace("m.content", "m.content.split('</think>')[-1]"),
            ("a", "b</think>c"),
            "the chat template leaves out words of turn 2 (assistant)",
        ),
        (
            "{% if loop.index < 6 %}" + MARKED_TURN + "{% else %}{{ m.content }}{% endif %}",
            ("a", "b", "c", "d", "e", "f"),
            "the chat template marks 2 of 3 assistant turns",
        ),
        (
            MARKED_TURN.replace("'<|im_end|>'", "('' if loop.index > 4 else '<|im_end|>')"),
            ("a", "b", "c", "d", "e", "f"),
            "the chat template ends an answer without an end token",
        ),
    ],
)
def test_an_answer_that_is_rendered_or_marked_in_part_is_told(
    turn: str, contents: tuple[str, ...], problem: str
) -> None:
    renderer = ChatTemplateRenderer(tokenizer_with(LOSSY.replace("{}", turn)))
    assert render(chat(*contents), renderer) == Rendered([], [], 0, problem)
    assert render(chat("a", "b"), renderer).problem == ""


def test_a_turn_that_is_left_out_is_told_though_its_words_stand_elsewhere() -> None:
    turn = "{% if loop.index < 5 %}" + MARKED_TURN + "{% endif %}"
    renderer = ChatTemplateRenderer(tokenizer_with(LOSSY.replace("{}", turn)))
    problem = render(chat("yes", "yes", "a", "b", "c", "yes"), renderer).problem
    assert problem == "the chat template leaves out words of turn 6 (assistant)"


def test_a_template_that_moves_the_system_turn_loses_nothing() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + MARKED_TURN + "{% elif m.role == "
        "'user' %}{{ '<|im_start|>' }}{% if loop.last or loop.index + 1 == loop.length %}"
        "{{ messages[0].content if messages[0].role == 'system' }}{% endif %}{{ m.content }}|"
        "{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(template)
    rendered = render(chat("a", "b", "c", "d", system="Be brief."), ChatTemplateRenderer(tokenizer))
    assert supervised_texts(rendered, tokenizer) == ["b<|im_end|>", "d<|im_end|>"]
    assert "Be brief.c|" in str(tokenizer.decode(rendered.input_ids))


def test_of_two_calls_neither_may_be_left_out() -> None:
    tokenizer = tokenizer_with("qwen2_5")
    tokenizer.chat_template = load_training_template(tokenizer).replace(
        "for tool_call in message.tool_calls", "for tool_call in message.tool_calls[:1]"
    )
    renderer = ChatTemplateRenderer(tokenizer)
    one, two = call("c", '{"key": "a"}'), call("d", '{"key": "x 1"}')
    for calls, problem in (([one], ""), ([one, two], without_tools("'look_up'"))):
        conversation = row(
            {"role": "user", "content": "Which one does look_up take, x 1 or a?"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            tools=(LOOK_UP,),
        )
        assert render(conversation, renderer).problem == problem


def test_question_and_answer_rows_are_taken(renderer: ChatTemplateRenderer) -> None:
    conversation = question_and_answer("a", "b", id="1")
    assert render(conversation, renderer) == render(chat("a", "b"), renderer)
