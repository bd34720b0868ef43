"""What to change when training does not fit: cheapest in time first.

Training itself goes down the same list when memory runs out, so nothing in it changes the result.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from configs.schema import TrainConfig

# An MLP's weights are dequantized again for every tile, and a tile has to be worth that.
LARGEST_TILE_TOKENS = 4096
SMALLEST_TILE_TOKENS = 512

Device = Literal["cuda", "cpu"]


class Relief(NamedTuple):
    """A configuration that needs less memory than the one before it, for the same result.

    told: what was changed last, as it would stand in the configuration.
    """

    told: str
    config: TrainConfig


def reliefs(
    train: TrainConfig, *, device: Device, tied_embeddings: bool, tokens_per_micro_batch: int
) -> Iterator[Relief]:
    """Configurations that give the same result up to rounding, each built on the one before.

    In order of their cost in time: smaller micro-batches, recomputation, offload of activations,
    tiles for the MLP, smaller tiles, offload of the embedding. Those already taken are left out.

    tied_embeddings: the head is the input embedding, which then has to stay where the head is;
    tokens_per_micro_batch: tokens of `train`'s own micro-batches, at most.
    """
    tokens_per_row = -(-tokens_per_micro_batch // train.micro_batch_rows)
    for rows in _smaller_divisors(train.batch_rows, below=train.micro_batch_rows):
        train = _with(train, micro_batch_rows=rows)
        yield Relief(f"micro_batch_rows: {rows}", train)
    if not train.gradient_checkpointing:
        train = _with(train, gradient_checkpointing=True)
        yield Relief("gradient_checkpointing: true", train)
    if device == "cuda" and not train.offload_activations:
        train = _with(train, offload_activations=True)
        yield Relief("offload_activations: true", train)
    for tile in _tiles(train, tokens=tokens_per_row * train.micro_batch_rows):
        train = _with(train, mlp_tile_tokens=tile)
        yield Relief(f"mlp_tile_tokens: {tile}", train)
    if device == "cuda" and not tied_embeddings and not train.offload_embedding:
        train = _with(train, offload_embedding=True)
        yield Relief("offload_embedding: true", train)


def sacrifices(train: TrainConfig, *, device: Device) -> Iterator[Relief]:
    """Configurations that need less memory and change the result, each built on the one before.

    In order of what they are likely to cost in quality: 8-bit optimizer states, a bf16 adapter,
    half the rank. Shorter conversations, the last resort, are no matter of `train`.
    """
    if train.optimizer == "adamw_torch":
        train = _with(train, optimizer="paged_adamw_8bit" if device == "cuda" else "adamw_8bit")
        yield Relief(f"optimizer: {train.optimizer}", train)
    if train.lora.dtype == "float32":
        train = _with(train, lora=train.lora.model_copy(update={"dtype": "bfloat16"}))
        yield Relief("lora.dtype: bfloat16", train)
    if train.lora.rank > 8:
        lora = {"rank": train.lora.rank // 2, "alpha": max(1, train.lora.alpha // 2)}
        train = _with(train, lora=train.lora.model_copy(update=lora))
        yield Relief(f"lora.rank: {train.lora.rank}, lora.alpha: {train.lora.alpha}", train)


def _smaller_divisors(number: int, *, below: int) -> Iterator[int]:
    """Divisors of `number`, each the largest that is at most half of the one before."""
    while below > 1:
        below = next(n for n in range(below // 2, 0, -1) if number % n == 0)
        yield below


def _tiles(train: TrainConfig, *, tokens: int) -> Iterator[int]:
    """Ever smaller powers of two, each of which cuts what has been computed at once by half."""
    if train.lora.dropout:
        return
    at_once = min(tokens, train.mlp_tile_tokens or tokens)
    tile = LARGEST_TILE_TOKENS
    while tile >= SMALLEST_TILE_TOKENS:
        if 2 * tile <= at_once:
            yield tile
        tile //= 2


def _with(train: TrainConfig, **changes: Any) -> TrainConfig:  # noqa: ANN401 - fields of any type
    """A checked copy of `train`."""
    return TrainConfig.model_validate({**train.model_dump(), **changes})
