import pytest
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.tokens.marked_template import AnswerFrame, MarkedTemplate, Span, find_answer_frame
from data.tokens.rendered import RowProblem
from tests.tiny_model import build_tiny_tokenizer

HEAD = (
    "{% for m in messages %}{% if m.role == 'user' %}Q:{{ m.content }}\n{% else %}"
    "{{ '<|im_start|>' }}"
)
FOOT = "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>\n' }}{% endif %}"


def frame_of(answer: str, foot: str = FOOT) -> AnswerFrame:
    """The frame of a template that renders a turn `m` of the assistant as `answer`."""
    tokenizer: PreTrainedTokenizerBase = build_tiny_tokenizer()
    return find_answer_frame(tokenizer, MarkedTemplate(tokenizer, HEAD + answer + foot))


@pytest.mark.parametrize(
    ("answer", "opening", "trailing"),
    [
        ("\n{%- generation %}{{ '\n' + m.content }}<|im_end|>{% endgeneration %}", "\n", ("",)),
        (
            "{{ '\n' }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}",
            "",
            ("",),
        ),
        (
            "{{ '\n' }}{% generation %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}",
            "",
            ("\n",),
        ),
        (
            "{% generation %}{{ '\n' + m.content + '<|im_end|>\n' }}{% if loop.last %}"
            "<|endoftext|>{% endif %}{% endgeneration %}",
            "\n",
            ("\n<|endoftext|>", "\n"),
        ),
        (
            "{{ '\n' }}{% generation %}{{ m.content }}{% endgeneration %}"
            "{% generation %}{{ '<|im_end|>\n' }}{% endgeneration %}",
            "",
            ("\n",),
        ),
    ],
)
def test_what_the_marks_take_in(answer: str, opening: str, trailing: tuple[str, ...]) -> None:
    frame = frame_of(answer)
    assert (frame.opening, frame.trailing) == (opening, trailing)
    assert frame.ends[0] == "<|im_end|>"
    assert set(frame.ends) == {"<|im_end|>", "<|im_start|>", "<|endoftext|>"}


def test_several_end_tokens_behind_each_other_belong_to_the_answer() -> None:
    frame = frame_of(
        "{{ '\n' }}{% generation %}{{ m.content + '<|im_end|><|endoftext|>\n' }}{% endgeneration %}"
    )
    assert frame.ends[0] == "<|im_end|><|endoftext|>"
    assert frame.trailing == ("\n",)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (
            "{{ '\n' }}{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>",
            "leaves the end token of an answer unmarked",
        ),
        (
            "{{ '\n' }}{% generation %}<|im_end|>{% endgeneration %}",
            "leaves out the words of an answer",
        ),
        (
            "{{ '\n<think>\n' }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}",
            "prompts with something else than stands before an answer",
        ),
        (
            "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}",
            "prompts with something else than stands before an answer",
        ),
        (
            "{{ '\n' }}{% if loop.last %}{% generation %}{{ m.content }}<|im_end|>"
            "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}",
            "prompts with something else than stands before an answer",
        ),
        (
            "{{ raise_exception('no') }}{% generation %}{% endgeneration %}",
            "does not take a plain conversation (no)",
        ),
    ],
)
def test_a_template_that_marks_no_whole_answers_is_refused(answer: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        frame_of(answer)
    assert caught.value.what == f"the model's chat template {what}"
    assert caught.value.remedy is not None


def test_a_template_that_prompts_with_other_tokens_of_the_same_text_is_refused() -> None:
    """The prompt ends with a blank, which merges with the answer's first word in a row."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens([" A"])
    answer = "{{ ' ' }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    template = HEAD + answer + FOOT.replace("\n", " ")
    assert tokenizer.tokenize("<|im_start|> A") == ["<|im_start|>", " A"]
    with pytest.raises(UserError, match="prompts with something else"):
        find_answer_frame(tokenizer, MarkedTemplate(tokenizer, template))


def test_a_template_without_a_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="prompts with something else"):
        frame_of(
            "{{ '\n' }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}",
            FOOT.replace("<|im_start|>\n", "' + raise_exception('no prompts') + '"),
        )


FRAME = AnswerFrame(opening="\n", ends=("<end>", "<call>"), trailing=("\n<eos>", "\n"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\nA<end>\n", "A<end>"),
        ("\n\n  A \n<end>\n", "\n  A \n<end>"),
        ("\nA<end>\n<eos>", "A<end>"),
        ("\n<end>\n", "<end>"),
        ("\nA<end>\n<end>\n", "A<end>\n<end>"),
        ("\nA<call>\n", "A<call>"),
    ],
)
def test_a_mark_is_cut_to_the_answer(text: str, answer: str) -> None:
    start, end = FRAME.cut(f"before{text}after", (6, 6 + len(text)))
    assert f"before{text}after"[start:end] == answer


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A<end>\n", "the chat template opens an answer otherwise than it prompts for one"),
        ("\nA\n", "the chat template ends an answer without an end token"),
        ("\nA<end>", "the chat template ends an answer without an end token"),
    ],
)
def test_an_answer_in_another_frame_is_told(text: str, problem: str) -> None:
    mark: Span = (0, len(text))
    with pytest.raises(RowProblem) as caught:
        FRAME.cut(text, mark)
    assert str(caught.value) == problem
