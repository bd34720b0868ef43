import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.train.gates.tiny_adapter import TinyRun, build_rows
from train.gates import transformers_scorer
from train.gates.scoring import NUM_TOP, HeldOutRow
from train.gates.transformers_scorer import TransformersScorer, plan_batches


@pytest.fixture(scope="module")
def model(tiny_run: TinyRun) -> PreTrainedModel:
    base = AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint, dtype=torch.float32)
    # Trained, since the base says the last token again whatever stands before it.
    model: PreTrainedModel = PeftModel.from_pretrained(base, tiny_run.adapter).merge_and_unload()
    return model


def rows_of_many_lengths(tiny_run: TinyRun) -> list[HeldOutRow]:
    """Rows of one to four turns of answers, the longest in the middle."""
    rows = build_rows(tiny_run.checkpoint, range(6))
    return [
        HeldOutRow(row.conversation, np.tile(row.ids, times), np.tile(row.mask, times))
        for row, times in zip(rows, [1, 2, 4, 1, 3, 2], strict=True)
    ]


@torch.no_grad()
def expected_log_probs(model: PreTrainedModel, row: HeldOutRow) -> torch.Tensor:
    logits = model(torch.from_numpy(row.ids.astype(np.int64))[None]).logits[0]
    log_probs: torch.Tensor = logits.log_softmax(-1)[row.scored - 1]
    return log_probs


@pytest.mark.parametrize("tokens_per_forward", [1, 300, 10_000])
def test_scores_are_those_of_each_row_alone(
    tokens_per_forward: int, model: PreTrainedModel, tiny_run: TinyRun
) -> None:
    rows = rows_of_many_lengths(tiny_run)
    scorer = TransformersScorer(model, tiny_run.checkpoint, tokens_per_forward=tokens_per_forward)
    scores = scorer.score(rows)
    expected = torch.cat([expected_log_probs(model, row) for row in rows])
    own = torch.from_numpy(np.concatenate([row.ids[row.scored] for row in rows])).long()
    wanted = expected.gather(-1, own[:, None])[:, 0]
    torch.testing.assert_close(torch.from_numpy(scores.log_probs), wanted, rtol=1e-4, atol=1e-5)
    top = expected.topk(NUM_TOP, dim=-1)
    torch.testing.assert_close(
        torch.from_numpy(scores.top_log_probs), top.values, rtol=1e-4, atol=1e-5
    )
    assert (scores.top_ids[:, 0] == top.indices[:, 0].numpy()).mean() > 0.99
    assert scores.top_ids.dtype == np.int32
    assert scores.loss == pytest.approx(-float(wanted.mean()), rel=1e-4)


def test_tiles_of_the_vocabulary_change_nothing(
    model: PreTrainedModel, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_many_lengths(tiny_run)
    scorer = TransformersScorer(model, tiny_run.checkpoint)
    whole = scorer.score(rows)
    sizes = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    monkeypatch.setattr(transformers_scorer, "TILE_LOGITS", 3 * 392)
    tiled = scorer.score(rows)
    hook.remove()
    assert max(sizes) == 3 * 392
    np.testing.assert_allclose(tiled.log_probs, whole.log_probs, rtol=1e-5)


@torch.no_grad()
def greedy(model: PreTrainedModel, row: HeldOutRow, num_tokens: int) -> list[int]:
    ids = row.prompt_ids.tolist()
    for _ in range(num_tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return [int(id) for id in ids[len(row.prompt_ids) :]]


@pytest.mark.parametrize("tokens_per_forward", [1, 10_000])
def test_answers_are_the_greedy_ones_in_any_batch(
    tokens_per_forward: int, model: PreTrainedModel, tiny_run: TinyRun
) -> None:
    # What the hub's generation settings often say, and no gate may follow.
    settings = model.generation_config
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 0.3, 1.5
    rows = rows_of_many_lengths(tiny_run)
    scorer = TransformersScorer(model, tiny_run.checkpoint, tokens_per_forward=tokens_per_forward)
    answers = scorer.answer(rows, max_tokens=6)
    assert answers == [greedy(model, row, 6) for row in rows]


def test_an_answer_ends_before_the_end_token(model: PreTrainedModel, tiny_run: TinyRun) -> None:
    rows = build_rows(tiny_run.checkpoint, range(2))
    scorer = TransformersScorer(model, tiny_run.checkpoint)
    ends = model.generation_config.eos_token_id
    first = greedy(model, rows[0], 1)[0]
    model.generation_config.eos_token_id = [first, 5]
    try:
        assert scorer.answer(rows[:1], max_tokens=6) == [[]]
    finally:
        model.generation_config.eos_token_id = ends


def test_batches_hold_every_row_once_within_their_capacity() -> None:
    lengths = [5, 90, 3, 40, 40, 1, 200]
    batches = list(plan_batches(lengths, 100))
    assert sorted(number for batch in batches for number in batch) == list(range(7))
    for batch in batches:
        longest = max(lengths[number] for number in batch)
        assert len(batch) == 1 or len(batch) * longest <= 100
    assert [6] in batches
