"""Shapes whose rows hold turns: messages, ShareGPT, Alpaca, prompt and completion, preferences."""

from typing import Any

from configs.data_schema import (
    AlpacaShape,
    MessagesShape,
    PreferenceShape,
    PromptCompletionShape,
    ShareGptShape,
)
from data.checks import RowError
from data.conversation import Message
from data.shapes.columns import (
    Converter,
    Row,
    Turns,
    json_in,
    kind_of,
    list_in,
    optional_text_in,
    question_turns,
    text_in,
    value_of,
)
from data.shapes.turns import parse_tools, parse_turns

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
SHAREGPT_CALLS = ("function_call", "tool_call")


def messages_converter(shape: MessagesShape) -> Converter:
    """Rows in OpenAI's chat form."""
    column, tools_column = shape.column, shape.tools_column

    def convert(row: Row) -> Turns:
        turns = row.get(column)
        messages = parse_turns(turns if type(turns) is list else list_in(row, column))
        return Turns(tuple(messages), parse_tools(row.get(tools_column)))

    return convert


def sharegpt_converter(shape: ShareGptShape) -> Converter:
    """Rows in ShareGPT's form; `system` and `tools` columns count where a row has them."""

    def convert(row: Row) -> Turns:
        turns = [
            _sharegpt_turn(turn, number)
            for number, turn in enumerate(list_in(row, shape.column), start=1)
        ]
        system = optional_text_in(row, "system")
        messages = parse_turns(turns)
        if system:
            messages = [{"role": "system", "content": system}, *messages]
        return Turns(tuple(messages), parse_tools(row.get("tools")))

    return convert


def alpaca_converter(shape: AlpacaShape) -> Converter:
    """Rows of an instruction, what it is about, and the output; earlier turns in `history`."""
    assert shape.kind == "alpaca"

    def convert(row: Row) -> Turns:
        question = text_in(row, "instruction")
        about = optional_text_in(row, "input")
        answer = text_in(row, "output")
        turns = question_turns(f"{question}\n\n{about}" if about else question, answer).messages
        system = optional_text_in(row, "system")
        before: list[Message] = [{"role": "system", "content": system}] if system else []
        if row.get("history"):
            before += _earlier_turns(list_in(row, "history"))
        return Turns((*before, *turns))

    return convert


def prompt_completion_converter(shape: PromptCompletionShape) -> Converter:
    """Rows of two columns, each a text or a list of turns."""

    def convert(row: Row) -> Turns:
        prompt, completion = row.get(shape.prompt), row.get(shape.completion)
        if type(prompt) is str and type(completion) is str:
            return question_turns(text_in(row, shape.prompt), text_in(row, shape.completion))
        asked = _turns_in(row, shape.prompt, "user")
        answered = _turns_in(row, shape.completion, "assistant")
        if answered and answered[0].get("role") != "assistant":
            raise RowError(f"`{shape.completion}` does not begin with the assistant's turn")
        return Turns(tuple(parse_turns([*asked, *answered])), parse_tools(row.get("tools")))

    return convert


def preference_converter(shape: PreferenceShape) -> Converter:
    """Rows of a preferred and a rejected answer (TRL's forms: texts, or lists of turns)."""

    def convert(row: Row) -> Turns:
        chosen = _turns_in(row, shape.chosen, "assistant")
        rejected = _turns_in(row, shape.rejected, "assistant")
        whole = bool(chosen) and chosen[0].get("role") != "assistant"
        if not whole:
            if shape.prompt is None:
                raise RowError(f"`{shape.chosen}` holds an answer alone, without a question")
            asked = _turns_in(row, shape.prompt, "user")
            chosen, rejected = [*asked, *chosen], [*asked, *rejected]
        preferred, other = parse_turns(chosen), parse_turns(rejected)
        if not preferred or not other or preferred[:-1] != other[:-1]:
            raise RowError("the two answers do not follow the same turns")
        return Turns(tuple(preferred), parse_tools(row.get("tools")), other[-1])

    return convert


def _turns_in(row: Row, column: str, role: str) -> list[dict[str, Any]]:
    """The turns of a column: a list of them, or a text that is one turn of `role`."""
    value = value_of(row, column)
    if value is None or isinstance(value, str):
        return [{"role": role, "content": text_in(row, column)}]
    turns = list_in(row, column)
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise RowError(f"turn {number} of `{column}` is {kind_of(turn)}, not an object")
    return turns


def _sharegpt_turn(turn: object, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {kind_of(turn)}, not an object")
    speaker, value = turn.get("from"), turn.get("value")
    if isinstance(speaker, str) and speaker in SHAREGPT_CALLS:
        calls = json_in(value, f"turn {number}: the call") if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) else [calls]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        known = ", ".join([*SHAREGPT_ROLES, *SHAREGPT_CALLS])
        raise RowError(f"turn {number}: `from` {repr(speaker)[:60]} is none of {known}")
    return {"role": role, "content": value}


def _earlier_turns(history: list[Any]) -> list[Message]:
    turns: list[Message] = []
    for number, pair in enumerate(history, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"`history` {number} is not a pair of question and answer")
        question, answer = ({"text": text} for text in pair)
        turns += question_turns(text_in(question, "text"), text_in(answer, "text")).messages
    return turns
