"""The variants on the public corpora, prepared whole with the tiny model's tokenizer."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.load import load_config
from configs.schema import FolderModel
from data.prepare import prepare
from tests.data.preparing import SIDES

CONFIGS = Path(__file__).parents[2] / "configs" / "corpora"

pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif("TUNERY_CORPORA" not in os.environ, reason="TUNERY_CORPORA is not set"),
]


def prepared(name: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    config = load_config(CONFIGS / f"{name}.yaml")
    source = FolderModel(kind="folder", path=checkpoint)
    model = config.model.model_copy(update={"source": source, "max_length": 8192})
    return prepare(config.model_copy(update={"model": model}), folder)


def places(folder: Path, side: str, column: str = "where") -> list[str]:
    table = pq.read_table(folder / f"{side}.parquet", columns=[column])
    found: list[str] = table.column(column).to_pylist()
    return found


@pytest.mark.parametrize(
    ("name", "num_rows"),
    [
        ("pubmedqa", 1000),
        ("overruling", 2400),
        ("mmlu-law", 1709),
        ("mmlu-medicine", 318),
        ("nl2bash", 12607),
    ],
)
def test_every_row_of_a_corpus_is_accounted_for(
    name: str, num_rows: int, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    facts = prepared(name, tiny_checkpoint, tmp_path / "data")
    assert facts["num_read"] == num_rows
    written = sum(len(places(tmp_path / "data", side)) for side in SIDES)
    assert written + facts["num_rejects"] + sum(facts["dropped"].values()) == num_rows
    # The corpora are sound: what is left out asks what a test row asks.
    assert facts["num_rejects"] < 0.01 * num_rows


def test_pubmedqas_official_test_ids_never_reach_training(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    prepared("pubmedqa", tiny_checkpoint, tmp_path / "data")
    official = json.loads(
        (Path(os.environ["TUNERY_CORPORA"]) / "pubmedqa_test_ids.json").read_text()
    )
    assert len(official) == 500
    assert set(places(tmp_path / "data", "test", "id")) == set(official)
    for side in ("train", "validation"):
        assert not set(places(tmp_path / "data", side, "id")) & set(official)


def test_nl2bashs_near_duplicates_stand_on_one_side(tiny_checkpoint: Path, tmp_path: Path) -> None:
    prepared("nl2bash", tiny_checkpoint, tmp_path / "data")
    side_of = {place: side for side in SIDES for place in places(tmp_path / "data", side)}
    clusters = [json.loads(line)["rows"] for line in (tmp_path / "data" / "clusters.jsonl").open()]
    assert len(clusters) > 1000
    for rows in clusters:
        assert len({side_of[row] for row in rows if row in side_of}) == 1
    assert {side_of[rows[0]] for rows in clusters} == set(SIDES)
