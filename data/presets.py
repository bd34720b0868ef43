"""Public data sets by name: where they are, how their rows read, and how they are scored.

Those that are a loading script on the hub, which `datasets` no longer runs, are read by their data
files. Where the commit is known it is fixed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.data_schema import (
    HubDataSource,
    MultipleChoiceShape,
    PresetSource,
    QuestionAnswerShape,
    Shape,
    TemplateShape,
)
from configs.errors import UserError
from configs.evaluation_schema import MetricName

PUBMEDQA_TEST_IDS = Path(__file__).parent / "official_splits" / "pubmedqa.txt"
LEX_GLUE = "coastalcph/lex_glue"
LEX_GLUE_REVISION = "c23fdff1a6bf74e0e1a71cb86f1e781d37da888c"
LEX_GLUE_PAPER = "Chalkidis et al. 2022, LexGLUE, arXiv 2110.00976"
LEX_GLUE_CHECKED = "columns, splits and licence: data set card"
LEX_GLUE_QUESTIONS = {
    "ledgar": "Which kind of contract provision is this? Answer with its title.",
    "scotus": "Which issue area does this opinion fall into? Answer with its number, 1 to 13.",
    "unfair_tos": "Which kinds of unfair terms does this sentence hold? Answer with their names, "
    "separated by commas, or with none.",
    "ecthr_a": "Which articles of the European Convention on Human Rights were violated? Answer "
    "with their numbers, separated by commas, or with none.",
    "ecthr_b": "Which articles of the European Convention on Human Rights are said to have been "
    "violated? Answer with their numbers, separated by commas, or with none.",
}
# What the tasks' own prompts show of a row, in their order; a task has some of these columns.
LEGALBENCH_COLUMNS = (
    ("Statute", "statute"),
    ("Policy", "policy"),
    ("Claim", "claim"),
    ("Bill", "bill_title"),
    ("Summary", "bill_summary"),
    ("Company", "company_name"),
    ("Business", "company_description"),
    ("Contract", "contract"),
    ("Text", "text"),
    ("Description", "description"),
    ("Citation", "citation"),
    ("Circuit", "circuit"),
    ("Question", "question"),
    *((str(number), f"choice_{number}") for number in range(5)),
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A public data set.

    files: by split, the pattern of its files, where the hub cannot tell. metric: by which answers
    are scored, after what its papers report. size: rows by split. checked: against what id,
    columns, splits and licence were held.
    """

    source: HubDataSource
    metric: MetricName
    size: str
    checked: str
    files: Mapping[str, str] = field(default_factory=dict)


def find_preset(config: PresetSource) -> Preset:
    """The configured data set.

    Errors: `UserError` for a subset that is missing, not offered, or given to a data set that is
    one whole.
    """
    if config.name == "legalbench":
        return _legalbench(_subset(config, example="hearsay"))
    if config.name == "lex_glue":
        return _lex_glue(_subset(config, example="ledgar"))
    if config.name == "mmlu":
        return _mmlu(_subset(config, example="professional_law"))
    if config.subset is not None:
        raise UserError(
            f"the preset {config.name} has no subsets",
            where="data.source.subset",
            remedy="leave `subset` out",
        )
    return PRESETS[config.name]


def _subset(config: PresetSource, *, example: str) -> str:
    if config.subset is None or not re.fullmatch(r"[\w,-]+", config.subset):
        raise UserError(
            f"the preset {config.name} needs the name of a task",
            where="data.source.subset",
            remedy=f"set `subset`, such as `subset: {example}`",
        )
    return config.subset


def _letters(
    question: str,
    options: str | list[str],
    answer: str,
    *,
    context: str | None = None,
    instruction: str = "Answer with the letter.",
) -> MultipleChoiceShape:
    return MultipleChoiceShape(
        kind="multiple_choice",
        question=question,
        options=options,
        answer=answer,
        context=context,
        instruction=instruction,
    )


def _answers(
    question: str, answer: str, instruction: str, *, context: str | None = None
) -> QuestionAnswerShape:
    return QuestionAnswerShape(
        kind="question_answer",
        question=question,
        answer=answer,
        context=context,
        instruction=instruction,
    )


