"""Which shape rows have, told by the names of their columns and proved on the rows themselves.

What is not clear is asked for: a guess that trains on the wrong column costs more than a line of
configuration.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from configs.data_schema import (
    AlpacaShape,
    MessagesShape,
    MultipleChoiceShape,
    PreferenceShape,
    PromptCompletionShape,
    QuestionAnswerShape,
    Shape,
    ShareGptShape,
)
from configs.errors import UserError
from data.checks import RowError, check_messages
from data.shapes.build import build_converter
from data.shapes.columns import Row, told_columns
from data.shapes.questions import LETTERS, read_options

TURNS = ("messages", "conversations", "conversation", "dialogue")
QUESTIONS = ("question", "query", "problem", "instruction", "prompt", "input")
ANSWERS = ("answer", "answers", "response", "output", "completion", "solution", "reply")
CONTEXTS = ("context", "contexts", "passage", "document")
OPTIONS = ("options", "choices", "endings", "candidates")
OPTION_PREFIXES = ("", "op", "option_", "option", "choice_", "choice", "ending_", "ending")
KEYS = (
    "answer_idx",
    "answer_index",
    "answer_key",
    "answerkey",
    "correct_answer",
    "correct",
    "answer",
    "label",
    "cop",
    "gold",
    "target",
)

EXAMPLE = """set its shape, such as
  shape:
    kind: question_answer
    question: {question}
    answer: {answer}
(kinds: messages, sharegpt, alpaca, prompt_completion, question_answer, multiple_choice, \
preference, template)
the columns are: {columns}"""
MAX_NAME_LENGTH = 60


class Fit(NamedTuple):
    """How many of some rows a shape fits, and why it does not fit the others."""

    shape: Shape
    num_rows: int
    num_fitting: int
    reasons: Counter[str]


def fit_of(shape: Shape, rows: Sequence[Row]) -> Fit:
    """Try a shape on rows. Errors: `UserError` for a template that is not valid."""
    convert = build_converter(shape)
    reasons: Counter[str] = Counter()
    for row in rows:
        try:
            turns = convert(row)
            check_messages(turns.messages, turns.tools)
        except RowError as error:
            reasons[str(error)] += 1
    return Fit(shape, len(rows), len(rows) - reasons.total(), reasons)


def detect_shape(rows: Sequence[Row], *, where: str) -> Fit:
    """The one shape that most of the rows have; there has to be at least one row.

    Errors: `UserError` with the columns, and what to write, where no shape or more than one fits.
    """
    fits = [fit_of(shape, rows) for shape in _candidates(rows)]
    good = [fit for fit in fits if fit.num_fitting * 2 > fit.num_rows]
    if len(good) == 1:
        return good[0]
    if good:
        told = " or ".join(told_shape(fit.shape) for fit in good)
        what = f"the rows can be read in more than one way: {told}"
    elif fits:
        best = max(fits, key=lambda fit: fit.num_fitting)
        reason, count = best.reasons.most_common(1)[0]
        what = (
            f"the columns are those of {told_shape(best.shape)}, but of the first "
            f"{best.num_rows:,} rows {count:,} are not: {reason}"
        )
    else:
        what = "the shape of the rows is not among those that are recognized"
    raise UserError(what, where=where, remedy=_remedy(rows))


def told_shape(shape: Shape) -> str:
    """A shape's kind and columns, as they would be configured."""
    told = shape.model_dump(exclude={"kind", "instruction", "tools_column"}, exclude_none=True)
    columns = ", ".join(f"{name}: {value}" for name, value in told.items())
    return f"{shape.kind} ({columns})" if columns else shape.kind


