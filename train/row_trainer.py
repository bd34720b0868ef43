"""What the trainers of both methods do alike, and transformers' own does otherwise."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers import Trainer
from transformers.data.data_collator import DataCollator
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from configs.schema import TrainConfig
from train.lora import build_optimizer
from train.whole_adapter import put_adapter, whole_tensors


class RowTrainer(Trainer):
    """A trainer whose items are row numbers, and that resumes to the bit; mixed in before TRL's.

    validation_collator: looks up the numbers of validation rows, which have a table of their own;
    config: for the optimizer, which may not be one of the trainer's own.
    """

    def __init__(
        self,
        *,
        validation_collator: DataCollator,
        config: TrainConfig,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        self._validation_collator = validation_collator
        self._config = config
        # The stage draws its own bar.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Made once a resumed adapter is there, whose tensors one made earlier would not train."""
        if self.optimizer is None:
            assert isinstance(self.model, PeftModel)
            self.optimizer = build_optimizer(self.model, self._config)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter; put together first where it lies in shares, which peft cannot save."""
        assert isinstance(self.model, PeftModel)
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        tensors = whole_tensors(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=tensors)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Load the adapter and keep its dtype: peft's loading leaves it in fp32.

        A resumed run would then train in another precision than the one that was cut off. The
        trainer offers no public hook between loading the adapter and its optimizer states.
        """
        assert self.model is not None
        if self.is_fsdp_enabled:
            assert isinstance(self.model, PeftModel)
            put_adapter(
                self.model, load_file(Path(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME))
            )
            return
        dtypes = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            if name in dtypes:
                parameter.data = parameter.data.to(dtypes[name])
