"""A chat template with `{% generation %}` marks, and what its marks take in beside the answers.

Marks may take in more than the model has to say: the line break that the prompt ends with, or what
stands between two turns. They are cut to the answer by what is seen on answers that are known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from configs.errors import UserError
from data.tokens.rendered import RowProblem
from data.tokens.training_template import TEMPLATE_ERRORS, render_text

Span = tuple[int, int]
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Q 1"}]
ANSWERED_TWICE: list[dict[str, Any]] = [
    *ASKED,
    {"role": "assistant", "content": "A 1"},
    {"role": "user", "content": "Q 2"},
    {"role": "assistant", "content": "A 2"},
]


class MarkedTemplate:
    """The template and the tokenizer that reads what it renders."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self.text = template
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._special_tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)

    def render(
        self, rows: Sequence[list[dict[str, Any]]], tools: Sequence[dict[str, Any]] = ()
    ) -> list[tuple[str, list[Span]]]:
        """Each row's text, and its marked ranges of characters; neighbouring marks are one.

        Errors: one of `TEMPLATE_ERRORS` where the template does not take a row.
        """
        rendered: Any = render_jinja_template(
            list(rows),
            tools=list(tools) or None,
            chat_template=self.text,
            return_assistant_tokens_mask=True,
            **self._special_tokens,
        )
        return [(text, _joined(marks)) for text, marks in zip(*rendered, strict=True)]

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """The tokens of rendered texts, in which control tokens are spelled out."""
        # State that transformers too sets anew at each of its own calls.
        self._backend.encode_special_tokens = False
        self._backend.no_truncation()
        self._backend.no_padding()
        return self._backend.encode_batch(list(texts), add_special_tokens=False)


@dataclass(frozen=True)
class AnswerFrame:
    """What marks take in around an answer.

    opening: the part of the prompt at the beginning; ends: tokens, as text, that an answer may end
    with, the usual ones first; trailing: what may stand behind them, longest first.
    """

    opening: str
    ends: tuple[str, ...]
    trailing: tuple[str, ...]

    def cut(self, text: str, mark: Span) -> Span:
        """The part of a mark that the model has to say, up to the token that ends its turn."""
        start, end = mark
        if not text.startswith(self.opening, start):
            raise RowProblem("the chat template opens an answer otherwise than it prompts for one")
        for trailing in self.trailing:
            behind = end - len(trailing)
            if text.endswith(trailing, start, end) and text.endswith(self.ends, start, behind):
                return start + len(self.opening), behind
        raise RowProblem("the chat template ends an answer without an end token")


def find_answer_frame(tokenizer: PreTrainedTokenizerBase, template: MarkedTemplate) -> AnswerFrame:
    """The frame of a template's answers.

    Errors: `UserError` where the prompt at inference is not, to the token, what stands before an
    answer, and where no end token is marked: the model would never learn to stop.
    """
    try:
        ((text, marks),) = template.render([ANSWERED_TWICE])
    except TEMPLATE_ERRORS as error:
        raise _template_error(f"does not take a plain conversation ({error})", tokenizer) from error
    prompt = render_text(tokenizer, ASKED, template=template.text, add_generation_prompt=True) or ""
    asked, whole = (encoding.ids for encoding in template.encode([prompt, text]))
    is_prefix = text.startswith(prompt) and whole[: len(asked)] == asked
    if len(marks) != 2 or not is_prefix or len(prompt) < marks[0][0]:
        raise _template_error("prompts with something else than stands before an answer", tokenizer)
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special.add(str(tokenizer.eos_token))
    # Some models end an answer with several control tokens, directly behind each other.
    end_tokens = re.compile("(?:" + "|".join(map(re.escape, sorted(special, reverse=True))) + ")+")
    ends, trailing = [], set()
    for (start, end), content in zip(marks, ("A 1", "A 2"), strict=True):
        _, answer, tail = text[start:end].partition(content)
        if not answer:
            raise _template_error("leaves out the words of an answer", tokenizer)
        found = end_tokens.search(tail)
        if found is None:
            raise _template_error("leaves the end token of an answer unmarked", tokenizer)
        ends.append(found.group())
        trailing.add(tail[found.end() :])
    return AnswerFrame(
        opening=prompt[marks[0][0] :],
        ends=tuple(dict.fromkeys([*ends, *sorted(special)])),
        trailing=tuple(sorted(trailing, key=len, reverse=True)),
    )


def _template_error(what: str, tokenizer: PreTrainedTokenizerBase) -> UserError:
    return UserError(
        f"the model's chat template {what}",
        where=tokenizer.name_or_path,
        remedy="mark the answer and its end token in chat_template.jinja, directly behind what "
        "add_generation_prompt renders: {% generation %}{{ content + eos_token }}"
        "{% endgeneration %}",
    )


def _joined(marks: Sequence[Span]) -> list[Span]:
    """Marks in order, those that touch as one, empty ones left out."""
    joined: list[Span] = []
    for start, end in marks:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return joined
