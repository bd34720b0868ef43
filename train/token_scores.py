"""What TRL's DPO asks of the head about each token, in tiles, for devices without Triton."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from train.head_loss import TILE_LOGITS


class TokenScores(NamedTuple):
    """Of each token, by the names that TRL's fused head gives them, in fp32.

    log_probs: its log-probability; entropy: of the distribution that it was drawn from, in nats;
    mean_logits: over the vocabulary; is_top1: whether it is the likeliest.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor
    mean_logits: torch.Tensor
    is_top1: torch.Tensor


def score_tokens(hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor) -> TokenScores:
    """The scores, of shape (positions,), of `targets` by `head(hidden)`; log_probs has a gradient.

    hidden: (positions, hidden_size); targets: (positions,), token ids. Never more than a tile of
    logits is held: the backward pass computes each one's again.
    """
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    tile = max(1, TILE_LOGITS // weight.shape[0])
    parts = [
        checkpoint(_score_tile, states, head, ids, use_reentrant=False)
        for states, ids in zip(hidden.split(tile), targets.split(tile), strict=True)
    ]
    return TokenScores(*(torch.cat(scores) for scores in zip(*parts, strict=True)))


def _score_tile(hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor) -> TokenScores:
    logits = head(hidden).float()
    log_probs = logits.log_softmax(dim=-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        mean_logits, is_top1 = logits.mean(dim=-1), logits.argmax(dim=-1) == targets
    return TokenScores(log_probs.gather(-1, targets[:, None])[:, 0], entropy, mean_logits, is_top1)
