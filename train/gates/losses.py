"""The fourth gate: what an artefact costs, as held-out loss beside that of base and adapter."""

import math

from configs.schema import ArtefactFormat
from train.gates.limits import LIMITS
from train.gates.results import GateResult
from train.gates.scoring import Scores


def judge_loss(
    reference: Scores, artefact: Scores, *, name: str, format: ArtefactFormat
) -> GateResult:
    """The gate on the artefact `name`; losses are means over the tokens of answers, in nats."""
    increase = artefact.loss - reference.loss
    limit = LIMITS[format].loss_increase
    told = (
        f"{name} has a held-out loss of {artefact.loss:.4f}, base and adapter {reference.loss:.4f}"
    )
    return GateResult(
        gate="loss",
        artefact=name,
        outcome="passed" if increase <= limit else "failed",
        figures={
            "loss": artefact.loss,
            "reference_loss": reference.loss,
            "increase": increase,
            "perplexity_ratio": math.exp(min(increase, 100.0)),
        },
        limits={"increase": limit},
        told=f"{told}."
        if increase <= limit
        else f"{told}: {format} may cost {limit:g} nats. Give the artefact more bits, or merge "
        "into the other base (merge.base).",
    )
