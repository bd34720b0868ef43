"""What a gate found: kept in the manifest and shown in the report, whether it passed or not."""

from typing import Literal, TypedDict

GateName = Literal["logits", "acts", "prompt", "loss"]
Outcome = Literal["passed", "warning", "failed"]


class GateResult(TypedDict):
    """One gate on one artefact.

    figures: what was measured, by name; limits: what the figures of these names were held to; told:
    one sentence for the user, with what to do where the gate did not pass.
    """

    gate: GateName
    artefact: str
    outcome: Outcome
    figures: dict[str, float]
    limits: dict[str, float]
    told: str
