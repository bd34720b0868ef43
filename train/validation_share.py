"""Validation batches dealt to the processes that train together, as many to each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from transformers.data.data_collator import DataCollator

from train.batches import IGNORED


class Share(NamedTuple):
    """The rows of one batch; is_filler: it stands in for one that there is not."""

    items: list[dict[str, Any]]
    is_filler: bool


def validation_share(
    items: Sequence[dict[str, Any]],
    collate: DataCollator,
    *,
    batch_rows: int,
    rank: int,
    num_processes: int,
) -> DataLoader[Any]:
    """Every `num_processes`-th batch from `rank` on; where one is lacking, a batch without labels.

    accelerate's own loader repeats rows to make shares equal, and then cuts the gathered losses to
    the number of rows: a last batch of fewer rows would count for less than its labels.
    """
    starts = range(0, len(items), batch_rows)
    batches = [Share(list(items[start : start + batch_rows]), False) for start in starts]
    filler = batches[0]._replace(is_filler=True)
    mine = batches[rank::num_processes]
    mine += [filler] * (-(-len(batches) // num_processes) - len(mine))

    def collate_share(share: Share) -> dict[str, Any]:
        batch: dict[str, Any] = collate(share.items)
        if share.is_filler:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch

    return DataLoader(mine, batch_size=None, collate_fn=collate_share)  # type: ignore[arg-type]
