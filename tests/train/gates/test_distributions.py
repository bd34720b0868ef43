import numpy as np
import pytest
import torch

from train.gates.distributions import (
    divergences,
    effect_share,
    kl_divergences,
    logit_cosines,
    look_up,
)
from train.gates.scoring import NUM_TOP, Scores

NUM_PLACES, NUM_TOKENS = 200, 392


def logits(seed: int, *, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(NUM_PLACES, NUM_TOKENS, generator=generator, dtype=torch.float64) * scale


def scores(of: torch.Tensor, *, num_top: int = NUM_TOP) -> Scores:
    """As a scorer gives them; the token that stands at place n is n."""
    log_probs = of.log_softmax(-1)
    top = log_probs.topk(num_top, dim=-1)
    own = log_probs[torch.arange(NUM_PLACES), torch.arange(NUM_PLACES)]
    return Scores(own.float().numpy(), top.indices.int().numpy(), top.values.float().numpy())


def true_divergences(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).numpy()


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.3, 3.0, 10.0])
def test_the_divergence_is_never_above_the_true_one(noise: float, scale: float) -> None:
    first = logits(1, scale=scale)
    second = first + noise * logits(2, scale=1.0)
    bound = kl_divergences(scores(first), scores(second))
    assert (bound <= true_divergences(first, second) + 1e-5).all()


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_for_models_that_are_alike_it_is_most_of_the_true_one(noise: float) -> None:
    first = logits(1)
    second = first + noise * logits(2, scale=1.0)
    bound = kl_divergences(scores(first), scores(second))
    assert bound.mean() > 0.8 * true_divergences(first, second).mean()


def test_models_with_no_likely_token_in_common_are_far_apart() -> None:
    first, second = torch.zeros(2, NUM_PLACES, NUM_TOKENS, dtype=torch.float64)
    first[:, :NUM_TOP] += 8
    second[:, NUM_TOP : 2 * NUM_TOP] += 8
    bound = kl_divergences(scores(first), scores(second))
    assert not look_up(scores(first), scores(second)).is_known.any()
    assert (bound > 3).all()


def test_a_model_does_not_differ_from_itself() -> None:
    one = scores(logits(1))
    assert kl_divergences(one, one) == pytest.approx(0, abs=1e-5)
    assert logit_cosines(one, one) == pytest.approx(1)


def test_where_all_tokens_are_kept_the_divergence_is_the_true_one() -> None:
    first, second = logits(1), logits(2)
    bound = kl_divergences(scores(first, num_top=NUM_TOKENS), scores(second, num_top=NUM_TOKENS))
    assert bound == pytest.approx(true_divergences(first, second), rel=1e-3)


def test_the_cosine_does_not_see_a_constant_that_softmax_takes_out() -> None:
    one = logits(1)
    assert logit_cosines(scores(one), scores(2 * one + 5)) == pytest.approx(1)
    unrelated = logit_cosines(
        scores(one, num_top=NUM_TOKENS), scores(logits(2), num_top=NUM_TOKENS)
    )
    assert abs(unrelated.mean()) < 0.02


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_share_is_that_of_the_change_whatever_is_added_to_it(
    share: float, noise: float
) -> None:
    base, change = logits(1), logits(2, scale=0.5)
    artefact = base + share * change + noise * logits(3, scale=1.0)
    found = effect_share(scores(base), scores(base + change), scores(artefact))
    assert found == pytest.approx(share, abs=0.1)


def test_without_a_change_there_is_no_share() -> None:
    base = scores(logits(1))
    assert effect_share(base, base, scores(logits(2))) == 0


def test_a_model_that_is_sure_of_nothing_is_far_from_one_that_is_sure() -> None:
    """By the flat one's likeliest tokens alone, two models of a large vocabulary look the same."""
    flat = torch.zeros(NUM_PLACES, 20_000, dtype=torch.float64)
    sure = flat.clone()
    sure[:, 19_000] = 20.0
    one, other = scores(flat), scores(sure)
    assert (kl_divergences(one, other) < 0.1).all()
    assert (divergences(one, other) > 1).all()
    assert divergences(one, other) == pytest.approx(divergences(other, one))
