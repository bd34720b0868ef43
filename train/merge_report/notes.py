"""The merge in sentences: what passed, what did not, and what a reader should look at first."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from train.gates.results import GateName, GateResult, Outcome
from train.merge_report.curves import GOOD_COSINE, Survived
from train.merge_report.facts import MergeFacts

GATE_NAMES: dict[GateName, str] = {
    "logits": "Likeness to base and adapter",
    "acts": "Effect of the adapter",
    "prompt": "Prompts as in training",
    "loss": "Price of rounding",
}
NUM_NAMED = 3

Level = Literal["fine", "look", "wrong"]
LEVELS: tuple[Level, ...] = ("wrong", "look", "fine")


class Note(NamedTuple):
    """A sentence about the merge."""

    level: Level
    text: str


class Verdict(NamedTuple):
    """The merge in a line, and what that means."""

    level: Level
    title: str
    text: str


def all_gates(facts: MergeFacts) -> list[GateResult]:
    """Of all artefacts."""
    return [gate for artefact in facts.get("artefacts", []) for gate in artefact["gates"]]


def build_verdict(facts: MergeFacts) -> Verdict:
    """The page's first words."""
    gates = all_gates(facts)
    failed, warned = (_having(gates, outcome) for outcome in ("failed", "warning"))
    unjudged = [one["format"] for one in facts.get("artefacts", []) if not one["gates"]]
    if failed:
        return Verdict(
            "wrong",
            f"{_count(len(failed), 'gate')} failed",
            f"{_listed(failed)}. Do not use an artefact that failed one.",
        )
    if not gates:
        return Verdict("look", "No gate was run", "Whether the adapter is in it was not measured.")
    if warned:
        title = f"No gate failed, {_count(len(warned), 'gate')} warned"
        return Verdict("look", title, f"{_listed(warned)}. Read why below.")
    if unjudged:
        title = "All gates passed, but not all artefacts were checked"
        return Verdict("look", title, f"No gate was run on {', '.join(unjudged)}.")
    return Verdict(
        "fine",
        "All gates passed",
        "Every artefact carries the adapter, reads prompts as in training, and loses no more by "
        "its rounding than its format may.",
    )


def build_notes(facts: MergeFacts, survived: Sequence[Survived]) -> list[Note]:
    """What is wrong first, then what is worth a look."""
    notes = [
        *_gates(facts),
        *(Note("look", warning) for warning in facts.get("warnings", [])),
        *_survival(survived),
        *_gain(facts),
    ]
    return sorted(notes, key=lambda note: LEVELS.index(note.level))


def _gates(facts: MergeFacts) -> Iterator[Note]:
    for gate in all_gates(facts):
        if gate["outcome"] != "passed":
            level: Level = "wrong" if gate["outcome"] == "failed" else "look"
            yield Note(level, f"{GATE_NAMES[gate['gate']]}: {gate['told']}")


def _survival(survived: Sequence[Survived]) -> Iterator[Note]:
    if not survived:
        return
    lost = [one for one in survived if one.cosine < GOOD_COSINE]
    if lost:
        named = ", ".join(f"{one.tensor} ({one.cosine:.3f})" for one in lost[:NUM_NAMED])
        yield Note(
            "look",
            f"Rounding has bent the update of {_count(len(lost), 'layer')} of {len(survived):,}: "
            f"the cosine is below {GOOD_COSINE:g}, worst {named}.",
        )
    else:
        yield Note(
            "fine",
            f"The update is whole in {_all_layers(len(survived))}: the cosine is "
            f"{survived[0].cosine:.3f} or more.",
        )


def _gain(facts: MergeFacts) -> Iterator[Note]:
    base, reference = facts.get("base_loss"), facts.get("reference_loss")
    if base is None or reference is None:
        return
    if reference < base:
        yield Note(
            "fine",
            f"The adapter lowers the held-out loss of the base from {base:.4f} to {reference:.4f}.",
        )
    else:
        yield Note(
            "look",
            f"The adapter does not lower the held-out loss: {base:.4f} without it, "
            f"{reference:.4f} with it.",
        )


def _having(gates: Sequence[GateResult], outcome: Outcome | str) -> list[GateResult]:
    return [gate for gate in gates if gate["outcome"] == outcome]


def _listed(gates: Sequence[GateResult]) -> str:
    by_artefact: dict[str, list[str]] = {}
    for gate in gates:
        by_artefact.setdefault(gate["artefact"], []).append(GATE_NAMES[gate["gate"]].lower())
    return "; ".join(f"{name}: {', '.join(which)}" for name, which in by_artefact.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _all_layers(number: int) -> str:
    return "the one layer that it changes" if number == 1 else f"all {number:,} layers"
