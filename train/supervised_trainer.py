"""TRL's SFTTrainer over flat micro-batches, its head and loss on supervised positions alone."""

from typing import Any

import datasets
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from trl import SFTTrainer

from train.batches import IGNORED
from train.head_loss import head_loss
from train.processes import num_processes, sum_of_all
from train.row_trainer import RowTrainer
from train.validation_share import validation_share


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
            num_labels = self._labels_per_validation_batch() * num_processes()
        if return_outputs or inputs["input_ids"].device.type == "cuda":
            return super().compute_loss(  # type: ignore[no-untyped-call]
                model, inputs, return_outputs, num_labels
            )
        targets = F.pad(inputs["labels"][0, 1:], (0, 1), value=IGNORED)
        labelled = targets != IGNORED
        loss = self._labelled_loss(model, inputs, labelled.nonzero()[:, 0], targets[labelled])
        # The labels are those of all processes, over which the gradients are averaged.
        return loss * num_processes() / (labelled.sum() if num_labels is None else num_labels)

    def _labelled_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        places: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy at the labelled places, summed."""
        assert self.model is not None
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        if model is not self.model or self.is_fsdp_enabled:
            # What synchronizes processes or gathers layers listens to the whole model's call.
            logits = model(**model_inputs, logits_to_keep=places, use_cache=False).logits[0]
            return F.cross_entropy(logits.float(), targets, reduction="sum")
        language_model = self.model.get_base_model()  # type: ignore[operator]
        states = language_model.base_model(**model_inputs, use_cache=False).last_hidden_state[0]
        return head_loss(states[places], language_model.get_output_embeddings(), targets)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:  # noqa: ANN401
        """Batches of validation rows; of processes that train together, each has its share."""
        assert isinstance(self.eval_dataset, datasets.Dataset)
        return validation_share(
            self.eval_dataset.to_list(),
            self._validation_collator,
            batch_rows=self.args.per_device_eval_batch_size,
            rank=self.args.process_index,
            num_processes=num_processes(),
        )

    def _labels_per_validation_batch(self) -> float:
        """What each batch's sum is divided by, so that the mean over batches is that over labels.

        transformers' evaluation loop gives every batch the same weight, whatever it holds.
        """
        if self._labels_per_batch is None:
            counts = [(batch["labels"] != IGNORED).sum() for batch in self.get_eval_dataloader()]
            num_labels = sum_of_all(int(sum(counts)))
            self._labels_per_batch = num_labels / (len(counts) * num_processes())
        return self._labels_per_batch
