from pathlib import Path

import numpy as np
import pytest
import torch

from train.batches import IGNORED, FlatCollator
from train.rows import Rows


@pytest.fixture
def rows() -> Rows:
    """Three rows of 3, 2 and 4 tokens; the last one is supervised on its first token too."""
    return Rows(
        file=Path("rows.parquet"),
        input_ids=np.array([11, 12, 13, 21, 22, 31, 32, 33, 34], np.int32),
        assistant_mask=np.array([0, 1, 1, 0, 1, 1, 0, 1, 1], np.int8),
        offsets=np.array([0, 3, 5, 9]),
        images={1: "of row 1", 2: "of row 2"},
    )


def test_rows_stand_behind_one_another_and_begin_at_position_0(rows: Rows) -> None:
    collate = FlatCollator(rows, lambda messages: {})
    batch = collate([{"rows": [2, 0]}, {"rows": [1]}])
    assert batch["input_ids"].tolist() == [[31, 32, 33, 34, 11, 12, 13, 21, 22]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 4, 7, 9]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["cu_seq_lens_k"].tolist() == [0, 4, 7, 9]
    assert batch["max_length_q"] == batch["max_length_k"] == 4


def test_no_row_is_to_foresee_the_first_token_of_the_next(rows: Rows) -> None:
    batch = FlatCollator(rows, lambda messages: {})([{"rows": [1, 2, 0]}])
    # Row 2 is supervised on its first token, 31, which only row 1's last one could predict.
    assert batch["labels"].tolist() == [
        [IGNORED, 22, IGNORED, IGNORED, 33, 34, IGNORED, 12, 13],
    ]


def test_images_are_read_in_the_order_of_the_rows(rows: Rows) -> None:
    read: list[list[str]] = []

    def read_images(messages: object) -> dict[str, torch.Tensor]:
        read.append(list(messages))  # type: ignore[call-overload]
        return {"pixel_values": torch.ones(2)}

    collate = FlatCollator(rows, read_images)
    assert "pixel_values" in collate([{"rows": [2]}, {"rows": [0, 1]}])
    assert "pixel_values" not in collate([{"rows": [0]}])
    assert read == [["of row 2", "of row 1"]]
