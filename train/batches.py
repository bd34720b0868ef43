"""Micro-batches without padding: all rows behind one another, each knowing where it begins."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from train.rows import Rows

IGNORED = -100
# From the messages of rows, as JSON, to the model's inputs for their images.
ReadImages = Callable[[Sequence[str]], dict[str, torch.Tensor]]


class FlatCollator:
    """Collates items `{"rows": [number, …]}` to one flat row of `num_tokens` tokens.

    input_ids, labels, position_ids: shape (1, num_tokens); positions start again at 0 with every
    row, labels are `IGNORED` where the loss is not taken, so also on the first token of every row,
    which the last one of the row before would else have to foresee. cu_seq_lens_q and _k: where the
    rows begin, and the end, int32 of shape (num_rows + 1,); max_length_q and _k: the longest row.
    These are the names under which transformers hands them through to the attention.
    """

    def __init__(self, rows: Rows, read_images: ReadImages | None = None) -> None:
        self._rows = rows
        self._read_images = read_images

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Any]:  # noqa: D102
        rows = self._rows
        numbers = [number for item in items for number in item["rows"]]
        spans = [rows.span(number) for number in numbers]
        ids = np.concatenate([rows.input_ids[span] for span in spans]).astype(np.int64)
        mask = np.concatenate([rows.assistant_mask[span] for span in spans])
        bounds = np.cumsum([0, *(span.stop - span.start for span in spans)])
        lengths = np.diff(bounds)
        labels = np.where(mask == 1, ids, IGNORED)
        labels[bounds[:-1]] = IGNORED
        boundaries = torch.from_numpy(bounds.astype(np.int32))
        longest = int(lengths.max())
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids)[None],
            "labels": torch.from_numpy(labels)[None],
            "position_ids": torch.from_numpy(np.arange(len(ids)) - np.repeat(bounds[:-1], lengths))[
                None
            ],
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": longest,
            "max_length_k": longest,
        }
        messages = [rows.images[number] for number in numbers if number in rows.images]
        if messages:
            assert self._read_images is not None, "rows with images, and nothing to read them"
            batch |= self._read_images(messages)
        return batch
