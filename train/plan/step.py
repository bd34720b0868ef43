"""What decides a training step's memory and speed: model, settings, micro-batch and device."""

from dataclasses import dataclass

from configs.schema import TrainConfig
from train.plan.advice import Device
from train.plan.architecture import Architecture

# Bytes of a number.
BF16, FP32, INT64 = 2, 4, 8
# Longest document that a CPU attends in by matrix products, as in train/documents.py.
SHORT_TOKENS = 256


@dataclass(frozen=True)
class Batch:
    """A micro-batch: one flat row of whole documents.

    num_supervised: tokens that the loss is taken over; document: tokens of the longest one.
    """

    num_tokens: int
    num_supervised: int
    document: int


@dataclass(frozen=True)
class Step:
    """Everything that decides what a training step keeps."""

    architecture: Architecture
    train: TrainConfig
    batch: Batch
    device: Device

    @property
    def on_cuda(self) -> bool:
        """Whether the step runs on a card."""
        return self.device == "cuda"

    @property
    def adapter_bytes(self) -> int:
        """Bytes of a number of the adapter."""
        return FP32 if self.train.lora.dtype == "float32" else BF16
