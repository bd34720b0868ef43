"""Asks every side its questions, free sides before those that cost, and checks on the way."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from configs.errors import UserError
from configs.evaluation_schema import EvaluationConfig
from evals.asking import ask
from evals.evidence import TaskEvidence
from evals.judge.judging import apply_judgements, build_judge_tasks
from evals.metrics.registry import METRICS
from evals.preflight import (
    Check,
    check_adapter_acts,
    check_hosted,
    check_same_text,
    preflight_questions,
)
from evals.prompts import name_prompt_of
from evals.recording import check_matches, open_recording
from evals.results import JudgeResult, NotAsked
from evals.sides import (
    Prompted,
    SideName,
    Sides,
    count_questions,
    of_baseline,
    of_guards,
    of_variant,
)
from evals.targets import Target
from evals.task import Answer, EvaluationTask

MODELS_TIMEOUT_S = 10.0

Answers = Mapping[str, Sequence[Answer]]
ReportProgress = Callable[[int, int], None]


@dataclass(kw_only=True)
class Gathered:
    """Everything that was asked and answered.

    answers: by side, then by the inspect task's name; targets: who answered; judged: how the judge
    worked, by task; judgements: what it replied.
    """

    tasks: Sequence[EvaluationTask]
    evidence: list[TaskEvidence] = field(default_factory=list)
    not_asked: list[NotAsked] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    judged: dict[str, JudgeResult] = field(default_factory=dict)
    prompted: dict[SideName, list[Prompted]] = field(default_factory=dict)
    answers: dict[SideName, Answers] = field(default_factory=dict)
    targets: dict[SideName, Target] = field(default_factory=dict)
    judgements: list[Answer] = field(default_factory=list)


@dataclass(kw_only=True)
class Gathering:
    """One evaluation's asking.

    log_dir: the inspect logs, from which a killed one goes on; checks: what was checked before.
    """

    sides: Sides
    settings: EvaluationConfig
    log_dir: Path
    checks: Sequence[Check] = ()
    progress: ReportProgress | None = None
    _num_before: int = 0
    _num_all: int = 0

    def gather(self, tasks: Sequence[EvaluationTask]) -> Gathered:
        """Ask all sides. Errors: `UserError` for what the checks find or a side that fails."""
        assert self.sides.variant is not None, "there is no variant to compare"
        found = Gathered(tasks=tasks, checks=list(self.checks))
        self._check_baseline(found)
        self._num_all = self._count(tasks)
        preflight = self._preflight(tasks[0])
        if self.sides.base is not None:
            domain = of_baseline(tasks) if self.sides.baseline is None else []
            self._ask(found, "base", self.sides.base(), [*domain, *of_guards(tasks), *preflight])
        ours = [*of_variant(found.tasks), *preflight]
        self._ask(found, "variant", self.sides.variant(), ours)
        self._check_adapter(found, preflight)
        self._check_judge(found)
        if self.sides.baseline is not None:
            baseline = nullcontext(self.sides.baseline)
            self._ask(found, "baseline", baseline, of_baseline(found.tasks))
        self._check_same_text(found)
        found.evidence = [self._evidence(found, task) for task in found.tasks]
        self._judge(found)
        return found

    def ask_baseline(self, tasks: Sequence[EvaluationTask]) -> Gathered:
        """Ask the hosted side alone, to be recorded."""
        assert self.sides.baseline is not None, "there is nobody to record"
        found = Gathered(tasks=tasks)
        self._check_baseline(found)
        self._num_all = count_questions(of_baseline(tasks))
        self._ask(found, "baseline", nullcontext(self.sides.baseline), of_baseline(tasks))
        return found

    def _check_baseline(self, found: Gathered) -> None:
        target = self.sides.baseline
        if target is None:
            return
        if target.recording is not None:
            asked = [(one.task, one.with_examples) for one in of_baseline(found.tasks)]
            recording = open_recording(target.recording)
            check_matches(recording, asked)
            found.checks.append(
                Check("recording", True, f"{recording.describe()}; asked the same as now")
            )
        else:
            found.checks += check_hosted(target)

    def _check_judge(self, found: Gathered) -> None:
        """That the judge answers, before anybody is paid."""
        needed = any(METRICS[task.metric].is_judged for task in found.tasks)
        if needed and self.sides.judge is not None:
            checks = check_hosted(self.sides.judge)
            found.checks += [check._replace(name=f"judge's {check.name}") for check in checks]

    def _preflight(self, own: EvaluationTask) -> list[Prompted]:
        """A few questions that show whether the adapter acts, before anything is paid for.

        None where the base is asked the whole task anyway, and without sampling.
        """
        is_needed = self.sides.baseline is not None or self.settings.temperature > 0
        if self.sides.base is None or not is_needed:
            return []
        few = preflight_questions(own)
        return [Prompted(replace(few, name=f"{own.name}, preflight"), False)]

    def _count(self, tasks: Sequence[EvaluationTask]) -> int:
        """Answers that all sides together have to give."""
        num_base = 0
        if self.sides.base is not None:
            num_base = count_questions([*of_guards(tasks), *2 * self._preflight(tasks[0])])
        return num_base + count_questions([*of_baseline(tasks), *of_variant(tasks)])

    def _ask(
        self,
        found: Gathered,
        side: SideName,
        opened: AbstractContextManager[Target],
        prompted: Sequence[Prompted],
    ) -> None:
        with opened as target:
            if side != "baseline":
                refused = _leave_out_what_it_cannot(found, target)
                prompted = [one for one in prompted if one.task.name not in refused]
                # Nobody who comes later is asked them either.
                self._num_all = self._count(found.tasks)
            found.answers[side] = ask(
                target,
                [one.build() for one in prompted],
                log_dir=self.log_dir / side,
                max_connections=self.settings.max_connections,
                progress=self._report,
            )
        found.prompted[side] = list(prompted)
        found.targets[side] = target
        self._num_before += count_questions(prompted)

    def _report(self, num_done: int, _: int) -> None:
        if self.progress is not None:
            self.progress(self._num_before + num_done, self._num_all)

    def _check_adapter(self, found: Gathered, preflight: Sequence[Prompted]) -> None:
        """The variant's answers against the base's, where the base was asked anything."""
        if self.sides.base is None:
            return
        name = (preflight or of_variant(found.tasks))[0].log_name
        base, ours = (found.answers[side][name] for side in ("base", "variant"))
        found.checks.append(check_adapter_acts(base, ours, found.targets["variant"]))

    def _check_same_text(self, found: Gathered) -> None:
        """What the logs say was sent: a paired comparison of different questions is none."""
        for task in found.tasks:
            side = self._opponent(task)
            names = [Prompted(task, False).log_name]
            check = check_same_text(self.log_dir / side, self.log_dir / "variant", names)
            found.checks.append(check._replace(name=f"{check.name}: {task.name}"))

    def _opponent(self, task: EvaluationTask) -> SideName:
        """Whom the variant is held against."""
        is_base = task.role == "guard" or self.sides.baseline is None
        return "base" if is_base else "baseline"

    def _evidence(self, found: Gathered, task: EvaluationTask) -> TaskEvidence:
        side = self._opponent(task)
        by_prompt = {
            name_prompt_of(one.task, with_examples=one.with_examples): answers
            for one in found.prompted[side]
            if one.task is task
            for answers in [found.answers[side][one.log_name]]
        }
        target = found.targets[side]
        return TaskEvidence(
            task=task,
            baseline_name=target.name,
            baseline_model=target.model,
            baseline=by_prompt,
            variant=found.answers["variant"][Prompted(task, False).log_name],
        )

    def _judge(self, found: Gathered) -> None:
        """Put the judge's scores in the place of those that no program can give."""
        config, target = self.settings.judge, self.sides.judge
        judged = [one for one in found.evidence if METRICS[one.task.metric].is_judged]
        if not judged:
            return
        assert config is not None, "the configuration checks that there is a judge"
        assert target is not None, "the configuration checks that there is a judge"
        tasks = [task for one in judged for task in build_judge_tasks(one, config)]
        replies = ask(
            target,
            tasks,
            log_dir=self.log_dir / "judge",
            max_connections=config.max_connections,
        )
        found.judgements = [answer for answers in replies.values() for answer in answers]
        for number, one in enumerate(found.evidence):
            if METRICS[one.task.metric].is_judged:
                with_scores = apply_judgements(one, replies, config)
                found.evidence[number] = with_scores.evidence
                found.judged[one.task.name] = with_scores.result


