"""What rounding has left of an adapter's update, told by layer."""

from collections.abc import Mapping

# Below this cosine between wanted and applied update, a layer is told.
LEAST_COSINE = 0.9
NUM_NAMED = 3


def worst_tensors(cosines: Mapping[str, float]) -> list[str]:
    """Names of the updated tensors, the one that lost most first."""
    return sorted(cosines, key=cosines.__getitem__)


def survival_warning(cosines: Mapping[str, float]) -> str | None:
    """What to tell where updates were lost in rounding, with the worst layers; None where not.

    A bf16 number has 8 significant bits: an update much smaller than the weight that it is added to
    moves few weights to the next number, and the others not at all.
    """
    lost = [name for name in worst_tensors(cosines) if cosines[name] < LEAST_COSINE]
    if not lost:
        return None
    named = ", ".join(f"{name} {cosines[name]:.2f}" for name in lost[:NUM_NAMED])
    return (
        f"rounding to bf16 has changed the direction of {len(lost)} of {len(cosines)} updates "
        f"(cosine under {LEAST_COSINE}; the worst: {named}). The updates are small against their "
        "weights: train longer or with a higher learning rate, or serve w4a16 or nf4, which are "
        "quantized from the sum itself"
    )
