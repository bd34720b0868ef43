"""TRL's SFTTrainer with its head and loss over supervised positions alone, also without Triton."""

from typing import Any

import torch
import torch.nn.functional as F
from trl import SFTTrainer

IGNORED = -100


class SupervisedTrainer(SFTTrainer):
    """`SFTTrainer` that never projects a position onto the vocabulary without a label on it.

    On CUDA TRL's own fused head already leaves out unlabelled positions. Elsewhere it scores every
    one, half of a training step where answers are short, so there the head runs over the union of
    the batch's labelled positions, through the model's public `logits_to_keep`.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - TRL's own signature
        """Cross-entropy summed over labels, divided by the labels of the whole optimizer step."""
        if return_outputs or inputs["input_ids"].device.type == "cuda":
            return super().compute_loss(  # type: ignore[no-untyped-call]
                model, inputs, return_outputs, num_items_in_batch
            )
        labels = inputs["labels"]
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        positions = (targets != IGNORED).any(dim=0).nonzero().flatten()
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**model_inputs, logits_to_keep=positions, use_cache=False).logits
        targets = targets[:, positions]
        labelled = targets != IGNORED
        loss = F.cross_entropy(logits[labelled].float(), targets[labelled], reduction="sum")
        num_labels = labelled.sum() if num_items_in_batch is None else num_items_in_batch
        return loss / num_labels

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Load the adapter and keep its dtype: peft's loading leaves it in fp32.

        A resumed run would then train in another precision than the one that was cut off. The
        trainer offers no public hook between loading the adapter and its optimizer states.
        """
        assert self.model is not None
        dtypes = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            if name in dtypes:
                parameter.data = parameter.data.to(dtypes[name])