def _case_hold() -> Preset:
    return Preset(
        source=HubDataSource(
            kind="hub",
            id=LEX_GLUE,
            subset="case_hold",
            revision=LEX_GLUE_REVISION,
            validation_split="validation",
            test_split="test",
            shape=_letters(
                "context",
                "endings",
                "label",
                instruction="Which holding belongs in the place of <HOLDING>? "
                "Answer with the letter.",
            ),
            licence="CC-BY-4.0",
            attribution=f"Zheng et al. 2021, CaseHOLD, arXiv 2104.08671; {LEX_GLUE_PAPER}",
        ),
        # Papers give macro F1 over the options' places, which their random order makes the same.
        metric="choice",
        size="45,000 train, 3,900 validation, 3,600 test",
        checked=LEX_GLUE_CHECKED,
    )


def _lex_glue(subset: str) -> Preset:
    if subset == "case_hold":
        return _case_hold()
    if subset not in LEX_GLUE_QUESTIONS:
        raise UserError(
            f"the task {subset!r} of LexGLUE is not offered",
            where="data.source.subset",
            remedy=f"one of: case_hold, {', '.join(LEX_GLUE_QUESTIONS)}",
        )
    answer = "label" if subset in ("ledgar", "scotus") else "labels"
    return Preset(
        source=HubDataSource(
            kind="hub",
            id=LEX_GLUE,
            subset=subset,
            revision=LEX_GLUE_REVISION,
            validation_split="validation",
            test_split="test",
            shape=_answers("text", answer, LEX_GLUE_QUESTIONS[subset]),
            licence="CC-BY-4.0",
            attribution=LEX_GLUE_PAPER,
        ),
        metric="macro_f1",
        size="ledgar 60,000/10,000/10,000; scotus 5,000/1,400/1,400; unfair_tos "
        "5,532/2,275/1,607; ecthr_a and ecthr_b 9,000/1,000/1,000",
        checked=LEX_GLUE_CHECKED,
    )


def _legalbench(subset: str) -> Preset:
    columns = ", ".join(f'("{name}", {column})' for name, column in LEGALBENCH_COLUMNS)
    shape: Shape = TemplateShape(
        kind="template",
        prompt=f"Task: {subset.replace('_', ' ')}\n"
        f"{{% for name, value in [{columns}] if value is defined and value %}}\n"
        "{{ name }}: {{ value }}{% endfor %}",
        answer="{{ answer }}",
    )
    return Preset(
        source=HubDataSource(
            kind="hub",
            id="nguha/legalbench",
            subset=subset,
            revision="daec8237410aa23e3faf4bc41ad8b3a7e1696826",
            test_split="test",
            id_column="index",
            shape=shape,
            licence="differs by task (see arXiv 2308.11462, appendix)",
            attribution="Guha et al. 2023, LegalBench, arXiv 2308.11462, and the tasks' authors",
        ),
        metric="normalized_match",
        size="162 tasks, 856 train and 90,894 test in all: meant for evaluation",
        checked="columns: the tasks' own prompts; splits and licence: data set card",
    )


def _mmlu(subset: str) -> Preset:
    return Preset(
        source=HubDataSource(
            kind="hub",
            id="cais/mmlu",
            subset=subset,
            # The split called auxiliary_train is of other data sets; dev is for worked examples.
            train_split="dev",
            validation_split="validation",
            test_split="test",
            shape=_letters("question", "choices", "answer"),
            licence="MIT",
            attribution="Hendrycks et al. 2020, MMLU, arXiv 2009.03300",
        ),
        metric="choice",
        size="57 subjects of 5 train (dev), 285 train, 1,531 validation and 14,042 test in all; "
        "professional_law 1,534 test: meant for evaluation",
        checked="columns, splits and licence: data set cards, its own and of a copy; no fixed "
        "commit",
    )


