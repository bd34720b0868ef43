"""One adapter that was trained for real, and what reference and base say of held-out rows."""

from pathlib import Path
from typing import NamedTuple

import pytest

from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer
from tests.train.gates.tiny_adapter import (
    TinyRun,
    build_outspoken_checkpoint,
    build_rows,
    train_adapter,
)
from train.gates.open_model import open_checkpoint, open_with_adapters
from train.gates.prompt import PromptCase, build_prompt_cases
from train.gates.run import Measured, measure


class Judged(NamedTuple):
    """What every artefact is held to."""

    base: Measured
    reference: Measured
    cases: list[PromptCase]


@pytest.fixture(scope="session")
def tiny_run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    folder = tmp_path_factory.mktemp("gates")
    checkpoint = build_outspoken_checkpoint(tiny_checkpoint, folder / "checkpoint")
    adapter = train_adapter(checkpoint, folder / "adapter", num_steps=40)
    return TinyRun(checkpoint, adapter, build_rows(checkpoint, range(100, 116)))


@pytest.fixture(scope="session")
def judged(tiny_run: TinyRun) -> Judged:
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        base = measure(scorer, tiny_run.rows)
    with open_with_adapters(tiny_run.checkpoint, [(tiny_run.adapter, 1.0)], base="bf16") as scorer:
        reference = measure(scorer, tiny_run.rows)
    renderer = load_renderer(load_tokenizer(tiny_run.checkpoint))
    return Judged(base, reference, build_prompt_cases(tiny_run.rows, renderer))
