from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.largest_tensors import saved_shapes
from train import documents
from train.documents import attend_documents

# On both sides of the length from which torch's fused attention is used.
LENGTHS = [5, 1, documents.SHORT_TOKENS, documents.SHORT_TOKENS + 1, 40, 300]


@pytest.fixture(params=["llama", "mistral3"])
def model(request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path) -> PreTrainedModel:
    """A tiny model in fp32, whose language model has fewer key than query heads."""
    if request.param == "llama":
        return AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(
        build_tiny_mistral3(tmp_path / "mistral3"), dtype=torch.float32
    )


def packed(lengths: list[int], *, seed: int = 0) -> dict[str, object]:
    torch.manual_seed(seed)
    boundaries = torch.tensor([0, *lengths]).cumsum(0).int()
    return {
        "input_ids": torch.randint(20, 300, (1, sum(lengths))),
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "use_cache": False,
    }


def losses_by_document(model: PreTrainedModel, inputs: dict[str, object]) -> list[torch.Tensor]:
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    ids = inputs["input_ids"]
    assert isinstance(ids, torch.Tensor)
    return [
        F.cross_entropy(part[:-1], targets[1:])
        for part, targets in zip(logits.split(LENGTHS), ids[0].split(LENGTHS), strict=True)
        if len(targets) > 1
    ]


def test_packed_logits_are_those_of_the_documents_one_by_one(model: PreTrainedModel) -> None:
    inputs = packed(LENGTHS)
    ids = inputs["input_ids"]
    assert isinstance(ids, torch.Tensor)
    with torch.no_grad():
        expected = torch.cat([model(part).logits for part in ids.split(LENGTHS, dim=1)], dim=1)
        model.get_decoder().set_attn_implementation(documents.NAME)
        found = model(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_block_diagonal_masks(model: PreTrainedModel) -> None:
    inputs = packed([7, 20, documents.SHORT_TOKENS + 3])
    gradients = []
    for implementation in ("eager", documents.NAME):
        model.get_decoder().set_attn_implementation(implementation)
        model.zero_grad()
        model(**inputs).logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_change_in_one_document_never_moves_the_loss_of_another(model: PreTrainedModel) -> None:
    model.get_decoder().set_attn_implementation(documents.NAME)
    inputs = packed(LENGTHS)
    before = losses_by_document(model, inputs)
    ids = inputs["input_ids"]
    assert isinstance(ids, torch.Tensor)
    start = sum(LENGTHS[:3])
    ids[0, start : start + LENGTHS[3]] = ids[0, start : start + LENGTHS[3]].flip(0)
    after = losses_by_document(model, inputs)
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    # The document of one token has no loss, so the fourth is the third here.
    assert changed == [False, False, True, False, False]


def test_memory_does_not_grow_with_the_square_of_the_packed_tokens() -> None:
    query = torch.randn(1, 4, 3000, 8, requires_grad=True)
    with saved_shapes() as saved:
        call(query, query, query, [100] * 30)
    assert max(shape.numel() for shape in saved) <= 4 * 3000 * 8


@pytest.mark.parametrize("num_tokens", [9, documents.SHORT_TOKENS + 9])
def test_scores_are_scaled_as_the_model_says(num_tokens: int) -> None:
    query, key, value = torch.randn(3, 1, 2, num_tokens, 8).unbind()
    future = torch.ones(num_tokens, num_tokens).triu(1) * -1e9
    weights = torch.softmax(query @ key.transpose(2, 3) * 0.5 + future, dim=-1)
    found = call(query, key, value, [num_tokens])
    torch.testing.assert_close(found, (weights @ value).transpose(1, 2), rtol=1e-4, atol=1e-5)


def call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    **options: object,
) -> torch.Tensor:
    boundaries = torch.tensor([0, *lengths]).cumsum(0).int()
    settings = {"cu_seq_lens_q": boundaries, "max_length_q": max(lengths), "scaling": 0.5} | options
    return attend_documents(torch.nn.Module(), query, key, value, None, **settings)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cu_seq_lens_q": None}, "boundaries"),
        ({"dropout": 0.1}, "dropout"),
        ({"sliding_window": 3}, "sliding window"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, object], told: str) -> None:
    query = torch.randn(1, 2, 6, 8)
    with pytest.raises(ValueError, match=told):
        call(query, query, query, [2, 4], **options)
    assert call(query, query, query, [2, 4], sliding_window=4).shape == (1, 6, 2, 8)


@pytest.mark.gpu
def test_flash_attention_gives_the_same_as_one_by_one() -> None:
    shapes = [(1, heads, 421, 64) for heads in (8, 2, 2)]
    query, key, value = (
        torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for shape in shapes
    )
    on_cpu = call(query, key, value, [100, 1, 320])
    on_cpu.square().sum().backward()
    moved = [part.detach().cuda().requires_grad_(True) for part in (query, key, value)]
    boundaries = torch.tensor([0, 100, 101, 421], dtype=torch.int32, device="cuda")
    on_gpu = call(moved[0], moved[1], moved[2], [100, 1, 320], cu_seq_lens_q=boundaries)
    on_gpu.square().sum().backward()
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=2e-2, atol=2e-2)
    for one, other in zip(moved, (query, key, value), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.cpu(), other.grad, rtol=5e-2, atol=5e-2)
