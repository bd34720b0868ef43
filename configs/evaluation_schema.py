"""The configuration of the evaluation: who is asked what, how answers are judged, what decides.

This module imports no machine-learning library, so that a configuration is checked before anything
heavy is loaded.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from configs.data_schema import SingleSource
from configs.section import LocalPath, Section

MetricName = Literal[
    "exact_match",
    "normalized_match",
    "choice",
    "macro_f1",
    "token_f1",
    "rouge_l",
    "json_schema",
    "tool_call",
    "command",
    "checks",
    "rubric",
    "pairwise",
]
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Role = Literal["primary", "exploratory", "guard"]
GuardSetName = Literal[
    "knowledge",
    "reasoning",
    "arithmetic",
    "instructions",
    "languages",
    "formats",
    "tool_calls",
    "refusals",
]


class Price(Section):
    """What a host asks for tokens; for the preview, the costs and the break-even."""

    input_per_million: float = Field(ge=0)
    """Price of a million prompt tokens."""
    output_per_million: float = Field(ge=0)
    """Price of a million tokens of answers."""
    currency: str = "USD"
    """In which currency."""


class OwnCost(Section):
    """What the machine that serves the variant costs, whether it is asked much or little."""

    per_month: float = Field(ge=0)
    """Rent, or price over its years of use, plus power, for one month."""
    currency: str = "USD"
    """In which currency."""


class BaseBaseline(Section):
    """Compare with the untuned base model, served by the same engine."""

    kind: Literal["base"] = "base"
    """Selects this baseline."""


class HostedBaseline(Section):
    """Compare with a model behind an OpenAI-compatible address."""

    kind: Literal["hosted"]
    """Selects this baseline."""
    base_url: str = Field(default="https://hub.oxen.ai/api/ai", pattern=r"^https?://")
    """Address in front of `/chat/completions`."""
    model: str = "mistral-small-2503"
    """Model name sent in the request."""
    api_key_env: str | None = "OXEN_API_KEY"
    """Environment variable that holds the key, which itself never stands in a file; null where the
    host asks for none."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The host's limit, kept from this side; only its 429s are heeded when absent."""
    price: Price | None = None
    """What it costs; previews and break-even need it."""
    max_cost: float | None = Field(default=None, gt=0)
    """Nothing is asked where the preview expects more than this, in the price's currency."""

    @model_validator(mode="after")
    def _check_price_given(self) -> Self:
        if self.max_cost is not None and self.price is None:
            raise ValueError("max_cost is held against a preview, which needs price")
        return self


class RecordedBaseline(Section):
    """Compare with answers that `tunery evaluate --record` has kept, without key or network."""

    kind: Literal["recorded"]
    """Selects this baseline."""
    path: LocalPath
    """The recording; relative paths start at the configuration file's folder."""
    price: Price | None = None
    """What the host asked for tokens; the recording's own price when absent."""


Baseline = Annotated[BaseBaseline | HostedBaseline | RecordedBaseline, Field(discriminator="kind")]


class JudgeConfig(Section):
    """A model that judges answers, best of another family than those that it judges."""

    base_url: str = Field(pattern=r"^https?://")
    """Address in front of `/chat/completions`."""
    model: str
    """Model name sent in the request."""
    api_key_env: str | None = None
    """Environment variable that holds the key; none is sent when absent."""
    max_tokens: int = Field(default=512, ge=16)
    """Longest judgement in tokens."""
    max_connections: int = Field(default=4, ge=1)
    """Requests in flight to it."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The host's limit, kept from this side."""


class Judging(Section):
    """How the answers to one task are judged."""

    metric: MetricName | None = None
    """Told by the preset or the rows' shape when absent; else normalized_match."""
    json_schema: dict[str, Any] | None = None
    """Schema that answers have to follow, for metric json_schema."""
    rubric: str | None = None
    """What a good answer does, for metric rubric and, as guidance, for pairwise."""


