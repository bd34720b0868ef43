"""The configuration of serving: who answers under which name, on what terms."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.evaluation_schema import Price
from configs.section import LocalPath, Section

TargetName = Literal["variant", "base", "hosted"]
Percent = Annotated[float, Field(gt=0, lt=100)]


class LlamaCppConfig(Section):
    """llama.cpp, in a process of its own: CPUs, Macs, consumer cards."""

    kind: Literal["llamacpp"] = "llamacpp"
    """Selects this engine."""


class VllmConfig(Section):
    """vLLM, from an environment of its own, on the artefact that `artefact` names."""

    kind: Literal["vllm"]
    """Selects this engine."""
    command: list[str] = Field(default=["vllm"], min_length=1)
    """How vLLM is called, such as `[/opt/vllm/bin/vllm]`; `serve` and its options follow."""
    artefact: Literal["w4a16", "bf16"] = "w4a16"
    """What it loads; one of `merge.artefacts`."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Cards that each layer is split over."""
    memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a card's memory that it may take."""
    further_arguments: list[str] = Field(default_factory=list)
    """Added to its command line as they stand."""


EngineConfig = Annotated[LlamaCppConfig | VllmConfig, Field(discriminator="kind")]


class HostedConfig(Section):
    """A model behind another OpenAI-compatible host, for routes that lead there."""

    base_url: str = Field(pattern=r"^https?://")
    """Address in front of `/chat/completions`."""
    model: str
    """Model name sent there."""
    api_key_env: str | None = None
    """Environment variable that holds the key; none is sent when absent."""
    max_requests: int = Field(default=64, ge=1)
    """Requests sent there at the same time."""
    context_length: int | None = Field(default=None, ge=1)
    """Its context in tokens, shown in the models list; unknown when absent."""
    price: Price | None = None
    """What it costs, shown in the models list; unknown when absent."""


class ReplicasConfig(Section):
    """Equal engines behind one interface."""

    count: int = Field(default=1, ge=0)
    """Engines on this host, each with cards (vLLM) or a share of the threads (llama.cpp) of its
    own; 0 where `hosts` alone answer."""
    hosts: list[Annotated[str, Field(pattern=r"^https?://")]] = Field(default_factory=list)
    """Further hosts that answer to the same model names: addresses in front of
    `/chat/completions`."""
    api_key_env: str | None = None
    """Environment variable that holds the hosts' key; none is sent when absent."""
    max_requests: int = Field(default=64, ge=1)
    """Requests sent to each host at the same time."""
    routing: Literal["prefix", "least_loaded"] = "prefix"
    """What begins alike goes to the same engine, unless that is busier than the others, or every
    request to the engine with the fewest."""

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.count and not self.hosts:
            raise ValueError("count 0 needs hosts")
        return self

    @property
    def are_several(self) -> bool:
        """Whether there is anything to choose between."""
        return self.count + len(self.hosts) > 1 or not self.count


class RouteConfig(Section):
    """Who answers under a model name."""

    to: TargetName = "variant"
    """Who answers."""
    split: dict[TargetName, Percent] = Field(default_factory=dict)
    """Percent of the clients that someone else answers; always the same one for the same client."""
    shadow: TargetName | None = None
    """Also asked, unseen by the client; both answers are recorded for comparison."""
    fallback: TargetName | None = None
    """Answers where the chosen one is overloaded or down."""

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if self.to in self.split:
            raise ValueError(f"split gives {self.to} a share, which already has the rest by `to`")
        if sum(self.split.values()) > 100:
            raise ValueError("split gives away more than 100 percent")
        if self.to in (self.shadow, self.fallback):
            raise ValueError(f"shadow and fallback must differ from `to` ({self.to})")
        return self

    @property
    def targets(self) -> set[TargetName]:
        """Everyone that a request under this name may reach."""
        others = {self.shadow, self.fallback} - {None}
        return {self.to, *self.split, *others}  # type: ignore[arg-type]


class RecordingConfig(Section):
    """What is kept of shadowed requests, below the run directory in `serve/recordings/`."""

    texts: bool = False
    """Keep prompts and answers, not only their lengths, times and whether they agree."""
    keep_days: float = Field(default=7.0, gt=0)
    """Records are deleted after this time."""


class ServeConfig(Section):
    """The completion interface."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    engine: EngineConfig = LlamaCppConfig()
    """What answers for variant and base."""
    replicas: ReplicasConfig = ReplicasConfig()
    """How many of it, and where."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of llama.cpp; one fewer than the cores (at least 1) when absent."""
    context_length: int = Field(default=2048, ge=128)
    """Tokens of prompt and answer together, per request."""
    num_slots: int = Field(default=1, ge=1)
    """Requests answered at the same time; 1 keeps temperature 0 reproducible to the token."""
    max_waiting: int = Field(default=64, ge=0)
    """Requests that may wait for a slot; one more is told to come back later (429)."""
    aliases: list[str] = Field(default_factory=list)
    """Further names of the variant, such as `mistral-small-2503`."""
    routes: dict[str, RouteConfig] = Field(default_factory=dict)
    """Who answers under other model names, or under those of the variant."""
    hosted: HostedConfig | None = None
    """The host that routes to `hosted` lead to."""
    recordings: RecordingConfig = RecordingConfig()
    """What shadowed requests leave behind."""
    api_keys_path: LocalPath | None = None
    """File of the keys that clients need, made by `tunery keys add`; none are asked for when
    absent."""
    workbench: bool | None = None
    """Serve the page at `/`, which also shows reports and samples of the runs; when absent, unless
    other machines reach the server without a key."""
    image_urls: bool = True
    """Fetch images from public https addresses, besides those in `data:` URLs."""
    max_body_mib: int = Field(default=32, ge=1)
    """Largest request body in MiB."""
    keep_alive_s: float = Field(default=10.0, gt=0)
    """Seconds of silence in a stream after which a comment keeps the connection open."""
    silence_s: float = Field(default=300.0, gt=0)
    """Seconds without a sign from the engine after which a request is given up (503)."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that running requests get to end once the server is asked to stop."""

    @model_validator(mode="after")
    def _check_hosted_given(self) -> Self:
        for name, route in self.routes.items():
            if "hosted" in route.targets and self.hosted is None:
                raise ValueError(f"routes.{name} leads to `hosted`: say where in serve.hosted")
        return self
