"""Merges as the stage tells of them: one that passes all gates, one that fails."""

from train.gates.results import GateResult, Outcome
from train.merge_report.facts import ArtefactFacts, MergeFacts

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
NUM_LAYERS = 6
NUM_PARAMETERS = 24_000_000_000


def gates_of(name: str, *, acts: Outcome = "passed", loss: float = 1.26) -> list[GateResult]:
    outcomes: dict[str, Outcome] = {"acts": acts}
    figures: dict[str, dict[str, float]] = {
        "logits": {"kl_mean": 0.0123, "kl_max": 0.5, "top1_agreement": 0.957, "cosine": 0.99},
        "acts": {"share": 0.97},
        "prompt": {"num_prompts": 19, "num_alike": 19},
        "loss": {"loss": loss, "reference_loss": 1.25, "increase": loss - 1.25},
    }
    limits: dict[str, dict[str, float]] = {"logits": {"kl_mean": 0.1}, "acts": {"share": 0.5}}
    return [
        GateResult(
            gate=gate,
            artefact=name,
            outcome=outcomes.get(gate, "passed"),
            figures=figures[gate],
            limits=limits.get(gate, {}),
            told=f"what {gate} says of {name}.",
        )
        for gate in ("logits", "acts", "prompt", "loss")
    ]


def artefact(
    name: str, *, bits: float, loss: float | None, gates: list[GateResult]
) -> ArtefactFacts:
    return ArtefactFacts(
        format=name,
        path=f"artefacts/run.{name}.gguf",
        num_bytes=round(NUM_PARAMETERS * bits / 8),
        num_parameters=NUM_PARAMETERS,
        loss=loss,
        gates=gates,
    )


def passing_facts() -> MergeFacts:
    return MergeFacts(
        base={"kept": "nf4", "losses": {"bf16": 1.2611, "nf4": 1.25}},
        adapters=[{"name": "adapter", "weight": 1.0}, {"name": "other", "weight": 0.25}],
        num_merged_tensors=1234,
        survival={
            f"model.language_model.layers.{layer}.{kind}.weight": 0.999 - 0.001 * layer
            for layer in range(NUM_LAYERS)
            for kind in KINDS
        },
        reference_loss=1.25,
        base_loss=1.75,
        artefacts=[
            artefact("bf16", bits=16, loss=1.2501, gates=gates_of("bf16", loss=1.2501)),
            artefact("q4_k_m", bits=4.84, loss=1.26, gates=gates_of("q4_k_m")),
        ],
        seconds={"merge": 61.0, "gates": 5.5},
        warnings=[],
    )


def failing_facts() -> MergeFacts:
    facts = passing_facts()
    survival = facts["survival"] | {
        "model.language_model.layers.3.self_attn.k_proj.weight": 0.4567,
        "lm_head.weight": 0.95,
    }
    return facts | MergeFacts(
        base={"kept": "bf16", "losses": None},
        survival=survival,
        base_loss=1.2,
        artefacts=[
            artefact("bf16", bits=16, loss=None, gates=[]),
            artefact("q8_0", bits=8.5, loss=1.255, gates=gates_of("q8_0", acts="warning")),
            artefact("q4_k_m", bits=4.84, loss=1.4, gates=gates_of("q4_k_m", acts="failed")),
        ],
        warnings=["the adapter was trained on another base"],
    )
