import pytest
import torch
import torch.nn.functional as F

from train import head_loss as module
from train.head_loss import head_loss


@pytest.mark.parametrize("num_positions", [1, 8, 9, 30])
def test_tiles_give_the_loss_and_gradients_of_the_whole(
    num_positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = torch.nn.Linear(16, 50, bias=False)
    targets = torch.arange(num_positions)
    results = []
    for tile_logits in (10**9, 8 * 50):
        monkeypatch.setattr(module, "TILE_LOGITS", tile_logits)
        torch.manual_seed(0)
        hidden = torch.randn(num_positions, 16, requires_grad=True)
        loss = head_loss(hidden, head, targets)
        loss.backward()
        results.append((loss, hidden.grad))
    torch.testing.assert_close(results[0], results[1])
    expected = F.cross_entropy(head(hidden), targets, reduction="sum")
    torch.testing.assert_close(results[1][0], expected)
