"""What a preparation has found out about the rows, where there has been one."""

import json
from pathlib import Path
from typing import NamedTuple

from configs.errors import UserError
from configs.schema import ModelConfig


class DataFacts(NamedTuple):
    """Of the training rows: how many, their tokens, and the share that the loss is taken over.

    num_sequences: into how many sequences of `model.max_length` tokens they are packed.
    """

    num_rows: int
    num_tokens: int
    num_sequences: int
    supervised_share: float


def read_data_facts(run: Path, model: ModelConfig) -> DataFacts | None:
    """The facts of a run directory's prepared rows; None where there are none for this model.

    Errors: `UserError` for a damaged file.
    """
    file = run / "data" / "facts.json"
    if not file.is_file():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if (facts["model"], facts["max_length"]) != (model.name, model.max_length):
            return None
        return DataFacts(
            num_rows=facts["num_rows"]["train"],
            num_tokens=facts["num_tokens"]["train"],
            num_sequences=facts["packing"]["num_packs"],
            supervised_share=facts["supervised_share"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "the facts of the prepared rows are damaged",
            where=file,
            remedy="run `tunery prepare` again",
        ) from error
