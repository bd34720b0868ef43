"""TRL's SFTTrainer over flat micro-batches, its head and loss on supervised positions alone."""

from typing import Any

import torch
import torch.nn.functional as F
from trl import SFTTrainer

from train.batches import IGNORED
from train.head_loss import head_loss
from train.row_trainer import RowTrainer


class SupervisedTrainer(RowTrainer, SFTTrainer):
    """`SFTTrainer` for one flat row a micro-batch, as `FlatCollator` makes it.

    On CUDA the head and the loss are TRL's own: in tiles, over labelled positions. Elsewhere TRL
    scores every position, half of a training step where answers are short, so there the labelled
    ones are picked first. The validation loss is the mean over all labelled tokens, so it does not
    depend on how rows share micro-batches.
    """

    _labels_per_batch: float | None = None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - TRL's own signature
        """Cross-entropy summed over labels, divided by the labels of the whole optimizer step."""
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        num_labels: torch.Tensor | float | None = num_items_in_batch
        if not model.training:
            num_labels = self._labels_per_validation_batch()
        if return_outputs or inputs["input_ids"].device.type == "cuda":
            return super().compute_loss(  # type: ignore[no-untyped-call]
                model, inputs, return_outputs, num_labels
            )
        targets = F.pad(inputs["labels"][0, 1:], (0, 1), value=IGNORED)
        labelled = targets != IGNORED
        assert self.model is not None
        language_model = self.model.get_base_model()  # type: ignore[operator]
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        states = language_model.base_model(**model_inputs, use_cache=False).last_hidden_state[0]
        loss = head_loss(
            states[labelled], language_model.get_output_embeddings(), targets[labelled]
        )
        return loss / (labelled.sum() if num_labels is None else num_labels)

    def _labels_per_validation_batch(self) -> float:
        """What each batch's sum is divided by, so that the mean over batches is that over labels.

        transformers' evaluation loop gives every batch the same weight, whatever it holds.
        """
        if self._labels_per_batch is None:
            counts = [(batch["labels"] != IGNORED).sum() for batch in self.get_eval_dataloader()]
            self._labels_per_batch = int(sum(counts)) / len(counts)
        return self._labels_per_batch
