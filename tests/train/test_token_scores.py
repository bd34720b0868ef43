import pytest
import torch
from torch import nn

from train import token_scores
from train.token_scores import score_tokens

VOCABULARY, WIDTH, POSITIONS = 50, 8, 11


@pytest.mark.parametrize("tile_logits", [2**24, 4 * VOCABULARY, 1])
def test_scores_and_gradients_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, tile_logits: int
) -> None:
    monkeypatch.setattr(token_scores, "TILE_LOGITS", tile_logits)
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden = torch.randn(POSITIONS, WIDTH, requires_grad=True)
    logits = head(hidden)
    targets = torch.randint(VOCABULARY, (POSITIONS,))
    targets[3] = logits[3].argmax()
    expected = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    scores = score_tokens(hidden, head, targets)
    assert torch.allclose(scores.log_probs, expected, atol=1e-6)
    assert torch.allclose(scores.entropy, torch.distributions.Categorical(logits=logits).entropy())
    assert torch.allclose(scores.mean_logits, logits.mean(-1), atol=1e-6)
    assert torch.equal(scores.is_top1, logits.argmax(-1) == targets)
    assert scores.is_top1[3]
    weights = torch.randn(POSITIONS)
    (gradient,) = torch.autograd.grad((scores.log_probs * weights).sum(), hidden)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), hidden)
    assert torch.allclose(gradient, wanted, atol=1e-6)
    assert not scores.entropy.requires_grad


def test_a_tile_of_logits_at_most_is_held() -> None:
    # 64 MiB in fp32, as of the head of the supervised loss.
    head = nn.Linear(4, 2**15, bias=False)
    sizes: list[int] = []
    head.register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
    score_tokens(torch.randn(1100, 4), head, torch.zeros(1100, dtype=torch.long))
    assert max(sizes) <= 2**24
    assert len(sizes) == 3
