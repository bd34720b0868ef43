"""The domain's tasks: the run's own held-out rows, and further sets that a configuration names."""

import logging
from collections.abc import Sequence
from pathlib import Path

from configs.data_schema import DataSource, MixtureSource, MultipleChoiceShape, PresetSource
from configs.errors import UserError
from configs.evaluation_schema import EvaluationConfig, Judging, MetricName, TaskConfig
from configs.schema import RunConfig
from data.conversation import Conversation, text_of
from data.presets import find_preset
from data.steps.preparation import label_of
from evals.metrics.choice import offered_options
from evals.prompts import asked_text
from evals.related_rows import OWN_ROWS, clusters_of, known_places, licence_of
from evals.rows import load_rows, question_turns
from evals.source_rows import load_set
from evals.task import EvaluationTask, Question
from evals.worked_examples import load_examples

logger = logging.getLogger(__name__)


def load_own_task(config: RunConfig, data_folder: Path) -> EvaluationTask:
    """The first `evaluation.num_samples` test rows, with worked examples of the rows to train on.

    data_folder: what the data stage has written. Errors: `UserError` for files that cannot be read,
    and where there are fewer than two rows, or fewer plain training rows than examples.
    """
    settings = config.evaluation
    file = data_folder / "test.parquet"
    rows = load_rows(file, limit=settings.num_samples)
    _check_enough(rows, name=settings.task, where=str(file))
    questions = _build_questions(rows, settings, label=OWN_ROWS, data_folder=data_folder)
    credit = licence_of(OWN_ROWS, data_folder)
    examples = load_examples(
        data_folder / "train.parquet", settings.num_examples, seed=settings.seed
    )
    return EvaluationTask(
        name=settings.task,
        role="primary",
        metric=settings.metric or tell_metric(config.data.source, questions),
        questions=questions,
        examples=tuple(examples),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        num_epochs=settings.num_epochs,
        rubric=settings.rubric or "",
        licence=credit.licence,
        attribution=credit.attribution,
    )


def load_task(task: TaskConfig, *, config: RunConfig, data_folder: Path) -> EvaluationTask:
    """A further set's rows as `load_set` chooses them, with examples of its own rows to train on.

    Errors: `UserError` as the data stage tells them; where fewer than two rows can be asked; and
    where the data stage has not compared the set with the rows to train on.
    """
    settings = config.evaluation
    label = label_of(task.source)
    found = load_set(task, config)
    _check_enough(found.rows, name=task.name, where=f"evaluation.tasks: {task.name}")
    questions = _build_questions(found.rows, task, label=label, data_folder=data_folder)
    asked = {asked_text(question.messages) for question in questions}
    examples = found.examples.choose(settings.num_examples, asked=asked)
    _warn_of_missing_examples(task.name, len(examples), settings)
    credit = licence_of(label, data_folder)
    return EvaluationTask(
        name=task.name,
        role="primary" if task.primary else "exploratory",
        metric=task.metric or tell_metric(task.source, questions),
        questions=questions,
        examples=tuple(examples),
        max_tokens=task.max_tokens or settings.max_tokens,
        temperature=settings.temperature,
        num_epochs=settings.num_epochs,
        rubric=task.rubric or "",
        licence=credit.licence,
        attribution=credit.attribution,
    )


def tell_metric(source: DataSource, questions: Sequence[Question]) -> MetricName:
    """The metric that a source is scored by where none is configured.

    That of its papers where it is a preset; else by what its rows expect: tool calls, one of the
    lettered options, or a text.
    """
    if isinstance(source, MixtureSource):
        told = {tell_metric(part.source, questions) for part in source.parts}
        return told.pop() if len(told) == 1 else _metric_of_rows(questions)
    if isinstance(source, PresetSource):
        return find_preset(source).metric
    if isinstance(getattr(source, "shape", None), MultipleChoiceShape):
        return "choice"
    return _metric_of_rows(questions)


def _metric_of_rows(questions: Sequence[Question]) -> MetricName:
    if any(question.reference.get("tool_calls") for question in questions):
        return "tool_call"
    if all(text_of(one.reference).strip() in offered_options(one) for one in questions):
        return "choice"
    return "normalized_match"


def _build_questions(
    rows: Sequence[Conversation], judging: Judging, *, label: str, data_folder: Path
) -> tuple[Question, ...]:
    clusters = clusters_of(rows, data_folder)
    known = known_places(label, {row.where for row in rows}, data_folder)
    check = {"json_schema": judging.json_schema} if judging.json_schema is not None else {}
    return tuple(
        Question(
            id=row.id,
            messages=question_turns(row),
            reference=row.messages[-1],
            cluster=cluster,
            tools=row.tools,
            is_known=row.where in known,
            check=check,
        )
        for row, cluster in zip(rows, clusters, strict=True)
    )


def _check_enough(rows: Sequence[Conversation], *, name: str, where: str) -> None:
    if len(rows) < 2:
        raise UserError(
            f"a comparison needs at least two rows; {name} has {len(rows)} that can be asked",
            where=where,
            remedy="give more rows, or hold more of them out by data.test_fraction",
        )


def _warn_of_missing_examples(name: str, num_found: int, settings: EvaluationConfig) -> None:
    if num_found < settings.num_examples:
        logger.warning(
            "%s: the baseline's second prompt has %d worked examples instead of %d: the set has no "
            "more rows that could be shown",
            name,
            num_found,
            settings.num_examples,
        )
