"""Results and evidence of made-up comparisons, whose scores and counts follow from the answers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from configs.evaluation_schema import MetricName, Role, Verdict
from configs.schema import RunConfig
from data.conversation import Conversation, Message, question_and_answer
from evals.evidence import TaskEvidence
from evals.metrics.registry import METRICS
from evals.preflight import Check
from evals.results import (
    BaselineResult,
    CleanResult,
    ComparisonResult,
    CostResult,
    GuardResult,
    JudgeResult,
    NonInferiorityResult,
    PromptResult,
    SideCost,
    SideResult,
    TaskResult,
)
from evals.task import Answer, EvaluationTask, Question

EVIL = "<script>alert('x')</script> & \"quoted\" `code` | $x_1$ \x1b[31m \ud800 \u202e"
CHAPTERS = ("Diseases of the digestive system", "Diseases of the skin", "Neoplasms")
Write = Callable[[int], str]


def answer(
    n: int, text: str, score: float, *, asked: str, reference: str, **more: object
) -> Answer:
    values: dict[str, Any] = {
        "id": f"row/{n}",
        "epoch": 1,
        "question": asked,
        "reference": reference,
        "text": text,
        "tool_calls": (),
        "score": score,
        "label": text,
        "stop_reason": "stop",
        "prompt_tokens": 80,
        "completion_tokens": 9,
        "seconds": 0.4,
    }
    return Answer(**(values | more))


def build_evidence(
    name: str,
    *,
    num: int = 40,
    role: Role = "primary",
    metric: MetricName = "normalized_match",
    right: tuple[int, int] = (10, 30),
    ask: Write = lambda n: f"Diagnosis {n}. Which chapter?",
    expect: Write = lambda n: CHAPTERS[n % 3],
    miss: Write = lambda n: f"It is {CHAPTERS[(n + 1) % 3].lower()}, I think",
    num_known: int = 0,
    num_examples: int = 4,
    num_epochs: int = 1,
    sides: tuple[str, str] = ("mistral-small-2503", "demo-medical"),
    **task: Any,  # noqa: ANN401
) -> TaskEvidence:
    """right: how many questions each side answers right; the baseline the last, the variant the
    first ones, so that they overlap only where they have to."""
    user: list[Message] = [{"role": "user", "content": ask(n)} for n in range(num)]
    questions = tuple(
        Question(
            id=f"row/{n}",
            messages=(user[n],),
            reference={"role": "assistant", "content": expect(n)},
            cluster=f"row/{n}",
            is_known=n < num_known,
        )
        for n in range(num)
    )
    examples: tuple[Conversation, ...] = ()
    if role != "guard":
        examples = tuple(
            question_and_answer("worked", "example", id=f"train/{n}") for n in range(num_examples)
        )

    def side(is_right: Callable[[int], bool]) -> list[Answer]:
        return [
            answer(
                n,
                expect(n) if is_right(n) else miss(n),
                float(is_right(n)),
                asked=ask(n),
                reference=expect(n),
                epoch=epoch,
            )
            for n in range(num)
            for epoch in range(1, num_epochs + 1)
        ]

    baseline = {"zero-shot": side(lambda n: False)}
    if examples:
        baseline[f"{num_examples} examples"] = side(lambda n: n >= num - right[0])
    else:
        baseline = {"zero-shot": side(lambda n: n >= num - right[0])}
    return TaskEvidence(
        task=EvaluationTask(
            name=name,
            role=role,
            metric=metric,
            questions=questions,
            examples=examples,
            max_tokens=48,
            num_epochs=num_epochs,
            licence="CC BY 4.0",
            **task,
        ),
        baseline_name=sides[0] if role != "guard" else "SmolLM2-135M-Instruct",
        baseline_model=sides[0] if role != "guard" else "base.q8_0",
        baseline=baseline,
        variant=side(lambda n: n < right[1]),
    )


def build_task(
    evidence: TaskEvidence, *, margin: float = 0.03, name: str = "demo-medical", **changed: object
) -> TaskResult:
    """The result of the evidence, with plain normal intervals; any key can be set otherwise."""
    prompts = [_prompt(prompt, answers) for prompt, answers in evidence.baseline.items()]
    best = max(prompts, key=lambda prompt: prompt["score"])
    ours = _prompt("zero-shot", evidence.variant)
    pairs = list(zip(evidence.baseline[best["prompt"]], evidence.variant, strict=True))
    differences = [after.score - before.score for before, after in pairs]
    num = len(differences)
    delta = sum(differences) / num
    error = math.sqrt(sum((one - delta) ** 2 for one in differences) / (num - 1) / num)
    interval = [delta - 1.96 * error, delta + 1.96 * error]
    task = TaskResult(
        name=evidence.task.name,
        role=evidence.task.role,
        metric=evidence.task.metric,
        metric_title=METRICS[evidence.task.metric].title,
        licence=evidence.task.licence,
        num_samples=len(evidence.task.questions),
        num_clusters=len(evidence.task.questions),
        num_epochs=evidence.task.num_epochs,
        baseline=BaselineResult(
            **best,
            model=evidence.baseline_model,
            name=evidence.baseline_name,
            prompts=prompts,
        ),
        variant=SideResult(**ours, model=f"{name}.q8_0", name=name),
        delta=delta,
        interval=interval,
        standard_error=error,
        p_value=0.0002,
        adjusted_p_value=0.0004,
        minimum_detectable_effect=2.8 * error,
        num_samples_to_settle=None,
        verdict=_verdict(interval, margin),
        num_won=sum(one > 0 for one in differences),
        num_lost=sum(one < 0 for one in differences),
        num_tied=sum(one == 0 for one in differences),
        num_answers_changed=num,
        num_known=sum(question.is_known for question in evidence.task.questions),
        clean=None,
        non_inferiority=None,
        judge=None,
        interval_method="percentile bootstrap of the paired differences",
        test_method="exact McNemar test",
    )
    return cast(TaskResult, task | changed)


def build_result(tasks: Sequence[TaskResult], **changed: object) -> ComparisonResult:
    """A whole result; verdict and reasons are given, because only their rendering is tested."""
    result = ComparisonResult(
        run="demo-medical",
        verdict=tasks[0]["verdict"],
        promote=tasks[0]["verdict"] == "better",
        reasons=["better on the only main task", "so: promote"],
        tasks=list(tasks),
        guard=None,
        not_asked=[],
        cost=CostResult(
            sides=[side_cost("mistral-small-2503"), side_cost("demo-medical", seconds=0.2)],
            own_per_month=None,
            break_even_requests=None,
            own_capacity_requests=6_574_500,
            currency=None,
        ),
        confidence=0.95,
        equivalence_margin=0.03,
        promote_on=["better"],
    )
    return cast(ComparisonResult, result | changed)


def side_cost(name: str, *, seconds: float = 0.8, price: float | None = None) -> SideCost:
    return SideCost(
        name=name,
        num_requests=800,
        prompt_tokens=64_000,
        completion_tokens=7_200,
        median_seconds=seconds,
        p95_seconds=2.5 * seconds,
        cost=None if price is None else 800 * price,
        per_request=price,
        currency=None if price is None else "EUR",
    )


def realistic() -> tuple[ComparisonResult, list[TaskEvidence]]:
    """Three main tasks, one further, six outside; contamination, a judge, prices."""
    evidence = [
        build_evidence("diagnosis to chapter", num=200, right=(30, 150), num_known=12),
        build_evidence("PubMedQA", num=500, metric="macro_f1", right=(260, 300)),
        build_evidence(
            "summaries for patients",
            num=80,
            metric="pairwise",
            right=(30, 34),
            expect=lambda n: f"The finding {n} is harmless and needs no treatment for now.",
            miss=lambda n: f"The finding {n} is dangerous and needs treatment right now.",
        ),
        build_evidence("MedMCQA", num=300, role="exploratory", metric="choice", right=(120, 140)),
        *(
            build_evidence(name, num=40, role="guard", metric="checks", right=right)
            for name, right in {
                "arithmetic": (24, 23),
                "instructions": (30, 30),
                "languages": (20, 19),
                "formats": (33, 35),
                "tool calls": (28, 28),
                "refusals": (36, 24),
            }.items()
        ),
    ]
    tasks = [build_task(one) for one in evidence]
    tasks[0] |= {
        "num_clusters": 163,
        "clean": CleanResult(
            num_samples=188,
            baseline_score=0.16,
            variant_score=0.734,
            delta=0.574,
            interval=[0.49, 0.65],
        ),
    }
    for task in (tasks[1], tasks[3]):
        task |= {"num_samples_to_settle": 1_130}
    tasks[2] |= {
        "verdict": "inconclusive",
        "adjusted_p_value": 0.61,
        "num_samples_to_settle": 2_140,
        "judge": JudgeResult(
            model="llama-3.3-70b",
            flip_rate=0.34,
            length_difference=0.41,
            num_unreadable=3,
            facts=[
                "The judge was llama-3.3-70b; it compared both answers in both orders.",
                "Its verdict hung on the order in 34 % of the pairs.",
                "The variant's answers are 41 % longer than the baseline's.",
            ],
            warnings=[
                "The order decided 34 % of the pairs.",
                "Judges lean towards longer answers.",
            ],
        ),
    }
    tasks[2]["variant"]["num_correct"] = tasks[2]["baseline"]["num_correct"] = None
    tasks[2]["variant"]["num_cut"] = 5
    changed: dict[str, object] = {
        "verdict": "better",
        "promote": False,
        "reasons": [
            "diagnosis to chapter: better; PubMedQA, summaries for patients: inconclusive: "
            "no main task is worse and at least one is better, so the verdict is better",
            "guard set: the lower bound −8.1 does not lie above −5.0: not held",
            "the guard set does not hold: do not promote",
        ],
        "guard": GuardResult(
            base_score=0.7125,
            variant_score=0.6625,
            delta=-0.05,
            non_inferiority=NonInferiorityResult(margin=0.05, lower_bound=-0.081, passed=False),
            worse_tasks=["refusals"],
        ),
        "not_asked": [{"name": "knowledge", "why": "its package could not be fetched: no network"}],
        "cost": CostResult(
            sides=[
                side_cost("mistral-small-2503", price=0.00031),
                side_cost("demo-medical", seconds=0.05),
                side_cost("SmolLM2-135M-Instruct", seconds=0.05),
            ],
            own_per_month=180.0,
            break_even_requests=580_646,
            own_capacity_requests=21_915_000,
            currency="EUR",
        ),
    }
    return build_result(tasks, **changed), evidence


def minimal() -> tuple[ComparisonResult, list[TaskEvidence]]:
    evidence = [build_evidence("diagnosis to chapter")]
    return build_result([build_task(one) for one in evidence]), evidence


def many() -> tuple[ComparisonResult, list[TaskEvidence]]:
    """Fifteen main tasks."""
    evidence = [
        build_evidence(f"task number {n} of a domain", num=60, right=(20 + n, 30))
        for n in range(15)
    ]
    return build_result([build_task(one) for one in evidence]), evidence


def hostile() -> tuple[ComparisonResult, list[TaskEvidence]]:
    """Names, questions and answers that try to be markup."""
    evidence = [
        build_evidence(
            f"task {EVIL}",
            ask=lambda n: f"question {n} {EVIL}",
            expect=lambda n: f"</p></article>{EVIL} {n}",
            miss=lambda n: f"</script><img src=http://x.invalid/{n}>{EVIL} {n}",
            sides=(f"theirs {EVIL}", "ours"),
        )
    ]
    result = build_result([build_task(one, name=f"ours {EVIL}") for one in evidence])
    result["reasons"] = [EVIL]
    result["not_asked"] = [{"name": EVIL, "why": EVIL}]
    return result, evidence


def checks() -> list[Check]:
    return [
        Check("hosted side", True, "answers, and knows the model mistral-small-2503"),
        Check("adapter", True, "20 of 20 answers differ from the base's"),
        Check("templates", False, "the tokenizer's own template adds a system turn"),
    ]


def build_config(**evaluation: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "demo-medical",
            "description": "Medical coding: a diagnosis in, its ICD-10-CM chapter out.",
            "model": {
                "name": "SmolLM2-135M-Instruct",
                "licence": "Apache-2.0",
                "source": {"kind": "folder", "path": "/models/smollm2"},
            },
            "data": {"source": {"kind": "icd10_chapters"}},
            "train": {"num_steps": 1},
            "evaluation": {"task": "diagnosis to chapter", **evaluation},
        }
    )


def _prompt(prompt: str, answers: Sequence[Answer]) -> PromptResult:
    score = sum(one.score for one in answers) / len(answers)
    half = 1.96 * math.sqrt(max(score * (1 - score), 0.01) / len(answers))
    return PromptResult(
        prompt=prompt,
        score=score,
        interval=[max(0.0, score - half), min(1.0, score + half)],
        num_correct=sum(one.score == 1 for one in answers),
        prompt_tokens=sum(one.prompt_tokens or 0 for one in answers),
        completion_tokens=sum(one.completion_tokens or 0 for one in answers),
        median_seconds=0.4,
        p95_seconds=0.9,
        num_cut=0,
    )


def _verdict(interval: Sequence[float], margin: float) -> Verdict:
    low, high = interval
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equivalent" if -margin < low and high < margin else "inconclusive"
