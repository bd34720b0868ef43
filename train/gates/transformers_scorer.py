"""Scores and greedy answers of a model in transformers, the vocabulary never whole in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from data.conversation import Conversation
from train.gates.folder_prompts import FolderPrompts
from train.gates.scoring import NUM_TOP, HeldOutRow, Scores
from train.head_loss import TILE_LOGITS
from train.quantized_base import training_device

# Of a batch with its padding. The activations of 24 billion weights take 100 KB a token.
TOKENS_PER_FORWARD = 4096


class TransformersScorer:
    """Implements `train.gates.scoring.Scorer` for a loaded model.

    tokenizer_folder: the artefact's own, whose prompts are what a server of the folder would make.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer_folder: Path,
        *,
        tokens_per_forward: int = TOKENS_PER_FORWARD,
    ) -> None:
        self.model = model.eval()
        # Typed as anything: to mypy a module's methods may as well be tensors.
        inner: Any = model
        self._language_model = inner.get_base_model() if isinstance(model, PeftModel) else inner
        self._prompts = FolderPrompts(tokenizer_folder)
        self._tokens_per_forward = tokens_per_forward

    @torch.no_grad()
    def score(self, rows: Sequence[HeldOutRow]) -> Scores:
        """The scores of all rows' scored tokens."""
        found: dict[int, Scores] = {}
        for numbers in plan_batches([len(row.ids) for row in rows], self._tokens_per_forward):
            batch = [rows[number] for number in numbers]
            # Without a mask: padding stands on the right, where no token of a row looks.
            ids = _pad([row.ids for row in batch], left=False).to(training_device())
            states = self._language_model.base_model(ids, use_cache=False).last_hidden_state
            for number, row, row_states in zip(numbers, batch, states, strict=True):
                found[number] = self._score_row(row, row_states)
        ordered = [found[number] for number in range(len(rows))]
        return Scores(
            np.concatenate([one.log_probs for one in ordered]),
            np.concatenate([one.top_ids for one in ordered]),
            np.concatenate([one.top_log_probs for one in ordered]),
        )

    @torch.no_grad()
    def answer(self, rows: Sequence[HeldOutRow], *, max_tokens: int) -> list[list[int]]:
        """Greedy answers to the rows' prompts, as token ids, without the end token."""
        stops = self._stop_ids()
        # All that a checkpoint's own generation settings could make another answer of.
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            max_new_tokens=max_tokens,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
        answers: dict[int, list[int]] = {}
        prompts = [row.prompt_ids for row in rows]
        lengths = [len(prompt) + max_tokens for prompt in prompts]
        for numbers in plan_batches(lengths, self._tokens_per_forward):
            ids = _pad([prompts[number] for number in numbers], left=True, fill=stops[0])
            width = ids.shape[1]
            starts = torch.tensor([width - len(prompts[number]) for number in numbers])
            mask = (torch.arange(width) >= starts[:, None]).long()
            device = training_device()
            written = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=settings,
            )
            for number, tokens in zip(numbers, written[:, width:].tolist(), strict=True):
                end = next((n for n, token in enumerate(tokens) if token in stops), len(tokens))
                answers[number] = tokens[:end]
        return [answers[number] for number in range(len(rows))]

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """As `FolderPrompts.prompt_ids` of the folder."""
        return self._prompts.prompt_ids(conversation)

    def _score_row(self, row: HeldOutRow, states: torch.Tensor) -> Scores:
        """states: (at least num_tokens, hidden_size)."""
        places = torch.from_numpy(row.scored)
        targets = torch.from_numpy(row.ids[row.scored].astype(np.int64))
        wanted = states[(places - 1).to(states.device)]
        parts = score_states(wanted, self._language_model.get_output_embeddings(), targets)
        return Scores(*(part.cpu().numpy() for part in parts))

    def _stop_ids(self) -> list[int]:
        """The tokens that end an answer, as the checkpoint has them."""
        told = self._language_model.generation_config.eos_token_id
        if told is None:
            told = self._language_model.config.get_text_config().eos_token_id
        return list(told) if isinstance(told, list) else [int(told)]


def score_states(
    states: torch.Tensor, head: nn.Module, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log_probs, top_ids and top_log_probs of `Scores`, in fp32, where a row's states are.

    states: (positions, hidden_size), each in front of the token that is scored; targets:
    (positions,), those tokens. Never more than a tile of logits is held.
    """
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    num_positions = max(1, TILE_LOGITS // weight.shape[0])
    own, ids, tops = [], [], []
    for part, wanted in zip(states.split(num_positions), targets.split(num_positions), strict=True):
        log_probs = head(part).float().log_softmax(dim=-1)
        top = log_probs.topk(min(NUM_TOP, log_probs.shape[-1]), dim=-1)
        own.append(log_probs.gather(-1, wanted.to(log_probs.device)[:, None])[:, 0])
        ids.append(top.indices.int())
        tops.append(top.values)
    return torch.cat(own), torch.cat(ids), torch.cat(tops)


def plan_batches(lengths: Sequence[int], capacity: int) -> Iterator[list[int]]:
    """Numbers of the sequences of each batch: alike in length, at most `capacity` tokens padded.

    A sequence that is longer makes a batch of its own.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: lengths[one]):
        if batch and (len(batch) + 1) * lengths[number] > capacity:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _pad(sequences: Sequence[np.ndarray], *, left: bool, fill: int = 0) -> torch.Tensor:
    width = max(len(sequence) for sequence in sequences)
    padded = np.full((len(sequences), width), fill, np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[slice(width - len(sequence), None) if left else slice(len(sequence))] = sequence
    return torch.from_numpy(padded)