def _leave_out_what_it_cannot(found: Gathered, target: Target) -> set[str]:
    """Tasks with tools or images that the served model does not take; they are told as not asked.

    Errors of the request itself show when it is asked in earnest.
    """
    lacking = _what_it_lacks(target)
    refused: set[str] = set()
    for task in found.tasks:
        needs = {
            need
            for question in task.questions
            for need in _needs(question.tools, question.messages)
        }
        if missing := sorted(needs & lacking.keys()):
            if task.role == "primary":
                raise UserError(
                    f"the verdict rests on {task.name!r}, which cannot be asked: "
                    f"{lacking[missing[0]]}",
                    where=f"{target.base_url}, model {target.model}",
                    remedy="leave the task out, or evaluate a model that takes what it needs",
                )
            refused.add(task.name)
            found.not_asked.append(NotAsked(name=task.name, why=lacking[missing[0]]))
    found.tasks = [task for task in found.tasks if task.name not in refused]
    return refused


def _needs(tools: Sequence[object], messages: Sequence[Mapping[str, object]]) -> set[str]:
    parts = [
        part for turn in messages if isinstance(turn["content"], list) for part in turn["content"]
    ]
    needs = {"function_calling"} if tools else set()
    return needs | ({"vision"} if any(part["type"] == "image_url" for part in parts) else set())


def _what_it_lacks(target: Target) -> dict[str, str]:
    """What the models list of our own server says that the model cannot do, and why."""
    answer = httpx.get(
        f"{target.base_url}/models/{target.model}", timeout=MODELS_TIMEOUT_S, trust_env=False
    )
    can = answer.json().get("capabilities", {}) if answer.is_success else {}
    reasons = {
        "function_calling": "the model's chat template has no place for tools",
        "vision": "the model takes no images",
    }
    return {name: why for name, why in reasons.items() if not can.get(name, True)}
