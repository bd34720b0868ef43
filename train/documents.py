"""Attention within documents that share one flat row, without a mask of tokens by tokens."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

NAME = "documents"
# Up to here plain matrix products beat torch's fused attention on a CPU, whose backward is slow on
# short rows; beyond it their weights, heads × tokens², would count in memory.
SHORT_TOKENS = 256
# Since torch 2.12; before it each key and value head has to be repeated.
TAKES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


def attend_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document, in the form of transformers' attention interface.

    query: (1, heads, tokens, head_dim); key, value: the same with fewer heads where these are
    grouped; cu_seq_lens_q: where documents begin, and the end, int32 of shape (documents + 1,);
    max_length_q: tokens of the longest. Returns (1, tokens, heads, head_dim).

    On CUDA one call of torch's variable-length flash attention; elsewhere document by document.
    The work grows with the sum of squared lengths, the memory with the tokens alone.
    """
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None:
        raise ValueError("attention within documents needs their boundaries and takes no mask")
    if dropout or (sliding_window is not None and sliding_window < max_length_q):
        raise ValueError("attention within documents has neither dropout nor a sliding window")
    groups = query.shape[1] // key.shape[1]
    if query.is_cuda:
        options: Any = {"enable_gqa": True} if TAKES_GROUPS and groups > 1 else {}
        if not TAKES_GROUPS:
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        attended = varlen_attn(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1, 0),
            **options,
        )
        assert isinstance(attended, torch.Tensor)
        return attended[None], None
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    lengths = cu_seq_lens_q.diff().tolist()
    documents = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    attended = torch.cat([_attend_one(q, k, v, scaling) for q, k, v in documents], dim=2)
    return attended.transpose(1, 2).contiguous(), None


def _attend_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    num_tokens = query.shape[2]
    if num_tokens > SHORT_TOKENS:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    scores = query @ key.transpose(2, 3) * scaling
    future = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=query.device).triu(1)
    scores = scores.masked_fill(future, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return weights @ value


AttentionInterface.register(NAME, attend_documents)
