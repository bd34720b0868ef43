"""Prepared rows for the training tests, on the tiny model's own tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerBase

from configs.schema import TrainConfig
from data.conversation import question_and_answer
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer, render_conversations
from tests.tiny_mistral3 import build_tiny_mistral3
from train.job import TrainFiles

COLOURS = ["blue", "green", "red", "white", "black", "grey", "yellow"]


# Not for the session: other tests in the same process look into the real cache.
@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """NF4 copies of the tests' models go where pytest cleans up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_mistral3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Mistral3 without a tokenizer; read-only by agreement."""
    return build_tiny_mistral3(tmp_path_factory.mktemp("models") / "mistral3")


@pytest.fixture(params=["llama", "mistral3"])
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoint: Path, tiny_mistral3: Path) -> Path:
    """One family after the other."""
    return tiny_checkpoint if request.param == "llama" else tiny_mistral3


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_checkpoint)


@pytest.fixture
def train_config() -> TrainConfig:
    return TrainConfig(
        num_steps=6,
        batch_rows=4,
        micro_batch_rows=2,
        learning_rate=5e-3,
        warmup_steps=1,
        save_every_steps=2,
        validate_every_steps=3,
    )


@pytest.fixture
def train_files(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> TrainFiles:
    conversations = [
        question_and_answer(
            f"Which colour is number {number}?" + " Say it." * (number % 5),
            f"The answer is {COLOURS[number % len(COLOURS)]}" + "." * (number % 3),
            id=str(number),
        )
        for number in range(40)
    ]
    rendered = render_conversations(conversations, load_renderer(tokenizer), max_length=256)
    table = pa.table(
        {
            "id": [row.id for row in conversations],
            "where": [f"colours.jsonl:{number}" for number in range(1, 41)],
            "messages": [orjson.dumps(row.messages).decode() for row in conversations],
            "input_ids": [one.input_ids for one in rendered],
            "assistant_mask": [one.assistant_mask for one in rendered],
        }
    )
    pq.write_table(table.slice(0, 32), tmp_path / "train.parquet")
    pq.write_table(table.slice(32), tmp_path / "validation.parquet")
    return TrainFiles(
        tmp_path / "train.parquet",
        tmp_path / "validation.parquet",
        tmp_path / "checkpoints",
        tmp_path / "trackers",
        tmp_path / "adapter",
    )
