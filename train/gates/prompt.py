"""The third gate: an artefact's own tokenizer and template make the prompts of training."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, Protocol

import numpy as np

from configs.errors import UserError
from data.conversation import Conversation, Message, ToolDefinition
from data.tokens.rendered import Rendered, Renderer
from train.gates.results import GateResult
from train.gates.scoring import HeldOutRow

SYSTEM: Message = {"role": "system", "content": "Answer in one sentence."}
ANSWER: Message = {"role": "assistant", "content": "Yes."}
TOOL: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up a term.",
        "parameters": {"type": "object", "properties": {"term": {"type": "string"}}},
    },
}
# Rows whose own prompts are looked at.
NUM_ROWS = 4
# How often the words of a question are repeated for prompts that have to become longer.
REPEATS = (1, 2, 4)
# Tokens that are shown around the first difference.
SHOWN = 4


class MakesPrompts(Protocol):
    """What this gate asks of a scorer."""

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids that the model's own files give a conversation that waits for an answer."""


class PromptCase(NamedTuple):
    """A conversation that waits for an answer, and its tokens in training.

    what: how it is called in messages; grows: whether it is the one before it with more words.
    """

    what: str
    conversation: Conversation
    ids: list[int]
    grows: bool = False


def build_prompt_cases(rows: Sequence[HeldOutRow], renderer: Renderer) -> list[PromptCase]:
    """Prompts of rows, with and without a system turn and tools, and ever longer ones.

    What the training form does not take, or `Conversation`s that it refuses, is left out.
    """
    wanted: list[tuple[str, Conversation, bool]] = []
    for row in rows[:NUM_ROWS]:
        answered = row.conversation
        name = f"row {answered.id}"
        bare = tuple(turn for turn in answered.messages if turn["role"] != "system")
        wanted.append((name, answered, False))
        wanted.append((f"{name} without system turn", replace(answered, messages=bare), False))
        wanted.append(
            (f"{name} with a system turn", replace(answered, messages=(SYSTEM, *bare)), False)
        )
        wanted.append((f"{name} with a tool", replace(answered, tools=(TOOL,)), False))
    words = _question_words(rows)
    for times in REPEATS:
        question: Message = {"role": "user", "content": " ".join([words] * times)}
        longer = Conversation(id="", messages=(question, ANSWER))
        wanted.append((f"a question of {len(words) * times} letters", longer, times > 1))
    return [
        PromptCase(what, _waiting(one), ids, grows)
        for what, one, grows in wanted
        if (ids := _prompt_ids(renderer, one))
    ]


def judge_prompt(cases: Sequence[PromptCase], scorer: MakesPrompts, *, name: str) -> GateResult:
    """The gate on the artefact `name`: its prompts are those of training, and grow with them."""
    num_alike = 0
    faults: list[str] = []
    lengths: list[int] = []
    for case in cases:
        try:
            ids = [int(id) for id in scorer.prompt_ids(case.conversation)]
        except UserError as error:
            faults.append(f"{case.what}: {error.what}")
            lengths.append(0)
            continue
        num_alike += ids == case.ids
        if ids != case.ids:
            faults.append(f"{case.what}: {first_difference(case.ids, ids)}")
        if case.grows and len(ids) <= lengths[-1]:
            faults.append(f"{case.what}: a prompt of more words has no more tokens ({len(ids)})")
        lengths.append(len(ids))
    return GateResult(
        gate="prompt",
        artefact=name,
        outcome="failed" if faults else "passed",
        figures={"num_prompts": len(cases), "num_alike": num_alike},
        limits={"num_alike": len(cases)},
        told=f"{num_alike} of {len(cases)} prompts have the tokens of training in {name}"
        + (
            f"; {faults[0]}. Its tokenizer or chat template is not the one that it was trained "
            "with: put the base model's files there."
            if faults
            else "."
        ),
    )


def first_difference(wanted: Sequence[int], found: Sequence[int]) -> str:
    """Where two lists of tokens part, in words."""
    pairs = zip_longest(wanted, found)
    place = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        return "no difference"
    start = max(0, place - 1)
    return (
        f"token {place + 1} differs: training has {_shown(wanted, start)} of {len(wanted)} tokens, "
        f"the artefact {_shown(found, start)} of {len(found)}"
    )


def _shown(ids: Sequence[int], start: int) -> str:
    part = [str(id) for id in ids[start : start + SHOWN]]
    more = " …" if len(ids) > start + SHOWN else " end"
    return ("… " if start else "") + " ".join(part) + more


def _waiting(answered: Conversation) -> Conversation:
    return replace(answered, messages=answered.messages[:-1], rejected=None)


def _prompt_ids(renderer: Renderer, answered: Conversation) -> list[int]:
    """Tokens in front of the last answer; none where training does not take the conversation."""
    messages = answered.messages
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return []
    if messages[-2]["role"] == "assistant":
        # Answers that follow one another are one stretch of tokens.
        return []
    (rendered,) = renderer.render([answered])
    return [] if rendered.problem else _before_last_answer(answered, rendered)


def _before_last_answer(answered: Conversation, rendered: Rendered) -> list[int]:
    row = HeldOutRow(
        answered, np.array(rendered.input_ids, np.int32), np.array(rendered.assistant_mask, np.int8)
    )
    return [int(id) for id in row.prompt_ids]


def _question_words(rows: Sequence[HeldOutRow]) -> str:
    texts = (
        turn["content"]
        for row in rows
        for turn in row.conversation.messages
        if turn["role"] == "user" and isinstance(turn["content"], str)
    )
    return next((text.strip() for text in texts if text.strip()), "Which one is it?")[:400]
