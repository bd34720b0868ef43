"""The data section of a configuration: sources, shapes of their rows, splits and checks.

This module imports no machine-learning library, so that a configuration is checked before anything
heavy is loaded.
"""

from typing import Annotated, Literal

from pydantic import Field

from configs.section import LocalPath, Section

Paths = LocalPath | list[LocalPath]


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
    "mmlu",
]


class PresetSource(Section):
    """A public data set by name, with its hub id, columns, splits, licence and metric."""

    kind: Literal["preset"]
    """Selects this source."""
    name: PresetName
    """Which one; docs/data.md lists them."""
    subset: str | None = None
    """Task within the collection, for `legalbench`, `lex_glue` and `mmlu`."""


class VotesSource(Section):
    """Blind votes that the workbench has kept: pairs of a chosen and a rejected answer."""

    kind: Literal["votes"]
    """Selects this source."""
    path: Paths
    """File of votes, glob or list of them: `runs/NAME/serve/votes.jsonl`."""
    chosen_models: list[str] | None = Field(default=None, min_length=1)
    """Use only votes for an answer of one of these models, as requests name them: a host may not
    allow that its answers are trained on. All when absent."""
    rejected_models: list[str] | None = Field(default=None, min_length=1)
    """Use only votes against an answer of one of these models; all when absent."""
    licence: str = "not stated"
    """Licence of prompts and answers, for the reports."""
    attribution: str = ""
    """Whom to credit, for the reports."""


_OneSource = (
    LicenceNoticesSource
    | Icd10Source
    | AwsCliSource
    | FilesSource
    | ParallelLinesSource
    | HubDataSource
    | PresetSource
    | VotesSource
)
SingleSource = Annotated[_OneSource, Field(discriminator="kind")]


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


DataSource = Annotated[_OneSource | MixtureSource, Field(discriminator="kind")]


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
    tasks: list[SingleSource] = Field(default=[])
    """Evaluation sets beside the run's own test rows; none of their rows is trained on."""


PersonalDataKind = Literal["email", "phone", "ssn", "card", "iban", "medical_record", "name"]


class PersonalDataConfig(Section):
    """What to do with e-mail addresses, phone and account numbers and the like."""

    action: Literal["report", "mask", "drop"] = "report"
    """Count and tell them, put a placeholder in their place, or leave the row out."""
    kinds: list[PersonalDataKind] = Field(
        default=["email", "phone", "ssn", "card", "iban", "medical_record"]
    )
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
