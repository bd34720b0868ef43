"""Peak memory of a training, by part, from shapes alone.

Nothing is fitted to a measurement: what rests on an assumption stands in a constant of its own.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from configs.schema import TrainConfig
from train.plan.advice import Device
from train.plan.architecture import Architecture
from train.plan.layer_operations import NF4_BLOCK
from train.plan.ledger import Moment, trace
from train.plan.step import BF16, FP32, SHORT_TOKENS, Batch, Step
from train.plan.step_operations import is_accumulating, step_operations

Part = Literal[
    "weights_nf4",
    "weights_bf16",
    "lora",
    "gradients",
    "optimizer",
    "activations",
    "loss_tile",
    "dequantization_buffer",
    "allocator_slack",
    "cuda_context",
    "process",
]

GIB = 2**30
# bitsandbytes: blocks whose scales share a scale of their own; code books and offset of a weight.
NESTED_BLOCK = 256
CODE_BOOKS = FP32 * (16 + 256 + 1)
# bitsandbytes' 8-bit states: numbers that share a scale; smaller tensors stay in fp32; from here on
# a paged state may leave the card (optim/optimizer.py).
STATE_BLOCK = 256
SMALLEST_8BIT = 4096
SMALLEST_PAGED = 100_000
# Tensors as large as the weights that an optimizer makes on the way: on CUDA torch's AdamW works on
# all weights together, else on one after the other (optim/adam.py, bitsandbytes' CPU kernels).
CUDA_ADAMW_COPIES = 1
CPU_ADAMW_COPIES = 2
CPU_8BIT_COPIES = 7
# Assumptions, not measured: blocks that the caching allocator holds and cannot use for what is
# asked next, as a share of what a step allocates and frees; driver, kernels, cuBLAS's workspace.
SLACK_SHARE = 0.1
CUDA_CONTEXT = 0.5 * GIB
# Measured: an interpreter that has loaded torch 2.13 for CPUs, transformers, peft and trl.
PROCESS = 0.53 * GIB


class Memory(NamedTuple):
    """Bytes by part at the moment of the peak; pinned: host memory of offloaded activations.

    peak_in: the operation of the training step during which the peak comes.
    """

    parts: dict[Part, float]
    peak_in: str
    pinned: float

    @property
    def peak(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Weights:
    """Bytes of the frozen weights: those in NF4 and those in bf16."""

    nf4: float
    bf16: float


def plan_memory(step: Step, *, with_vision: bool) -> Memory:
    """Peak of a training step on `step.device`.

    with_vision: whether the vision tower is in that memory; on CUDA it is where images are trained.
    """
    weights = count_weights(step.architecture, step.train, with_vision=with_vision)
    embedding = BF16 * step.architecture.num_embedding_weights
    if step.train.offload_embedding and step.on_cuda and not step.architecture.is_tied:
        weights = Weights(weights.nf4, weights.bf16 - embedding)
    gradients = num_adapter_bytes(step)
    standing = gradients if is_accumulating(step.train) else 0
    walked = trace(list(step_operations(step)), {}, accumulating=is_accumulating(step.train)).peak
    moment, peak_in = walked.moment.plus(Moment(gradients=standing)), walked.operation
    updating = Moment(gradients=gradients + _optimizer_work(step))
    if updating.total > moment.total:
        moment, peak_in = updating, "optimizer step"
    return Memory(_parts(step, weights, moment), peak_in, _pinned(step))


def count_weights(
    architecture: Architecture, train: TrainConfig, *, with_vision: bool = True
) -> Weights:
    """The frozen weights; scales are int8 for blocks of 64, with fp32 scales for blocks of 256."""
    linear, layers = architecture.num_linear_weights, architecture.num_layers
    vision = 0 if with_vision else architecture.num_vision_weights
    others = BF16 * (architecture.num_weights - linear - vision)
    if train.quantization == "none":
        return Weights(0, BF16 * linear + others)
    blocks = linear / NF4_BLOCK
    scales = blocks + FP32 * blocks / NESTED_BLOCK
    books = CODE_BOOKS * layers * len(architecture.linears)
    return Weights(linear / 2 + scales + books, others)


def num_adapter_bytes(step: Step) -> float:
    """Bytes of the adapter's weights, and of their gradients; DoRA's magnitudes are fp32."""
    architecture, lora = step.architecture, step.train.lora
    factors = step.adapter_bytes * architecture.num_lora_weights(lora.rank)
    outputs = sum(linear.outputs for linear in architecture.linears.values())
    return factors + (FP32 * architecture.num_layers * outputs if lora.dora else 0)


def num_optimizer_bytes(step: Step, *, resident: bool = True) -> float:
    """Bytes of AdamW's two states. resident: without those of a paged optimizer that may leave.

    torch keeps them in the weights' format; bitsandbytes as bytes with fp32 scales.
    """
    if step.train.optimizer == "adamw_torch":
        return 2 * num_adapter_bytes(step)
    may_leave = step.train.optimizer == "paged_adamw_8bit" and step.on_cuda and resident
    total = 0.0
    for size in _tensor_sizes(step):
        scales = FP32 * math.ceil(size / STATE_BLOCK)
        if size < SMALLEST_8BIT:
            total += 2 * FP32 * size
        else:
            total += 2 * (scales + (0 if may_leave and size >= SMALLEST_PAGED else size))
    return total * step.architecture.num_layers


def _tensor_sizes(step: Step) -> list[int]:
    """Numbers of each trained tensor of one decoder layer."""
    lora = step.train.lora
    sizes = []
    for linear in step.architecture.linears.values():
        sizes += [lora.rank * linear.inputs, lora.rank * linear.outputs]
        sizes += [linear.outputs] if lora.dora else []
    return sizes


def _optimizer_work(step: Step) -> float:
    if step.on_cuda:
        copies = CUDA_ADAMW_COPIES if step.train.optimizer == "adamw_torch" else 0
        return copies * num_adapter_bytes(step)
    largest = max(_tensor_sizes(step))
    if step.train.optimizer == "adamw_torch":
        return CPU_ADAMW_COPIES * step.adapter_bytes * largest
    return CPU_8BIT_COPIES * FP32 * largest


def _parts(step: Step, weights: Weights, moment: Moment) -> dict[Part, float]:
    parts: dict[Part, float] = {
        "weights_nf4": weights.nf4,
        "weights_bf16": weights.bf16,
        "lora": num_adapter_bytes(step),
        "gradients": moment.gradients,
        "optimizer": num_optimizer_bytes(step),
        "activations": moment.activations,
        "loss_tile": moment.loss,
        "dequantization_buffer": moment.dequantized,
    }
    if not step.on_cuda:
        return parts | {"process": PROCESS}
    coming_and_going = moment.activations + moment.loss + moment.dequantized
    slack = SLACK_SHARE * coming_and_going
    return parts | {"allocator_slack": slack, "cuda_context": CUDA_CONTEXT}


def _pinned(step: Step) -> float:
    """Host memory of offloaded checkpoints: torch's pinned allocator takes powers of two."""
    if not (step.train.offload_activations and step.on_cuda):
        return 0
    hidden = BF16 * step.batch.num_tokens * step.architecture.hidden
    return float(step.architecture.num_layers * 2 ** math.ceil(math.log2(hidden)))


def batch_of(
    train: TrainConfig,
    *,
    max_length: int,
    device: Device,
    supervised_share: float = 1.0,
) -> Batch:
    """The largest micro-batch that can come: rows of `max_length` tokens, or pairs of them.

    supervised_share: of the tokens; 1, the worst, until data has been prepared. Documents are as
    long as they can be, but for packed ones on a CPU, which need more as short ones.
    """
    answers = 2 if train.method == "preference" else 1
    tokens = train.micro_batch_rows * answers * max_length
    shorter = train.packing and device == "cpu"
    document = min(max_length, SHORT_TOKENS) if shorter else max_length
    return Batch(tokens, max(1, math.ceil(supervised_share * tokens)), document)
