"""The result of an evaluation as `comparison.json` holds it; a function of the answers alone."""

from typing import NotRequired, TypedDict

from configs.evaluation_schema import MetricName, Role, Verdict

ZERO_SHOT = "zero-shot"


class PromptResult(TypedDict):
    """How a model did with one prompt on one task; score and interval are shares of 1.

    num_correct: None where scores lie between 0 and 1; tokens: sums over all answers, None where
    the host does not report them; seconds: of one request, median and 95th percentile, None where
    unknown; num_cut: answers that ended at the token limit.
    """

    prompt: str
    score: float
    interval: list[float]
    num_correct: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    median_seconds: float | None
    p95_seconds: float | None
    num_cut: int


class SideResult(PromptResult):
    """One side of the comparison: `model` as requests name it, `name` as reports do."""

    model: str
    name: str


class BaselineResult(SideResult):
    """The baseline with its better prompt, and every prompt that it was given."""

    prompts: list[PromptResult]


class CleanResult(TypedDict):
    """The same comparison without the questions that the rows to train on give away."""

    num_samples: int
    baseline_score: float
    variant_score: float
    delta: float
    interval: list[float]


class JudgeResult(TypedDict):
    """How the judge worked.

    flip_rate: share of pairs whose verdict hung on the order (those count as ties); None for a
    rubric; length_difference: variant's mean answer length over the baseline's, in characters,
    minus 1; num_unreadable: judgements without a verdict, which count as ties or 0; facts and
    warnings: the same in sentences, and why to doubt it, once the task has a result.
    """

    model: str
    flip_rate: float | None
    length_difference: float
    num_unreadable: int
    facts: NotRequired[list[str]]
    warnings: NotRequired[list[str]]


class NonInferiorityResult(TypedDict):
    """One-sided: passed where `lower_bound` of the difference lies above minus `margin`."""

    margin: float
    lower_bound: float
    passed: bool


class TaskResult(TypedDict):
    """One task; delta, interval, effects and margin are shares of 1.

    adjusted_p_value: Holm's over the primary tasks, Benjamini and Hochberg's over the exploratory
    and over the guard tasks; verdict: by the adjusted one; num_samples_to_settle: questions with
    which a difference as large as that seen would be found with 80 % power, None where the verdict
    stands or nothing was seen; num_answers_changed: of those to the same messages (zero-shot).
    """

    name: str
    role: Role
    metric: MetricName
    metric_title: str
    licence: str
    num_samples: int
    num_clusters: int
    num_epochs: int
    baseline: BaselineResult
    variant: SideResult
    delta: float
    interval: list[float]
    standard_error: float
    p_value: float
    adjusted_p_value: float
    minimum_detectable_effect: float
    num_samples_to_settle: int | None
    verdict: Verdict
    num_won: int
    num_lost: int
    num_tied: int
    num_answers_changed: int
    num_known: int
    clean: CleanResult | None
    non_inferiority: NonInferiorityResult | None
    judge: JudgeResult | None
    interval_method: str
    test_method: str


class GuardResult(TypedDict):
    """Variant against its own base over all guard tasks, each with the same weight."""

    base_score: float
    variant_score: float
    delta: float
    non_inferiority: NonInferiorityResult
    worse_tasks: list[str]


class NotAsked(TypedDict):
    """A task that could not be asked, and why."""

    name: str
    why: str


class SideCost(TypedDict):
    """What the answers of one side took; cost: None without a price, or for a machine of one's own.

    per_request: cost of one mean request of the domain's tasks.
    """

    name: str
    num_requests: int
    prompt_tokens: int | None
    completion_tokens: int | None
    median_seconds: float | None
    p95_seconds: float | None
    cost: float | None
    per_request: float | None
    currency: str | None


class CostResult(TypedDict):
    """What asking cost, and from how many requests a month on one's own machine is cheaper.

    own_per_month and break_even_requests: None where evaluation.own_cost or a price is not given;
    own_capacity_requests: requests that the variant answers in a month at its measured mean
    latency, one after another.
    """

    sides: list[SideCost]
    own_per_month: float | None
    break_even_requests: int | None
    own_capacity_requests: int | None
    currency: str | None


class VoteResult(TypedDict):
    """Blind votes between two models, from the side of `model`; share and interval are of 1.

    share: of votes for it, those that found both equal or both bad counted half; interval, p_value
    and adjusted_p_value (Benjamini and Hochberg's over all pairs): None for a single vote; verdict:
    better, worse or inconclusive, by the adjusted one; num_voters: keys, or addresses where no keys
    are asked for; num_shown_first: votes in which its answer stood first; days: in UTC, ISO 8601.
    """

    model: str
    other: str
    num_votes: int
    num_won: int
    num_lost: int
    num_tied: int
    num_both_bad: int
    num_prompts: int
    num_voters: int
    num_shown_first: int
    share: float
    interval: list[float] | None
    p_value: float | None
    adjusted_p_value: float | None
    verdict: Verdict
    interval_method: str
    test_method: str
    first_day: str
    last_day: str
    warnings: list[str]


class ComparisonResult(TypedDict):
    """The whole file; reasons: the rule's steps in words, each ending in what it decided.

    votes: of the workbench, where the run has any; the verdict does not rest on them.
    """

    run: str
    verdict: Verdict
    promote: bool
    reasons: list[str]
    tasks: list[TaskResult]
    guard: GuardResult | None
    not_asked: list[NotAsked]
    cost: CostResult
    confidence: float
    equivalence_margin: float
    promote_on: list[Verdict]
    votes: NotRequired[list[VoteResult]]
