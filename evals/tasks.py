"""What is asked and how an answer is judged: test rows as an inspect task."""

import hashlib
import json
import random
from collections.abc import Sequence

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from configs.errors import UserError
from data.conversation import Conversation, Message, Role, text_of
from evals.rows import is_plain, question_turns, reference_answer

MESSAGE_TYPES: dict[Role, type[ChatMessage]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


def normalize_answer(text: str) -> str:
    """The form in which answers are compared.

    White space at the ends goes, each run of it inside becomes one blank, one trailing period is
    dropped, and letters are case-folded. Nothing else is forgiven: an answer inside a sentence is
    not the answer.
    """
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


@scorer(metrics=[accuracy(), stderr()])
def normalized_exact_match() -> Scorer:
    """Correct where answer and reference are equal after `normalize_answer`."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        correct = normalize_answer(answer) == normalize_answer(target.text)
        return Score(value=CORRECT if correct else INCORRECT, answer=answer)

    return score


@solver
def answer_once() -> Solver:
    """One request a question; a prompt that the model cannot hold is an error, not an answer.

    inspect turns a host's refusal of a long prompt into an answer that holds its message.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await generate(state)
        if state.output.stop_reason == "model_length":
            raise ValueError(
                f"the prompt does not fit the model's context: {state.output.completion}"
            )
        return state

    return solve


def choose_examples(
    train_rows: Sequence[Conversation], count: int, *, seed: int
) -> list[Conversation]:
    """`count` training rows to show as worked examples, the same ones for the same arguments.

    They come from the shortest third of the rows, so that they fit a small context, and their
    answers differ; longer rows, and then answers already shown, are taken only where that third
    does not hold enough. Errors: `UserError` where there are fewer rows than `count`.
    """
    plain = [row for row in train_rows if is_plain(row)]
    if len(plain) < count:
        raise UserError(
            f"{count} worked examples need as many plain training rows; there are {len(plain)}",
            remedy="lower evaluation.num_examples",
        )
    by_length = sorted(plain, key=lambda row: (_num_characters(row), row.id))
    num_short = -(-len(by_length) // 3)
    short, rest = by_length[:num_short], by_length[num_short:]
    random.Random(seed).shuffle(short)  # noqa: S311 (nothing secret depends on it)
    fresh: list[Conversation] = []
    repeats: list[Conversation] = []
    shown: set[str] = set()
    for row in [*short, *rest]:
        answer = normalize_answer(reference_answer(row))
        (repeats if answer in shown else fresh).append(row)
        shown.add(answer)
    return [*fresh, *repeats][:count]


def build_task(
    rows: Sequence[Conversation],
    *,
    name: str,
    examples: Sequence[Conversation] = (),
    max_tokens: int,
) -> Task:
    """A task of one sample a row, at temperature 0, judged by exact match.

    examples: worked examples, put as user and assistant turns between a row's system turn and its
    question. The task's version is a hash of all that is asked. Errors: `UserError` where an
    example asks what a row asks.
    """
    _refuse_leaks(rows, examples)
    samples = [
        Sample(id=row.id, input=_build_input(row, examples), target=reference_answer(row))
        for row in rows
    ]
    asked = [[row.id, _prompt(row, examples), reference_answer(row)] for row in rows]
    version = hashlib.sha256(json.dumps([max_tokens, asked]).encode()).hexdigest()[:16]
    return Task(
        name=name,
        version=version,
        dataset=MemoryDataset(samples, name=name),
        solver=answer_once(),
        scorer=normalized_exact_match(),
        config=GenerateConfig(temperature=0.0, max_tokens=max_tokens),
    )


def _prompt(row: Conversation, examples: Sequence[Conversation]) -> list[Message]:
    turns = question_turns(row)
    system = [turn for turn in turns if turn["role"] == "system"]
    shown = [turn for example in examples for turn in example.messages if turn["role"] != "system"]
    return [*system, *shown, *(turn for turn in turns if turn["role"] != "system")]


def _build_input(row: Conversation, examples: Sequence[Conversation]) -> list[ChatMessage]:
    return [MESSAGE_TYPES[turn["role"]](content=text_of(turn)) for turn in _prompt(row, examples)]


def _refuse_leaks(rows: Sequence[Conversation], examples: Sequence[Conversation]) -> None:
    asked = {_question_key(row): row.id for row in rows}
    for example in examples:
        row_id = asked.get(_question_key(example))
        if row_id is not None:
            raise UserError(
                f"the training row {example.id} asks the same question as the test row {row_id}",
                remedy="remove one, or give both the same `group`: then they stay on one side",
            )


def _question_key(row: Conversation) -> str:
    turns = (text_of(turn) for turn in question_turns(row) if turn["role"] != "system")
    return " ".join(" ".join(turns).split()).casefold()


def _num_characters(row: Conversation) -> int:
    return sum(len(turn["content"]) for turn in row.messages)
