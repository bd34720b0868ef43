"""What the merge stage tells its report; what a run has not come to may be absent or None."""

from typing import Any, NotRequired, TypedDict

from configs.schema import BaseName
from train.gates.results import GateResult


class BaseFacts(TypedDict):
    """The base merged into; losses: of the adapter on each, in nats, where both were tried."""

    kept: BaseName
    losses: dict[BaseName, float] | None


class AdapterFacts(TypedDict):
    """A merged adapter; its update is multiplied by weight."""

    name: str
    weight: float


class ArtefactFacts(TypedDict):
    """An artefact. loss: held-out, in nats, where it was measured; gates: those that were run;
    details: what the writer of its format tells."""

    format: str
    path: str
    num_bytes: int
    num_parameters: int
    loss: float | None
    gates: list[GateResult]
    details: NotRequired[dict[str, Any]]


class MergeFacts(TypedDict, total=False):
    """One merge.

    architectures: the model's classes, as its configuration names them; survival: cosine between
    wanted and applied update by tensor; reference_loss: held-out loss of base and unmerged adapter,
    base_loss: of the base alone, in nats; adapter_exports: what their writers tell, by engine;
    seconds: by step.
    """

    base: BaseFacts
    adapters: list[AdapterFacts]
    architectures: list[str]
    num_merged_tensors: int
    worst_update_cosine: float
    worst_update_tensor: str
    survival: dict[str, float]
    reference_loss: float | None
    base_loss: float | None
    artefacts: list[ArtefactFacts]
    adapter_exports: dict[str, Any]
    seconds: dict[str, float]
    warnings: list[str]
