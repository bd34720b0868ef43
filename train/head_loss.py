"""Language-model head and cross-entropy in tiles of positions, for devices without Triton."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

# Numbers of one tile of logits: 64 MiB in fp32, 128 positions of a vocabulary of 131,072.
TILE_LOGITS = 2**24


def head_loss(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of `head(hidden)` against `targets`, summed over positions, in fp32.

    hidden: (positions, hidden_size), only those that have a target; targets: (positions,), token
    ids. Where more than one tile is needed, each one's logits are computed again in the backward
    pass, so that never more than a tile of them is held.
    """
    vocabulary = head.weight.shape[0]
    tile = max(1, TILE_LOGITS // vocabulary)
    pairs = list(zip(hidden.split(tile), targets.split(tile), strict=True))
    if len(pairs) == 1:
        return _tile_loss(hidden, head, targets)
    losses = [checkpoint(_tile_loss, part, head, ids, use_reentrant=False) for part, ids in pairs]
    return torch.stack(losses).sum()


def _tile_loss(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