PRESETS: dict[str, Preset] = {
    "pubmedqa": Preset(
        source=HubDataSource(
            kind="hub",
            id="qiaojin/PubMedQA",
            subset="pqa_labeled",
            revision="9001f2853fb87cab8d220904e0de81ac6973b318",
            id_column="pubid",
            test_ids_path=PUBMEDQA_TEST_IDS,
            shape=_answers(
                "question",
                "final_decision",
                "Answer with yes, no or maybe.",
                context="context",
            ),
            licence="MIT",
            attribution="Jin et al. 2019, PubMedQA, arXiv 1909.06146",
        ),
        metric="macro_f1",
        size="500 train, 500 test (the official ids)",
        checked="columns, splits and licence: data set card; test ids: the original repository",
    ),
    "medqa": Preset(
        source=HubDataSource(
            kind="hub",
            id="GBaker/MedQA-USMLE-4-options",
            revision="0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18",
            test_split="test",
            shape=_letters("question", "options", "answer_idx"),
            licence="CC-BY-4.0",
            attribution="Jin et al. 2020, What Disease does this Patient Have?, arXiv 2009.13081",
        ),
        metric="choice",
        size="10,178 train, 1,273 test",
        checked="columns, splits and licence: data set card",
    ),
    "medmcqa": Preset(
        source=HubDataSource(
            kind="hub",
            id="openlifescienceai/medmcqa",
            revision="91c6572c454088bf71b679ad90aa8dffcd0d5868",
            # The split called test has no keys; papers report on this one.
            test_split="validation",
            shape=_letters("question", ["opa", "opb", "opc", "opd"], "cop"),
            licence="Apache-2.0",
            attribution="Pal et al. 2022, MedMCQA, arXiv 2203.14371",
        ),
        metric="choice",
        size="182,822 train, 4,183 test (the official validation split)",
        checked="columns, splits and licence: data set card",
    ),
    "casehold": _case_hold(),
    "cuad_qa": Preset(
        source=HubDataSource(
            kind="hub",
            id="theatticusproject/cuad-qa",
            # The hub's own conversion to Parquet; the data set itself is a script.
            revision="d9c4ee0250ae2eb97bdb5b50773ab14ea62d0631",
            test_split="test",
            group_column="title",
            shape=TemplateShape(
                kind="template",
                prompt="{{ context }}\n\n{{ question }}\n\nAnswer with the words of the contract, "
                "each part on a line of its own, or with none.",
                answer="{{ answers.text | unique(case_sensitive=true) | join('\n') or 'none' }}",
            ),
            licence="CC-BY-4.0",
            attribution="The Atticus Project; Hendrycks et al. 2021, CUAD, arXiv 2103.06268",
        ),
        files={"train": "default/train/*.parquet", "test": "default/test/*.parquet"},
        metric="token_f1",
        size="22,450 train (408 contracts), 4,182 test (102 contracts); most rows are long",
        checked="columns, splits and licence: data set card; Parquet files: users' reports",
    ),
    "barexam_qa": Preset(
        source=HubDataSource(
            kind="hub",
            id="reglab/barexam_qa",
            revision="b7c245a7e4739f6c785faa2489e283c8daa449d1",
            validation_split="validation",
            test_split="test",
            id_column="idx",
            group_column="prompt_id",
            shape=_letters(
                "question",
                ["choice_a", "choice_b", "choice_c", "choice_d"],
                "answer",
                context="prompt",
            ),
            licence="CC-BY-SA-4.0",
            attribution="Zheng et al. 2025, legal retrieval benchmarks, arXiv 2505.03970",
        ),
        files={name: f"data/qa/{name}.csv" for name in ("train", "validation", "test")},
        metric="choice",
        size="954 train, 124 validation, 117 test",
        checked="columns, licence: data set card; files and row counts: users' reports",
    ),
    "techqa": Preset(
        source=HubDataSource(
            kind="hub",
            id="nvidia/TechQA-RAG-Eval",
            revision="0b5bbc84b7f07d6d09d063130e90b716d8d4a32a",
            # A question that the documents do not answer gives an empty answer: a reject.
            shape=TemplateShape(
                kind="template",
                prompt="{% for part in contexts %}{{ part.text }}\n\n{% endfor %}{{ question }}"
                "\n\nAnswer from the text above.",
                answer="{{ '' if is_impossible else answer }}",
            ),
            licence="Apache-2.0",
            attribution="IBM TechQA, Castelli et al. 2020, arXiv 1911.02984; NVIDIA's selection",
        ),
        files={"train": "train.json"},
        metric="token_f1",
        size="910 rows, 610 of them with an answer; no official split",
        checked="file and licence: the repository's listing; columns: users' programs",
    ),
    "nl2bash": Preset(
        source=HubDataSource(
            kind="hub",
            id="GWHed/nl2bash",
            validation_split="validation",
            test_split="test",
            shape=_answers("nl", "bash", "Answer with one Bash command and nothing else."),
            licence="MIT",
            attribution="Lin et al. 2018, NL2Bash, arXiv 1802.08979",
        ),
        files={
            "train": "data/train-*.parquet",
            "validation": "data/dev-*.parquet",
            "test": "data/test-*.parquet",
        },
        metric="command",
        size="8,090 train, 609 validation, 606 test",
        checked="columns and splits: data set card (a copy in Parquet of jiacheng-ye/nl2bash, "
        "which is a script); licence: the original repository; no fixed commit",
    ),
}