class TaskConfig(Judging):
    """A further task of the domain: an evaluation set beside the run's own test rows."""

    name: str
    """Name in the reports."""
    source: SingleSource
    """Where the rows come from; the test split where it has one, else all of them. `tunery prepare`
    keeps them out of the training rows."""
    primary: bool = True
    """Whether the verdict rests on it, besides the own test rows; otherwise it is only told."""
    num_samples: int = Field(default=200, ge=2)
    """Rows asked; all of them when there are fewer."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens; evaluation.max_tokens when absent."""


class GuardConfig(Section):
    """Tasks outside the domain, on which the variant must not fall behind its own base."""

    sets: list[GuardSetName] = Field(
        default=["arithmetic", "instructions", "languages", "formats", "tool_calls", "refusals"]
    )
    """Which ones; none when empty. `knowledge` and `reasoning` are fetched from the package
    index."""
    num_samples: int = Field(default=100, ge=2)
    """Questions asked of each; with far fewer, equal models seldom pass (docs/evaluation.md)."""
    max_tokens: int = Field(default=128, ge=1)
    """Longest answer in tokens."""
    margin: float = Field(default=0.05, gt=0, lt=1)
    """Loss of the mean score (as a share of 1) from which on it counts as fallen behind."""


class EvaluationConfig(Judging):
    """The comparison of the served variant with the baseline on held-out rows."""

    task: str
    """Name of the own test rows' task in the reports."""
    baseline: Baseline = BaseBaseline()
    """What the variant has to beat."""
    tasks: list[TaskConfig] = Field(default_factory=list)
    """Further tasks."""
    guard: GuardConfig = GuardConfig()
    """What the adapter may have cost outside the domain."""
    judge: JudgeConfig | None = None
    """Who judges, for metrics rubric and pairwise."""
    own_cost: OwnCost | None = None
    """What serving the variant costs; the break-even needs it."""
    num_samples: int = Field(default=200, ge=2)
    """Test rows asked; all of them when there are fewer."""
    num_examples: int = Field(default=4, ge=0)
    """Worked examples in the baseline's second prompt; it is judged by its better prompt."""
    max_tokens: int = Field(default=48, ge=1)
    """Longest answer in tokens."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature for both sides."""
    num_epochs: int = Field(default=1, ge=1)
    """Times that each question is asked; the mean of its scores counts."""
    max_connections: int = Field(default=1, ge=1)
    """Requests in flight to each side."""
    equivalence_margin: float = Field(default=0.03, gt=0, lt=1)
    """Differences inside ± this (as a share of 1) count as equivalent."""
    promote_on: list[Verdict] = Field(default=["better"], min_length=1)
    """Verdicts on which the variant is recommended, where the guard set holds."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the interval; the test's level is one minus this."""
    num_resamples: int = Field(default=10_000, ge=1000)
    """Random exchanges of the sides in permutation tests."""
    seed: int = Field(default=17, ge=0)
    """Seed of the permutations, of the guard questions' order and of the choice of examples."""

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        names = [self.task, *(task.name for task in self.tasks)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"tasks: two are called {name!r}, by which reports tell them")
        if self.num_epochs > 1 and self.temperature == 0:
            raise ValueError(
                "num_epochs averages what sampling makes of the same question: it needs "
                "temperature above 0"
            )
        _check_judging("evaluation", self, has_judge=self.judge is not None)
        for task in self.tasks:
            _check_judging(f"tasks: {task.name}", task, has_judge=self.judge is not None)
        return self


def _check_judging(where: str, one: Judging, *, has_judge: bool) -> None:
    if one.metric in ("rubric", "pairwise") and not has_judge:
        raise ValueError(f"{where}: metric {one.metric} needs evaluation.judge")
    if one.metric == "rubric" and not one.rubric:
        raise ValueError(f"{where}: metric rubric needs `rubric`")
    if one.metric == "json_schema" and one.json_schema is None:
        raise ValueError(f"{where}: metric json_schema needs `json_schema`")
    if one.metric == "checks":
        raise ValueError(f"{where}: metric checks is that of the guard sets, whose rows hold them")
