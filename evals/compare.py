"""The stage: asks both sides the same held-out questions and writes down who answers better."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inspect_ai import Task

from configs.errors import UserError
from configs.run_directory import write_whole
from configs.schema import EvaluationConfig, RunConfig
from data.cache import WRITE_ERRORS, disk_error
from data.conversation import Conversation
from evals.asking import Answer, Progress, ask
from evals.report import render_report
from evals.results import (
    ZERO_SHOT,
    ComparisonResult,
    Evidence,
    build_result,
    count_changed_answers,
    name_prompt,
)
from evals.rows import load_rows
from evals.targets import Target
from evals.tasks import build_task, choose_examples


def evaluate(
    *,
    config: RunConfig,
    variant: Target,
    baseline: Target,
    test_file: Path,
    train_file: Path,
    folder: Path,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Compare `variant` with `baseline` on the first test rows; write comparison.json, report.html.

    test_file and train_file: parquet as `load_rows` reads it; folder: also holds the inspect logs,
    from which a killed evaluation goes on; progress: gets answers so far and answers in all. The
    baseline is judged by the better of two prompts, without and with worked examples; the variant
    answers without. comparison.json is a function of the answers alone. Errors: `UserError` for
    rows that cannot be used, a target that does not answer, or a variant that answers exactly as
    its own base; nothing is written then but the logs.
    """
    settings = config.evaluation
    rows = load_rows(test_file)[: settings.num_samples]
    if len(rows) < 2:
        raise UserError(
            f"a comparison needs at least two test rows; there are {len(rows)}",
            where=test_file,
            remedy="raise data.test_fraction or give more rows",
        )
    examples = choose_examples(load_rows(train_file), settings.num_examples, seed=settings.seed)
    asking = _Asking(folder=folder, settings=settings, num_rows=len(rows), progress=progress)
    evidence = _gather(asking, rows=rows, examples=examples, variant=variant, baseline=baseline)
    result = build_result(evidence, settings=settings, baseline=baseline, variant=variant)
    report = render_report(result["tasks"][0], config=config, evidence=evidence)
    try:
        write_whole(folder / "report.html", report)
        # Last, because its presence says that the evaluation is complete.
        write_whole(folder / "comparison.json", json.dumps(result, indent=2) + "\n")
    except OSError as error:
        if error.errno in WRITE_ERRORS:
            raise disk_error(error, folder) from error
        raise
    return result


@dataclass(kw_only=True)
class _Asking:
    """Asks one side after the other and adds their progress up."""

    folder: Path
    settings: EvaluationConfig
    num_rows: int
    progress: Progress | None
    num_finished_sides: int = 0

    def ask(self, target: Target, task: Task, *, side: str) -> list[Answer]:
        answers = ask(
            target,
            task,
            log_dir=self.folder / "logs" / side.replace(" ", "-"),
            max_connections=self.settings.max_connections,
            progress=self._report,
        )
        self.num_finished_sides += 1
        return answers

    def _report(self, num_done: int, _: int) -> None:
        if self.progress is not None:
            num_sides = 3 if self.settings.num_examples else 2
            num_before = self.num_finished_sides * self.num_rows
            self.progress(num_before + num_done, num_sides * self.num_rows)


def _gather(
    asking: _Asking,
    *,
    rows: Sequence[Conversation],
    examples: Sequence[Conversation],
    variant: Target,
    baseline: Target,
) -> Evidence:
    """All answers; both sides' zero-shot ones first, because they show whether to go on."""
    name, max_tokens = asking.settings.task, asking.settings.max_tokens
    # Both are built before anything is asked, so that a leaking example costs no answer.
    zero_shot = build_task(rows, name=name, max_tokens=max_tokens)
    with_examples = build_task(rows, name=name, examples=examples, max_tokens=max_tokens)
    theirs = asking.ask(baseline, zero_shot, side=f"baseline {ZERO_SHOT}")
    ours = asking.ask(variant, zero_shot, side=f"variant {ZERO_SHOT}")
    _check_same_questions(theirs, ours)
    if asking.settings.baseline.kind == "base":
        _check_adapter_acts(theirs, ours, variant)
    by_prompt = {ZERO_SHOT: theirs}
    if examples:
        prompt = name_prompt(len(examples))
        by_prompt[prompt] = asking.ask(baseline, with_examples, side=f"baseline {prompt}")
    return Evidence(baseline=by_prompt, variant=ours, examples=examples)


def _check_same_questions(baseline: Sequence[Answer], variant: Sequence[Answer]) -> None:
    """Compare what the logs say was sent: a paired comparison of different questions is none."""
    for theirs, ours in zip(baseline, variant, strict=True):
        asked = [(side.id, side.question, side.reference) for side in (theirs, ours)]
        assert asked[0] == asked[1], f"the sides were not asked the same: {asked}"


def _check_adapter_acts(
    baseline: Sequence[Answer], variant: Sequence[Answer], target: Target
) -> None:
    if count_changed_answers(baseline, variant) == 0:
        raise UserError(
            "the served variant answers exactly as the base: the adapter is not acting "
            f"(all {len(variant)} answers are equal)",
            where=f"{target.base_url}, model {target.model}",
            remedy="see that the address serves this run's merged artefact, and that training "
            "moved the adapter (its loss fell)",
        )
