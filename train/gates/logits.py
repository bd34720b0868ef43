"""The first gate: an artefact says of held-out tokens what base and unmerged adapter say."""

from typing import NamedTuple

import numpy as np

from configs.schema import ArtefactFormat
from train.gates.distributions import divergences, logit_cosines
from train.gates.limits import LIMITS
from train.gates.results import GateResult
from train.gates.scoring import Scores


class Comparison(NamedTuple):
    """How an artefact differs from the reference, over all scored tokens.

    kl_mean, kl_max: divergence from the reference in nats, a lower bound (`divergences`);
    top1_agreement: share of the tokens at which the same one is likeliest; cosine: mean of
    `logit_cosines`.
    """

    kl_mean: float
    kl_max: float
    top1_agreement: float
    cosine: float


def compare(reference: Scores, artefact: Scores) -> Comparison:
    """Both have to be of the same rows."""
    apart = divergences(reference, artefact)
    return Comparison(
        kl_mean=float(apart.mean()),
        kl_max=float(apart.max()),
        top1_agreement=float(np.mean(reference.top_ids[:, 0] == artefact.top_ids[:, 0])),
        cosine=float(logit_cosines(reference, artefact).mean()),
    )


def judge_logits(
    reference: Scores, artefact: Scores, *, name: str, format: ArtefactFormat
) -> GateResult:
    """The gate on the artefact `name`."""
    comparison, limits = compare(reference, artefact), LIMITS[format]
    is_near = (
        comparison.kl_mean <= limits.kl_mean and comparison.top1_agreement >= limits.top1_agreement
    )
    same = f"the likeliest token is the same at {comparison.top1_agreement:.1%} of the places"
    apart = f"{comparison.kl_mean:.2g} nats from base and adapter on average, and {same}"
    return GateResult(
        gate="logits",
        artefact=name,
        outcome="passed" if is_near else "failed",
        figures=comparison._asdict(),
        limits={"kl_mean": limits.kl_mean, "top1_agreement": limits.top1_agreement},
        told=f"{name} is {apart}."
        if is_near
        else f"{name} is not base and adapter: it is {apart}, and {format} may be "
        f"{limits.kl_mean:g} nats away and agree at {limits.top1_agreement:.0%}. Merge again; "
        "where it fails again, part of the adapter or of the base is not in it as it should be.",
    )
