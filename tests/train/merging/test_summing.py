import pytest
import torch

from train.merging.adapters import LoraUpdate
from train.merging.summing import TILE_COLUMNS, TILE_ROWS, RowSummer, Survival


def build_update(rows: int, width: int, *, size: float = 0.02, dora: bool = False) -> LoraUpdate:
    a, b = torch.randn(4, width), torch.randn(rows, 4) * size / 2
    return LoraUpdate(a, b, 0.5, torch.rand(rows) + 1 if dora else None)


def direct(base: torch.Tensor, update: LoraUpdate) -> torch.Tensor:
    total = base.double() + update.scale * (update.b.double() @ update.a.double())
    if update.magnitude is not None:
        total *= (update.magnitude / total.norm(dim=1))[:, None]
    return total


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    ("rows", "width"),
    [(5, 7), (TILE_ROWS, TILE_COLUMNS), (2 * TILE_ROWS + 3, TILE_COLUMNS + 5), (3, 9000)],
)
def test_tiles_add_up_to_the_whole_sum(rows: int, width: int, dora: bool) -> None:
    torch.manual_seed(0)
    base = torch.randn(rows, width).to(torch.bfloat16)
    update = build_update(rows, width, dora=dora)
    exact, rounded = torch.empty(rows, width), torch.empty(rows, width, dtype=torch.bfloat16)
    RowSummer(update).add(base, 0, exact)
    survival = RowSummer(update).add(base, 0, rounded)
    expected = direct(base, update)
    torch.testing.assert_close(exact, expected.float(), rtol=1e-5, atol=1e-6)
    assert (rounded != expected.to(torch.bfloat16)).float().mean() < 1e-3
    wanted = (expected - base.double()).flatten()
    applied = (rounded.double() - base.double()).flatten()
    cosine = torch.nn.functional.cosine_similarity(wanted, applied, dim=0)
    assert survival.cosine == pytest.approx(float(cosine), abs=1e-4)


def test_rows_can_be_summed_from_any_row_on() -> None:
    torch.manual_seed(0)
    base, update = torch.randn(200, 30), build_update(200, 30, dora=True)
    out = torch.empty(50, 30)
    RowSummer(update).add(base[120:170], 120, out)
    torch.testing.assert_close(out, direct(base, update)[120:170].float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.05, 0.999, 1), (0.005, 0.93, 0.97), (0.0005, 0.3, 0.6)]
)
def test_the_cosine_tells_what_rounding_swallows(share: float, low: float, high: float) -> None:
    """Shares of the weights' standard deviation, and the cosines known for them in bf16."""
    torch.manual_seed(0)
    base = torch.randn(512, 512).mul(0.02).to(torch.bfloat16)
    update = LoraUpdate(torch.randn(16, 512), torch.randn(512, 16), share * 0.02 / 4)
    survival = RowSummer(update).add(base, 0, torch.empty_like(base))
    assert low <= survival.cosine <= high


def test_the_cosine_of_nothing() -> None:
    assert Survival(dot=0, wanted=0, applied=0).cosine == 1
    assert Survival(dot=0, wanted=2, applied=0).cosine == 0
