import numpy as np
import pytest
import torch

from train.gates.acts import judge_acts
from train.gates.logits import judge_logits
from train.gates.losses import judge_loss
from train.gates.results import GateResult
from train.gates.scoring import NUM_TOP, Scores

NUM_PLACES = 200
BASE_ANSWERS = [[number] for number in range(8)]
OTHER_ANSWERS = [[number + 100] for number in range(8)]


def random_logits(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(NUM_PLACES, 300, generator=generator, dtype=torch.float64)


BASE = 3 * random_logits(1)
CHANGE = random_logits(2)


def scores(logits: torch.Tensor) -> Scores:
    log_probs = logits.log_softmax(-1)
    top = log_probs.topk(NUM_TOP, dim=-1)
    own = log_probs[torch.arange(NUM_PLACES), torch.arange(NUM_PLACES)]
    return Scores(own.float().numpy(), top.indices.int().numpy(), top.values.float().numpy())


def judge(
    change: float,
    *,
    reference: float = 1.0,
    noise: float = 0.0,
    num_changed: int = 8,
    num_by_reference: int = 8,
) -> GateResult:
    """An artefact that differs from the base by `change` and `noise`, the reference by its own."""
    return judge_acts(
        scores(BASE),
        scores(BASE + reference * CHANGE),
        scores(BASE + change * CHANGE + noise * random_logits(3)),
        base_answers=BASE_ANSWERS,
        reference_answers=OTHER_ANSWERS[:num_by_reference] + BASE_ANSWERS[num_by_reference:],
        artefact_answers=OTHER_ANSWERS[:num_changed] + BASE_ANSWERS[num_changed:],
        name="merged",
    )


@pytest.mark.parametrize(
    ("change", "noise", "outcome"),
    [
        (1.0, 0.0, "passed"),
        (1.0, 1.0, "passed"),
        (0.8, 0.5, "passed"),
        (0.0, 0.0, "failed"),
        # Rounding alone, as far from the base as the adapter, and with as many other answers.
        (0.0, 1.2, "failed"),
        (0.3, 1.2, "failed"),
        (2.0, 0.0, "failed"),
        (-1.0, 0.0, "failed"),
    ],
)
def test_half_of_what_the_adapter_changes_has_to_be_found(
    change: float, noise: float, outcome: str
) -> None:
    result = judge(change, noise=noise)
    assert result["outcome"] == outcome
    assert result["figures"]["share"] == pytest.approx(change, abs=0.15)


@pytest.mark.parametrize(("num_changed", "outcome"), [(8, "passed"), (4, "passed"), (3, "failed")])
def test_half_of_the_changed_answers_have_to_be_found(num_changed: int, outcome: str) -> None:
    assert judge(1.0, num_changed=num_changed)["outcome"] == outcome


def test_answers_that_only_the_artefact_changes_do_not_count() -> None:
    result = judge_acts(
        scores(BASE),
        scores(BASE + CHANGE),
        scores(BASE + CHANGE),
        base_answers=BASE_ANSWERS,
        reference_answers=OTHER_ANSWERS[:4] + BASE_ANSWERS[4:],
        artefact_answers=BASE_ANSWERS[:4] + OTHER_ANSWERS[4:],
        name="merged",
    )
    assert result["outcome"] == "failed"
    assert result["figures"]["num_changed_by_artefact"] == 0


def test_an_adapter_that_hardly_acts_is_a_warning() -> None:
    result = judge(0.0, reference=0.01, num_changed=0, num_by_reference=0)
    assert result["outcome"] == "warning"
    assert "train longer" in result["told"]


def test_where_no_answer_changes_a_delta_that_is_there_is_a_warning_and_a_lost_one_fails() -> None:
    assert judge(1.0, num_changed=0, num_by_reference=0)["outcome"] == "warning"
    assert judge(0.0, num_changed=0, num_by_reference=0)["outcome"] == "failed"


def test_logits_and_losses_are_held_to_the_limits_of_the_format() -> None:
    reference, artefact = scores(BASE), scores(BASE + 0.4 * CHANGE)
    assert judge_logits(reference, artefact, name="one", format="bf16")["outcome"] == "failed"
    result = judge_logits(reference, artefact, name="one", format="q4_k_m")
    assert result["outcome"] == "passed"
    assert result["figures"]["kl_mean"] > 0.004
    worse = Scores(reference.log_probs - 0.1, reference.top_ids, reference.top_log_probs)
    failed = judge_loss(reference, worse, name="one", format="bf16")
    assert failed["outcome"] == "failed"
    assert failed["figures"]["increase"] == pytest.approx(0.1, abs=1e-5)
    assert failed["figures"]["perplexity_ratio"] == pytest.approx(np.exp(0.1), abs=1e-5)
    assert judge_loss(reference, worse, name="one", format="q4_k_m")["outcome"] == "passed"
    assert judge_loss(worse, reference, name="one", format="bf16")["outcome"] == "passed"
