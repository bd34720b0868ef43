"""Shapes of one question and one answer in columns: free answers, and multiple choice."""

import re
import string
from collections.abc import Mapping

from configs.data_schema import MultipleChoiceShape, QuestionAnswerShape
from data.checks import RowError
from data.shapes.columns import (
    Converter,
    Row,
    Turns,
    json_in,
    kind_of,
    question_turns,
    scalar_text,
    value_of,
)

LETTERS = string.ascii_uppercase
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
PARAGRAPHS = ("contexts", "text", "paragraphs", "sentences")


def question_answer_converter(shape: QuestionAnswerShape) -> Converter:
    """Rows of a question, an answer, and a text that the question is about."""

    def convert(row: Row) -> Turns:
        question = _required(row, shape.question)
        answer = _first(value_of(row, shape.answer), f"`{shape.answer}`")
        if not answer:
            raise RowError(f"`{shape.answer}` is empty")
        parts = (_context(row, shape.context), question, shape.instruction)
        return question_turns("\n\n".join(part for part in parts if part), answer)

    return convert


def multiple_choice_converter(shape: MultipleChoiceShape) -> Converter:
    """Rows of a question with options, answered by the letter of the right one."""

    def convert(row: Row) -> Turns:
        options = read_options(row, shape.options)
        right = find_option(value_of(row, shape.answer), options, first_index=shape.first_index)
        listed = "\n".join(
            f"{letter}) {text}" for letter, text in zip(LETTERS, options.values(), strict=False)
        )
        parts = (
            _context(row, shape.context),
            _required(row, shape.question),
            listed,
            shape.instruction,
        )
        return question_turns("\n\n".join(part for part in parts if part), LETTERS[right])

    return convert


def read_options(row: Row, columns: str | list[str]) -> dict[str, str]:
    """The options' texts by their keys, in the order in which they are shown.

    A column holds a list, a mapping of keys, lists of `text` and `label`, or JSON text of one of
    these; of several columns each holds one option. Keys of what has none are the letters.
    """
    if isinstance(columns, list):
        options = {column: value_of(row, column) for column in columns}
    else:
        options = _options_in(value_of(row, columns), columns)
    texts = {key: scalar_text(text, f"option {key}") for key, text in options.items()}
    shown = {key: text for key, text in texts.items() if text}
    if len(shown) < 2 or (len(shown) < len(texts) and not _may_be_absent(texts)):
        missing = [key for key in texts if key not in shown]
        told = f"option {missing[0]} is empty" if missing else "fewer than two options"
        raise RowError(told)
    if len(shown) > len(LETTERS):
        raise RowError(f"{len(shown)} options, and only {len(LETTERS)} letters")
    return shown


def find_option(key: object, options: Mapping[str, str], *, first_index: int) -> int:
    """The place, from 0, of the option that `key` names.

    key: a letter, a number that counts from `first_index`, a key of `options`, or an option's text.
    Raises `RowError` where it names none, or two by two of these readings.
    """
    if isinstance(key, list) and len(key) == 1:
        key = key[0]
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise RowError(f"the key of the right option is {kind_of(key)}, not a letter or a number")
    named = str(key).strip()
    if not named:
        raise RowError("the key of the right option is empty")
    found = _readings(named, options, first_index, is_number=isinstance(key, int))
    if not found:
        raise RowError(f"the key {named[:60]!r} names none of the {len(options)} options")
    if len(found) > 1:
        raise RowError(f"the key {named[:60]!r} names one option by its place, another by its text")
    return found.pop()


def _readings(
    named: str, options: Mapping[str, str], first_index: int, *, is_number: bool
) -> set[int]:
    """Places that the key may mean: by key, letter and number; by text where that is no number."""
    keys, texts = list(options), list(options.values())
    found = set()
    if named in options:
        found.add(keys.index(named))
    elif letter := LETTER.fullmatch(named):
        found.add(LETTERS.index(letter[1].upper()))
    elif re.fullmatch(r"-?\d+", named):
        found.add(int(named) - first_index)
    if not is_number and named in texts:
        found.add(texts.index(named))
    return {place for place in found if 0 <= place < len(options)}


def _options_in(value: object, column: str) -> dict[str, object]:
    if isinstance(value, str):
        value = json_in(value, f"`{column}`")
    if isinstance(value, Mapping):
        texts, labels = value.get("text"), value.get("label")
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            return {str(label): text for label, text in zip(labels, texts, strict=True)}
        in_order = sorted(value) if all(len(str(key)) == 1 for key in value) else value
        return {str(key): value[key] for key in in_order}
    if isinstance(value, list):
        keys = LETTERS if len(value) <= len(LETTERS) else map(str, range(len(value)))
        return dict(zip(keys, value, strict=False))
    raise RowError(f"`{column}` is {kind_of(value)}, not a list of options")


def _may_be_absent(texts: Mapping[str, str]) -> bool:
    """Whether only the last options are empty, as where tables give a fifth one to some rows."""
    filled = [bool(text) for text in texts.values()]
    return filled == sorted(filled, reverse=True)


def _required(row: Row, column: str) -> str:
    text = _paragraphs(value_of(row, column), column)
    if not text:
        raise RowError(f"`{column}` is empty")
    return text


def _first(value: object, name: str) -> str:
    """The text of an answer; of a list (also within `text`, as SQuAD has it) the first one."""
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    if isinstance(value, list):
        value = value[0] if value else None
    return scalar_text(value, name)


def _context(row: Row, column: str | None) -> str:
    """The text before a question, its paragraphs apart by empty lines; none where it is absent."""
    return "" if column is None else _paragraphs(value_of(row, column), column)


def _paragraphs(value: object, column: str) -> str:
    if isinstance(value, Mapping):
        inner = next((name for name in PARAGRAPHS if name in value), None)
        if inner is None:
            raise RowError(f"`{column}` is an object without any of {', '.join(PARAGRAPHS)}")
        return _paragraphs(value[inner], column)
    if isinstance(value, list):
        texts = [_paragraphs(one, column) for one in value]
        return "\n\n".join(text for text in texts if text)
    return scalar_text(value, f"`{column}`")
