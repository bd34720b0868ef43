"""Preference pairs as training looks them up, and as micro-batches for TRL's DPO."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from configs.errors import UserError
from data.tokens.preference_pairs import last_answer_start
from train.rows import Rows, load_rows

REJECTED = ("rejected_ids", "rejected_mask")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows with their preferred answer and the same rows with their rejected one."""

    preferred: Rows
    rejected: Rows

    def __len__(self) -> int:
        return len(self.preferred)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair, both answers together, shape (num_pairs,)."""
        return np.asarray(self.preferred.lengths + self.rejected.lengths)


class LogProbs(NamedTuple):
    """Log-probabilities of whole answers, float32 of shape (num_pairs,); NaN where not known."""

    preferred: np.ndarray
    rejected: np.ndarray


def load_pairs(file: Path, *, limit: int | None = None) -> Pairs:
    """The pairs of a side as `tunery prepare` wrote them; the first `limit` of them.

    Errors: a `UserError` where there are none, or a row is no pair.
    """
    preferred = load_rows(file, limit=limit)
    if not set(REJECTED).issubset(pq.read_schema(file).names):
        raise UserError(
            "the rows were prepared without the tokens of rejected answers",
            where=file,
            remedy="prepare them again: `tunery prepare`",
        )
    table = pq.read_table(file, columns=list(REJECTED)).slice(0, len(preferred))
    alone = np.flatnonzero(table["rejected_ids"].is_null().to_numpy())
    if len(alone):
        (example,) = preferred.describe([int(alone[0])])
        raise UserError(
            f"method preference needs pairs: {len(alone):,} of {len(preferred):,} rows have no "
            f"rejected answer, such as {example}",
            where=file,
            remedy="give data of shape preference alone, or set train.method: supervised",
        )
    ids, masks = (
        table[name].cast(pa.large_list(kind)).combine_chunks()
        for name, kind in zip(REJECTED, (pa.int32(), pa.int8()), strict=True)
    )
    rejected = Rows(
        file=file,
        input_ids=ids.flatten().to_numpy(),
        assistant_mask=masks.flatten().to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(ids.value_lengths().to_numpy())]),
        images={},
    )
    return Pairs(preferred, rejected)


class PairCollator:
    """Collates items `{"rows": [number]}` of n pairs to the batch that TRL's DPO works on.

    input_ids, attention_mask, completion_mask: int64 of shape (2 n, longest), the preferred answers
    first, padded on the right; completion_mask: 1 on the supervised tokens of the last answer.
    ref_chosen_logps, ref_rejected_logps: float32 of shape (n,), where `reference` is known.
    """

    def __init__(self, pairs: Pairs, *, pad_token_id: int) -> None:
        self._pairs = pairs
        self._pad_token_id = pad_token_id
        self.reference: LogProbs | None = None

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Any]:  # noqa: D102
        numbers = [number for item in items for number in item["rows"]]
        sides = (self._pairs.preferred, self._pairs.rejected)
        rows = [(side, side.span(number)) for side in sides for number in numbers]
        shape = len(rows), max(span.stop - span.start for _, span in rows)
        ids = np.full(shape, self._pad_token_id, np.int64)
        attended, completion = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for place, (side, span) in enumerate(rows):
            length = span.stop - span.start
            mask = side.assistant_mask[span]
            start = last_answer_start(mask)
            ids[place, :length] = side.input_ids[span]
            attended[place, :length] = 1
            completion[place, start:length] = mask[start:]
        batch = {"input_ids": ids, "attention_mask": attended, "completion_mask": completion}
        if self.reference is not None:
            batch["ref_chosen_logps"] = self.reference.preferred[numbers]
            batch["ref_rejected_logps"] = self.reference.rejected[numbers]
        return {name: torch.from_numpy(values) for name, values in batch.items()}