def _remedy(rows: Sequence[Row]) -> str:
    """What to write, with the longest texts' column as the question, the shortest as the answer."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lengths = {
        column: sum(len(str(row.get(column))) for row in rows)
        for column in columns
        if isinstance(rows[0].get(column), str) and not column.casefold().endswith("id")
    }
    example = EXAMPLE.format(
        question=max(lengths, key=lambda column: lengths[column], default="…")[:60],
        answer=min(lengths, key=lambda column: lengths[column], default="…")[:60],
        columns=told_columns(columns),
    )
    if any(len(column) > MAX_NAME_LENGTH for column in columns):
        return f"{example}\nif the file has no header line, name its `columns`"
    return example


def _candidates(rows: Sequence[Row]) -> Iterator[Shape]:
    """The shapes that the columns of at least half of the rows speak for.

    A shape that holds another one's columns and more comes alone: multiple choice is no free
    answer, and turns that are there are not put together from a prompt.
    """
    counts = Counter(column for row in rows for column in row)
    columns = [column for column, count in counts.items() if count * 2 >= len(rows)]
    names = {column.casefold(): column for column in columns}
    if "chosen" in names and "rejected" in names:
        prompt = names.get("prompt") or names.get("question") or names.get("instruction")
        yield PreferenceShape(
            kind="preference", prompt=prompt, chosen=names["chosen"], rejected=names["rejected"]
        )
    turns = [names[name] for name in TURNS if name in names]
    for column in turns:
        yield _shape_of_turns(column, rows)
    if turns or "chosen" in names:
        return
    choices = list(_multiple_choice(names, rows))
    yield from choices or _single_questions(names)


def _shape_of_turns(column: str, rows: Sequence[Row]) -> Shape:
    for row in rows:
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            if "from" in turns[0] and "value" in turns[0]:
                return ShareGptShape(kind="sharegpt", column=column)
            break
    return MessagesShape(kind="messages", column=column)


def _single_questions(names: dict[str, str]) -> Iterator[Shape]:
    if names.get("instruction") == "instruction" and names.get("output") == "output":
        yield AlpacaShape(kind="alpaca")
        return
    context = _first_of(CONTEXTS, names)
    # Where several columns may be the question or the answer, all of them are candidates.
    for question in (names[name] for name in QUESTIONS if name in names):
        for answer in (names[name] for name in ANSWERS if name in names):
            if (question, answer) in (("prompt", "completion"), ("prompt", "response")):
                yield PromptCompletionShape(
                    kind="prompt_completion", prompt=question, completion=answer
                )
            else:
                yield QuestionAnswerShape(
                    kind="question_answer", question=question, answer=answer, context=context
                )


def _multiple_choice(names: dict[str, str], rows: Sequence[Row]) -> Iterator[Shape]:
    options = _first_of(OPTIONS, names) or _option_columns(names)
    key = _first_of(KEYS, names)
    context = _first_of(CONTEXTS, names)
    questions = [names[name] for name in QUESTIONS if name in names]
    if options is None or key is None:
        return
    if not questions and context is not None:
        questions, context = [context], None
    for question in questions:
        for first_index in _first_indices(rows, key, options):
            yield MultipleChoiceShape(
                kind="multiple_choice",
                question=question,
                options=options,
                answer=key,
                first_index=first_index,
                context=context,
            )


def _first_of(candidates: Sequence[str], names: dict[str, str]) -> str | None:
    return next((names[name] for name in candidates if name in names), None)


def _option_columns(names: dict[str, str]) -> list[str] | None:
    """Columns that hold an option each: A to D, opa to opd, choice_a …, ending0 …"""
    for prefix in OPTION_PREFIXES:
        for keys in (
            LETTERS.lower(),
            "0123456789" if prefix else "",
            "123456789" if prefix else "",
        ):
            found = [names[prefix + key] for key in keys if prefix + key in names]
            if len(found) > 1 and all(prefix + key in names for key in keys[: len(found)]):
                return found
    return None


def _first_indices(
    rows: Sequence[Row], column: str, options: str | list[str]
) -> list[Literal[0, 1]]:
    """The numbers that the first option can have: both where the rows' keys do not tell."""
    numbers: list[tuple[int, int]] = []
    for row in rows:
        key = str(row.get(column)).strip()
        with suppress(RowError):
            texts = read_options(row, options).values()
            if key.isdecimal() and (isinstance(row[column], int) or key not in texts):
                numbers.append((int(key), len(texts)))
    if not numbers or any(number == 0 for number, _ in numbers):
        return [0]
    return [1] if any(number == num_options for number, num_options in numbers) else [0, 1]
