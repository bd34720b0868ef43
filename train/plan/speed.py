"""How fast a step can be on the cards that people have: a ceiling, and an estimate below it."""

from typing import NamedTuple

from train.plan.step import BF16, Step


class Card(NamedTuple):
    """A card's memory in GiB, dense bf16 rate with fp32 sums, memory's and PCIe's speed.

    teraflops: 10^12 operations a second; bandwidth, pcie: 10^9 bytes a second, of PCIe in one
    direction.
    """

    name: str
    memory_gib: float
    teraflops: float
    bandwidth: float
    pcie: float


# Peak BF16 tensor rates with FP32 accumulate, without sparsity, and memory speeds, by NVIDIA:
# RTX 4090, L4: "NVIDIA Ada GPU Architecture" (V2); RTX 3090: "NVIDIA Ampere GA102 GPU Architecture"
# (V2), appendix A; RTX A5000, A100 80GB SXM, H100 SXM: their datasheets (A5000 222.2 and H100 1,979
# with sparsity). GeForce cards sum in fp32 at half the rate of the same chip's workstation card.
# Memory as nvidia-smi tells it: an L4's is less what its error correction takes.
CARDS = (
    Card("RTX 4090", 24.0, 165.2, 1008, 32),
    Card("RTX 3090", 24.0, 71.0, 936, 32),
    Card("RTX A5000", 24.0, 111.1, 768, 32),
    Card("L4", 22.5, 121.0, 300, 32),
    Card("A100 80GB", 80.0, 312.0, 2039, 32),
    Card("H100 80GB", 79.6, 989.4, 3350, 64),
)
# An assumption, not measured here: what is reached of the ceiling. torchtune publishes 2,413
# tokens/s for QLoRA of an 8B model on an RTX 4090 (sequences of 2,048 tokens, compiled), which is
# 0.75 of this module's ceiling with recomputation, and that compiling a 3B model gives 27 %.
REACHED_SHARE = 0.5
# Bytes of a 4-bit weight with its scales. From this many tokens on bitsandbytes dequantizes a
# weight before it multiplies (backends/cuda/ops.py): read in 4 bits, written in bf16, read again.
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / 64 / 256
DEQUANTIZED_FROM = 1537
MLP = ("gate_proj", "up_proj", "down_proj")


class Speed(NamedTuple):
    """Tokens a second on a card: the ceiling, and the estimate."""

    card: Card
    ceiling: float
    estimate: float


def estimate_speed(step: Step, card: Card) -> Speed:
    """From the arithmetic of a micro-batch and the bytes that its weights move.

    Offloaded activations move beside the arithmetic; they count where they take longer.
    """
    tokens = step.batch.num_tokens
    seconds = count_operations(step) / (card.teraflops * 1e12)
    seconds += count_weight_bytes(step) / (card.bandwidth * 1e9)
    moved = 0.0
    if step.train.offload_activations:
        hidden = BF16 * tokens * step.architecture.hidden
        moved = 2 * step.architecture.num_layers * hidden / (card.pcie * 1e9)
    return Speed(card, tokens / max(seconds, moved), tokens / max(seconds / REACHED_SHARE, moved))


def count_operations(step: Step) -> float:
    """Floating-point operations of a micro-batch, forward and back.

    A frozen weight takes 2 a token forward, 2 more where that is recomputed, and 2 for the gradient
    of its input; a trained one 2 more for its own. Causal attention takes 2 × length × width a
    token and layer, and 2.5 times that back (Dao 2023, arXiv 2307.08691). The head's tiles are
    computed twice.
    """
    model, batch = step.architecture, step.batch
    passes = 2 if step.train.gradient_checkpointing else 1
    frozen = 2 * (passes + 1) * model.num_linear_weights
    adapter = 2 * (passes + 2) * model.num_lora_weights(step.train.lora.rank)
    attention = 2 * (passes + 2.5) * batch.document * model.query * model.num_layers
    head = 6 * model.num_embedding_weights
    return batch.num_tokens * (frozen + adapter + attention) + batch.num_supervised * head


def count_weight_bytes(step: Step) -> float:
    """Bytes of frozen weights that a micro-batch reads and writes, forward and back."""
    layer = step.architecture.linears
    mlp = sum(layer[name].size for name in MLP)
    others = sum(linear.size for linear in layer.values()) - mlp
    tile = step.train.mlp_tile_tokens
    tokens = step.batch.num_tokens
    passes = 3 if step.train.gradient_checkpointing else 2
    if tile is None or tile >= tokens:
        moved = passes * (mlp + others) * _bytes_a_weight(step, tokens)
    else:
        # Each tile goes forward, forward again and back, checkpointed or not.
        tiles = -(-tokens // tile)
        moved = passes * others * _bytes_a_weight(step, tokens)
        moved += 3 * tiles * mlp * _bytes_a_weight(step, tile)
    return moved * step.architecture.num_layers


def _bytes_a_weight(step: Step, tokens: int) -> float:
    if step.train.quantization == "none":
        return BF16
    return NF4_BYTES + (2 * BF16 if tokens >= DEQUANTIZED_FROM else 0)
