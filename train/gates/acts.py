"""The second gate: the adapter acts, so the artefact is not the base under another name."""

from collections.abc import Sequence

from train.gates.distributions import divergences, effect_share
from train.gates.results import GateResult, Outcome
from train.gates.scoring import Scores

# Of what the reference changes, the part that has to be found in the artefact.
LEAST_SHARE = 0.5
MOST_SHARE = 1.5
# Below it, in nats, the reference hardly differs from the base.
LEAST_EFFECT = 1e-3
# As many changed answers say something.
LEAST_CHANGED = 2


def judge_acts(
    base: Scores,
    reference: Scores,
    artefact: Scores,
    *,
    base_answers: Sequence[list[int]],
    reference_answers: Sequence[list[int]],
    artefact_answers: Sequence[list[int]],
    name: str,
) -> GateResult:
    """The gate on the artefact `name`; all scores and answers are of the same rows.

    It asks for half of what the reference (base and unmerged adapter) changes: of the divergence
    from the base, of the changed answers, and of the changes of single log-probabilities
    (`effect_share`). The last tells the adapter from rounding, which alone can carry a 4-bit
    artefact without its adapter as far from the base, and change as many answers. The answers that
    count are those that the reference changes. Where that hardly differs from the base there is
    nothing to be found, and the outcome is a warning.
    """
    kl_reference = float(divergences(base, reference).mean())
    kl_artefact = float(divergences(base, artefact).mean())
    share = effect_share(base, reference, artefact)
    changed = [n for n, ids in enumerate(reference_answers) if ids != base_answers[n]]
    num_found = sum(artefact_answers[n] != base_answers[n] for n in changed)
    least_changed = len(changed) * LEAST_SHARE if len(changed) >= LEAST_CHANGED else 0.0
    hardly_acts = kl_reference < LEAST_EFFECT
    is_found = (
        kl_artefact >= LEAST_SHARE * kl_reference
        and LEAST_SHARE <= share <= MOST_SHARE
        and num_found >= least_changed
    )
    outcome: Outcome = "passed" if is_found else "failed"
    if hardly_acts or (is_found and not changed):
        outcome = "warning"
    num_as_reference = sum(
        one == other for one, other in zip(artefact_answers, reference_answers, strict=True)
    )
    return GateResult(
        gate="acts",
        artefact=name,
        outcome=outcome,
        figures={
            "kl_base_reference": kl_reference,
            "kl_base_artefact": kl_artefact,
            "share": share,
            "num_answers": len(artefact_answers),
            "num_changed_by_reference": len(changed),
            "num_changed_by_artefact": num_found,
            "num_as_reference": num_as_reference,
        },
        limits={
            "kl_base_artefact": LEAST_SHARE * kl_reference,
            "share": LEAST_SHARE,
            "share_most": MOST_SHARE,
            "num_changed_by_artefact": least_changed,
        },
        told=_told(outcome, name, share, num_found, len(changed)),
    )


def _told(outcome: Outcome, name: str, share: float, num_found: int, num_changed: int) -> str:
    found = (
        f"{share:.0%} of what the adapter changes in the base is found in {name}, and {num_found} "
        f"of the {num_changed} answers that it changes"
    )
    if outcome == "passed":
        return f"{found}."
    if outcome == "warning":
        return (
            f"the adapter hardly changes anything, so {name} could not be told from the base: "
            "train longer, or with a higher learning rate."
        )
    return (
        f"{found}: the adapter is not in it, not once, or its updates were lost in rounding. Merge "
        "again; where it fails again, train with a higher learning rate or scale, or give "
        "the artefact more bits."
    )
