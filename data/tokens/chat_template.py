"""Rows rendered by a chat template: for every model but those that speak Mistral's v7 form."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation, Message, ToolDefinition, text_of
from data.tokens.marked_template import MarkedTemplate, Span, find_answer_frame
from data.tokens.rendered import Rendered, RowProblem, call_arguments, check_text, refused
from data.tokens.training_template import TEMPLATE_ERRORS, load_training_template

MarkedText = tuple[str, list[Span]]


class ChatTemplateRenderer:
    """Renders rows by the model's training template, to the ids of `apply_chat_template`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.template = MarkedTemplate(tokenizer, load_training_template(tokenizer))
        self._frame = find_answer_frame(tokenizer, self.template)

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """One result for each conversation, in order and uncut."""
        marked = self._mark(conversations)
        rows = [
            one if isinstance(one, RowProblem) else self._cut(conversation, *one)
            for conversation, one in zip(conversations, marked, strict=True)
        ]
        texts = [row[0] for row in rows if not isinstance(row, RowProblem)]
        encoded = iter(self.template.encode(texts))
        return [
            refused(row) if isinstance(row, RowProblem) else _masked(next(encoded), row[1])
            for row in rows
        ]

    def _mark(self, conversations: Sequence[Conversation]) -> list[MarkedText | RowProblem]:
        """Rendered texts and their marks: rows without tools together, which is faster."""
        rows = [_plain_messages(conversation) for conversation in conversations]
        together = [
            messages
            for conversation, messages in zip(conversations, rows, strict=True)
            if not (conversation.tools or isinstance(messages, RowProblem))
        ]
        try:
            marked: Iterator[MarkedText] | None = iter(self.template.render(together))
        except TEMPLATE_ERRORS:
            # One of them is not taken; which one shows when each is rendered alone.
            marked = None
        result: list[MarkedText | RowProblem] = []
        for conversation, messages in zip(conversations, rows, strict=True):
            if isinstance(messages, RowProblem):
                result.append(messages)
            elif marked is None or conversation.tools:
                result.append(self._mark_one(messages, conversation.tools))
            else:
                result.append(next(marked))
        return result

    def _mark_one(
        self, messages: list[dict[str, Any]], tools: Sequence[ToolDefinition]
    ) -> MarkedText | RowProblem:
        try:
            return self.template.render([messages], tools)[0]
        except TEMPLATE_ERRORS as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            return RowProblem(f"the chat template does not take it: {told}")

    def _cut(
        self, conversation: Conversation, text: str, marks: list[Span]
    ) -> MarkedText | RowProblem:
        """The text with the marks cut to the answers, where the row stands in it as a whole."""
        try:
            check_nothing_lost(conversation, check_text(text))
            num_answers = sum([turn["role"] == "assistant" for turn in conversation.messages])
            if len(marks) < num_answers:
                raise RowProblem(
                    f"the chat template marks {len(marks)} of {num_answers} assistant turns"
                )
            return text, [self._frame.cut(text, mark) for mark in marks]
        except RowProblem as problem:
            return problem


def check_nothing_lost(conversation: Conversation, text: str) -> None:
    """Raise a `RowProblem` where a part of the conversation does not stand in its rendered text."""
    position = 0
    for number, message in enumerate(conversation.messages, start=1):
        content = text_of(message).strip()
        found = text.find(content, position)
        if found < 0:
            raise RowProblem(
                f"the chat template leaves out words of turn {number} ({message['role']})"
            )
        # Some templates move the system turn behind others.
        if message["role"] != "system":
            position = found + len(content)
        if message["role"] == "assistant" and not content and not message.get("tool_calls"):
            raise RowProblem(f"turn {number} (assistant) is empty")
    words = Counter(_tool_words(conversation))
    for word, num_expected in words.items():
        # The turns' own words stand in the text as well, and do not count.
        in_turns = sum(text_of(message).strip().count(word) for message in conversation.messages)
        escaped = json.dumps(word, ensure_ascii=False)[1:-1]
        num_found = text.count(word) + (text.count(escaped) if escaped != word else 0)
        if num_found < in_turns + num_expected:
            raise RowProblem(f"the chat template leaves out {word[:80]!r} of the tools and calls")


def _tool_words(conversation: Conversation) -> Iterator[str]:
    """Names of tools and calls, and the words and numbers of the calls' arguments."""
    for tool in conversation.tools:
        yield str(tool["function"]["name"])
    for message in conversation.messages:
        for call in message.get("tool_calls", ()):
            yield call["function"]["name"]
            yield from filter(None, _leaves(call_arguments(call)))


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _plain_messages(conversation: Conversation) -> list[dict[str, Any]] | RowProblem:
    try:
        return [_plain(message) for message in conversation.messages]
    except RowProblem as problem:
        return problem


def _plain(message: Message) -> dict[str, Any]:
    """A turn as chat templates take it: text, and the arguments of calls as objects."""
    content, calls = message["content"], message.get("tool_calls")
    if isinstance(content, str) and not calls:
        # The turn itself: a sandboxed template cannot change it.
        return cast(dict[str, Any], message)
    if not isinstance(content, str) and any(part["type"] != "text" for part in content):
        raise RowProblem("holds an image, which rows for this model cannot have")
    plain: dict[str, Any] = {**message, "content": text_of(message)}
    if calls:
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": call_arguments(call)}}
            for call in calls
        ]
    return plain


def _masked(encoding: Encoding, answers: list[Span]) -> Rendered:
    ids = encoding.ids
    mask = [0] * len(ids)
    for start, end in answers:
        last = encoding.char_to_token(end - 1)
        assert last is not None, "an end token covers its own text"
        first = _first_token(encoding, start, end)
        mask[first : last + 1] = [1] * (last + 1 - first)
    return Rendered(ids, mask, 0)


def _first_token(encoding: Encoding, start: int, end: int) -> int:
    """The first token that begins at the character `start` or behind it."""
    # Some tokenizers leave the blank in front of a word out of its token's range.
    tokens = (encoding.char_to_token(position) for position in range(start, end))
    token = next(token for token in tokens if token is not None)
    # A token that holds the end of the prompt as well is none that the model gets to say.
    characters = encoding.token_to_chars(token)
    return token if characters and characters[0] >= start else token + 1
