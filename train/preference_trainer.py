"""TRL's DPOTrainer over prepared pairs: no padding in the model, reference scores computed once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel
from torch.utils.data import DataLoader
from trl import DPOTrainer

from train.batches import IGNORED
from train.pairs import LogProbs, PairCollator
from train.row_trainer import RowTrainer
from train.token_scores import TokenScores, score_tokens

# What TRL calls its copy of the adapter as it was before training.
REFERENCE = "ref"


class PreferenceTrainer(RowTrainer, DPOTrainer):
    """`DPOTrainer` for batches as `PairCollator` makes them; the loss and its figures are TRL's.

    The reference is the model as it is when the trainer is built: the base with an adapter that
    changes nothing yet. Its log-probabilities are computed once for each pair, so that a training
    step is spared a forward pass from the second epoch on, and every validation is.
    """

    def __init__(self, *, model: PeftModel, **options: Any) -> None:  # noqa: ANN401
        with _plain_copies(model):
            super().__init__(model=model, **options)
        self._reference_is_there = True

    def _prepare_dataset(self, dataset: datasets.Dataset, *_: object) -> datasets.Dataset:
        """The pairs come rendered, masked and checked; TRL has no setting that says so."""
        return dataset

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:  # noqa: ANN401
        """Batches of validation rows."""
        training_collator = self.data_collator
        self.data_collator = self._validation_collator
        try:
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator
        return loader

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - TRL's own signature
        """The mean loss over the batch's pairs."""
        return super().compute_loss(  # type: ignore[no-untyped-call]
            self.flat(model), inputs, return_outputs, num_items_in_batch
        )

    def compute_reference(
        self, collate: PairCollator, num_pairs: int, batches: Iterable[Sequence[int]]
    ) -> LogProbs:
        """The reference's log-probabilities of the pairs in `batches`; before training alone.

        batches: pair numbers as they are trained on together: until the first step reference and
        model then agree to the bit, and the loss of every pair is that of a margin of 0.
        """
        assert self._reference_is_there, "the reference is gone, its scores are not"
        assert isinstance(self.model, PeftModel)
        found = LogProbs(*(np.full(num_pairs, np.nan, np.float32) for _ in range(2)))
        self.model.eval()
        for numbers in batches:
            unknown = np.isnan(found.preferred[numbers])
            if not unknown.any():
                continue
            batch = collate([{"rows": [number]} for number in numbers])
            batch = {name: values.to(self.args.device) for name, values in batch.items()}
            sides = self.compute_ref_log_probs(  # type: ignore[no-untyped-call]
                self.flat(self.model), batch
            )
            for known, side in zip(found, sides, strict=True):
                known[np.asarray(numbers)[unknown]] = side.float().cpu().numpy()[unknown]
        return found

    def use_reference(self, scores: Mapping[PairCollator, LogProbs]) -> None:
        """Have the collators' batches carry the reference's scores, and let go of the reference."""
        assert isinstance(self.model, PeftModel)
        for collate, known in scores.items():
            collate.reference = known
        self.precompute_ref_logps = True
        if self._reference_is_there:
            self.model.delete_adapter(REFERENCE)
            self._reference_is_there = False

    def flat(self, model: torch.nn.Module) -> "FlatModel":
        """The model as TRL's loss calls it."""
        assert isinstance(self.model, PeftModel)
        return FlatModel(model, self.model)


class FlatModel:
    """Answers for TRL's model with a fused head, over rows behind one another instead of padded.

    On CUDA the head is TRL's, in tiles over labelled positions. Elsewhere TRL scores every
    position, so there the labelled ones are picked first.
    """

    def __init__(self, model: torch.nn.Module, peft_model: PeftModel) -> None:
        """model: what is called, as the trainer has wrapped it; peft_model: what is in it."""
        self._model = model
        self._peft_model = peft_model

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        fused_lm_head: bool,
        use_cache: bool,
    ) -> TokenScores:
        """Scores of the token behind each position, (rows, longest - 1); 0 where it has no label.

        All inputs: (rows, longest), padded on the right.
        """
        assert fused_lm_head
        assert not use_cache
        kept = attention_mask.bool()
        bounds = F.pad(kept.sum(dim=1).cumsum(dim=0), (1, 0))
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        labels = labels.clone()
        # What the last token of the row before would have to foresee.
        labels[:, 0] = IGNORED
        boundaries = bounds.to(torch.int32)
        flat = {
            "input_ids": input_ids[kept][None],
            "position_ids": positions.expand_as(input_ids)[kept][None],
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": input_ids.shape[1],
            "max_length_k": input_ids.shape[1],
        }
        targets = F.pad(labels[kept][1:], (0, 1), value=IGNORED)
        score = self._score_on_cuda if input_ids.is_cuda else self._score_labelled
        scores = score(flat, targets)
        return TokenScores(*(_padded(values, kept)[:, :-1] for values in scores))

    def _score_on_cuda(self, flat: dict[str, Any], targets: torch.Tensor) -> TokenScores:
        labels = F.pad(targets[:-1], (1, 0), value=IGNORED)[None]
        outputs = self._model(**flat, labels=labels, fused_lm_head=True, use_cache=False)
        return TokenScores(
            *(F.pad(getattr(outputs, name)[0], (0, 1)) for name in TokenScores._fields)
        )

    def _score_labelled(self, flat: dict[str, Any], targets: torch.Tensor) -> TokenScores:
        language_model: Any = self._peft_model.get_base_model()
        states = language_model.base_model(**flat, use_cache=False).last_hidden_state[0]
        labelled = targets != IGNORED
        scores = score_tokens(
            states[labelled], language_model.get_output_embeddings(), targets[labelled]
        )
        return TokenScores(*(_padded(values, labelled) for values in scores))


def _padded(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`values` in their order at the true `places`, of whose shape the result is, else 0."""
    return torch.zeros_like(places, dtype=values.dtype).masked_scatter(places, values)


@contextmanager
def _plain_copies(model: PeftModel) -> Iterator[None]:
    """Have further adapters begin as plain ones, whatever the first began as.

    TRL adds one to keep the first's weights in. Beginning as the first did would take the base's
    principal components away a second time (PiSSA).
    """
    config = model.peft_config["default"]
    assert isinstance(config, PeftLoraConfig)
    begun_as = config.init_lora_weights
    config.init_lora_weights = True
    try:
        yield
    finally:
        config.init_lora_weights = begun_as
