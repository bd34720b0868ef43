from itertools import groupby
from pathlib import Path

import pytest
import trl
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.conversation import Message
from data.model_source import load_tokenizer
from data.template import Rendered, load_training_template, render_conversations
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_tokenizer

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# A turn's frame, and the default system turn, in the tiny tokenizer's tokens (Ġ: blank, Ċ: line).
SYSTEM_TURN = (
    "<|im_start|> syste m Ċ You Ġare Ġa Ġhelpful ĠAI Ġassistant Ġnamed ĠSmolLM , Ġtrained Ġby "
    "ĠHugging ĠFace <|im_end|> Ċ"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_checkpoint)


@pytest.fixture(scope="module")
def template(tokenizer: PreTrainedTokenizerBase) -> str:
    return load_training_template(tokenizer)


def turns(*contents: str, system: str | None = None) -> list[Message]:
    """Contents of user and assistant by turns, after the system turn where one is given."""
    messages: list[Message] = [
        {"role": "assistant" if number % 2 else "user", "content": content}
        for number, content in enumerate(contents)
    ]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def plain(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


def render(
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int = 100_000,
) -> Rendered:
    (one,) = render_conversations([messages], tokenizer, template=template, max_length=max_length)
    return one


def supervised_texts(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    tokens = zip(rendered.input_ids, rendered.assistant_mask, strict=True)
    return [
        str(tokenizer.decode([token for token, _ in run]))
        for supervised, run in groupby(tokens, key=lambda pair: pair[1])
        if supervised
    ]


def check_tokens(
    rendered: Rendered, tokenizer: PreTrainedTokenizerBase, parts: list[tuple[int, str]]
) -> None:
    """`parts`: mask value and tokens, in order."""
    tokens = [token for _, part in parts for token in part.split(" ")]
    mask = [value for value, part in parts for _ in part.split(" ")]
    assert tokenizer.convert_ids_to_tokens(rendered.input_ids) == tokens
    assert rendered.input_ids == tokenizer.convert_tokens_to_ids(tokens)
    assert rendered.assistant_mask == mask
    assert rendered.num_supervised == sum(mask)


# Exact tokens and mask.


def test_one_turn_to_the_token(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    rendered = render(turns("Which colour is the sky?", "The sky is 12."), tokenizer, template)
    check_tokens(
        rendered,
        tokenizer,
        [
            (0, SYSTEM_TURN),
            (0, "<|im_start|> user Ċ Which Ġcolour Ġis Ġthe Ġsky ? <|im_end|> Ċ"),
            (0, "<|im_start|> ass istant Ċ"),
            (1, "The Ġsky Ġis Ġ 1 2 . <|im_end|>"),
            (0, "Ċ"),
        ],
    )
    assert rendered.num_dropped_turns == 0


def test_several_turns_to_the_token(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    messages = turns("Which number?", "1", "Which colour?", "blue\né", system="Name the colour.")
    check_tokens(
        render(messages, tokenizer, template),
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
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    rendered = render(turns("a", "b"), tokenizer, template)
    assert rendered.input_ids[0] == 1
    assert rendered.input_ids.count(1) == 3
    assert rendered.input_ids.count(2) == 3
    # The last supervised token ends the answer; the line break after it is not to be learned.
    *_, last, after = zip(rendered.input_ids, rendered.assistant_mask, strict=True)
    assert last == (tokenizer.eos_token_id, 1)
    assert after == (tokenizer.convert_tokens_to_ids("Ċ"), 0)


def test_the_prompt_at_inference_is_what_stands_before_the_first_supervised_token(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    messages = turns("Which is it?", "The number 345", "And 日本?", "é 2.", "c", "d", system="s s")
    rendered = render(messages, tokenizer, template)
    starts = [
        n
        for n, value in enumerate(rendered.assistant_mask)
        if value and not rendered.assistant_mask[n - 1]
    ]
    for number, start in enumerate(starts):
        prompt = tokenizer.apply_chat_template(
            plain(messages[: 2 + 2 * number]),
            add_generation_prompt=True,
            return_dict=False,
        )
        assert prompt == rendered.input_ids[:start]
    assert len(starts) == 3


def test_a_row_renders_the_same_alone_and_in_company(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    rows = [turns("a", "b"), turns("Which colour?", "blue", "and?", "green"), turns("c", "日本")]
    together = render_conversations(rows, tokenizer, template=template, max_length=1000)
    assert together == [render(row, tokenizer, template) for row in rows]
    assert render_conversations([], tokenizer, template=template, max_length=1000) == []


def test_without_a_system_turn_the_models_own_one_stands_there(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    without = render(turns("a", "b"), tokenizer, template)
    assert without == render(turns("a", "b", system=DEFAULT_SYSTEM), tokenizer, template)


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


@given(
    exchanges=st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=3),
    system=st.none() | CONTENTS,
)
def test_the_mask_covers_exactly_the_assistants_contents(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    exchanges: list[tuple[str, str]],
    system: str | None,
) -> None:
    messages = turns(*(content for pair in exchanges for content in pair), system=system)
    rendered = render(messages, tokenizer, template)
    assert supervised_texts(rendered, tokenizer) == [
        f"{answer}<|im_end|>" for _, answer in exchanges
    ]
    own = tokenizer.apply_chat_template(plain(messages), tokenize=False)
    assert tokenizer.decode(rendered.input_ids) == own


# Rows that are too long.


def test_a_long_row_loses_whole_turns_from_its_end(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    messages = turns("q 1", "a 1", "q 2", "a 2", "q 3", "a 3", system="s")
    whole = render(messages, tokenizer, template)
    two = render(messages[:5], tokenizer, template)
    one = render(messages[:3], tokenizer, template)
    lengths = [len(rendered.input_ids) for rendered in (whole, two, one)]
    assert render(messages, tokenizer, template, lengths[0]) == whole
    for length in (lengths[0] - 1, lengths[1]):
        assert render(messages, tokenizer, template, length) == Rendered(
            two.input_ids, two.assistant_mask, num_dropped_turns=2
        )
    for length in (lengths[1] - 1, lengths[2]):
        assert render(messages, tokenizer, template, length) == Rendered(
            one.input_ids, one.assistant_mask, num_dropped_turns=4
        )
    assert supervised_texts(one, tokenizer) == ["a 1<|im_end|>"]


def test_a_row_whose_first_answer_does_not_fit_teaches_nothing(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    messages = turns("q 1", "a 1", "q 2", "a 2")
    length = len(render(messages[:2], tokenizer, template).input_ids)
    rendered = render(messages, tokenizer, template, length - 1)
    assert rendered.num_supervised == 0
    assert rendered == Rendered([], [], num_dropped_turns=4)


def test_only_the_long_rows_are_cut(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    short, long = turns("a", "b"), turns("a", "b", "c" * 50, "d")
    limit = len(render(short, tokenizer, template).input_ids) + 5
    rendered = render_conversations([long, short], tokenizer, template=template, max_length=limit)
    assert [one.num_dropped_turns for one in rendered] == [2, 0]
    assert rendered[0].input_ids == rendered[1].input_ids


# Which template is taken.


def test_the_training_template_is_the_models_own_one_with_marks(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert "{% generation %}" not in CHAT_TEMPLATE
    assert "{% generation %}" in template


def test_a_model_without_a_template_is_refused() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="the model has no chat template"):
        load_training_template(tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        ("named SmolLM", "named Ada"),
        ("message['content'] + ", "message['content'] | upper + "),
        ("+ '<|im_end|>' + '\n'", "+ '<|im_end|>'"),
        ("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>'"),
    ],
)
def test_a_model_with_an_unknown_template_is_refused(change: tuple[str, str]) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(*change)
    if tokenizer.chat_template == CHAT_TEMPLATE:
        pytest.fail(f"the change {change} changes nothing")
    with pytest.raises(UserError, match="no training template matches it") as caught:
        load_training_template(tokenizer)
    assert caught.value.remedy is not None
    assert "{% generation %}" in caught.value.remedy


@pytest.mark.parametrize("opening", ["{% generation %}", "{%- generation -%}"])
def test_a_template_with_marks_of_its_own_is_taken_as_it_is(opening: str) -> None:
    own = (
        "{% for m in messages %}{% if m.role == 'assistant' %}A:"
        + opening
        + "{{ m.content + eos_token }}{% endgeneration %}"
        "{% else %}Q: {{ m.content }} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = own
    assert load_training_template(tokenizer) == own
    rendered = render(turns("a", "b", "c", "d"), tokenizer, own)
    assert supervised_texts(rendered, tokenizer) == ["b<|im_end|>", "d<|im_end|>"]


def test_a_template_that_trl_knows_gets_its_marks_from_there() -> None:
    file = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = file.read_text()
    template = load_training_template(tokenizer)
    assert template != tokenizer.chat_template
    messages = turns("a", "b", "c", "d")
    rendered = render(messages, tokenizer, template)
    # TRL marks the line breaks around an answer too.
    supervised = [text.strip() for text in supervised_texts(rendered, tokenizer)]
    assert supervised == ["b<|im_end|>", "d<|im_end|>"]
    own = tokenizer.apply_chat_template(plain(messages), tokenize=False)
    assert tokenizer.decode(rendered.input_ids) == own
