"""The merge report: one page that shows whether artefacts carry the adapter, and their price."""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from configs.schema import RunConfig
from data.html import load_page
from train.gates.results import GateName, GateResult
from train.merge_report.curves import (
    GOOD_COSINE,
    NARROW_INCHES,
    SIGNS,
    WIDE_INCHES,
    Price,
    Survived,
    draw_prices,
    draw_survival,
    format_difference,
    kinds_of,
    read_survival,
)
from train.merge_report.facts import ArtefactFacts, MergeFacts
from train.merge_report.notes import GATE_NAMES, build_notes, build_verdict
from train.report.notes import format_seconds

TEMPLATE = Path(__file__).parent / "report.html.jinja"
VERSIONS = ("tunery", "torch", "transformers", "peft", "gguf", "compressed-tensors", "xllamacpp")
NUM_WORST = 10
GB, GIB, MIB = 10**9, 2**30, 2**20
# What is needed beside the weights: activations, and the cache of a few thousand tokens.
ROOM_SHARE, ROOM_BYTES = 1.15, 0.5 * GIB
CARDS_GB = (8, 12, 16, 24, 32, 48, 80, 96, 141)
MEMORIES_GB = (8, 16, 24, 32, 48, 64, 96, 128, 192)
# Of a Mac's memory, what macOS lets its GPU have.
MAC_SHARE = 2 / 3
BASE_WORDS = {
    "bf16": "the base's own weights (bf16)",
    "nf4": "the 4-bit weights that the adapter was trained on (nf4, put back into bf16)",
}
LLAMA_CPP = "llama.cpp"
WORDS = {
    "bf16": ("16 bits, unquantized", "vLLM or transformers"),
    "w4a16": ("4 bits, for vLLM", "vLLM"),
    "nf4": ("4 bits, for transformers", "transformers with bitsandbytes"),
    "f16": ("16 bits, unquantized", LLAMA_CPP),
    "q8_0": ("8 bits", LLAMA_CPP),
    "q6_k": ("about 6 bits", LLAMA_CPP),
    "q5_k_m": ("about 5 bits", LLAMA_CPP),
    "q4_k_m": ("about 4 bits", LLAMA_CPP),
}


class Artefact(NamedTuple):
    """A row of the page's tables; what is None was not measured.

    increase: of the held-out loss against the adapter's own, in nats; gates: by name.
    """

    format: str
    words: str
    path: str
    engine: str
    machine: str
    size: str
    bits: float | None
    loss: float | None
    increase: float | None
    top1_agreement: float | None
    kl_mean: float | None
    gates: dict[GateName, GateResult]


class Card(NamedTuple):
    """A figure at the head of the page."""

    value: str
    label: str
    note: str


class Kind(NamedTuple):
    """A line of the survival plot: its form and the number of its colour."""

    name: str
    sign: str
    colour: int


def write_merge_report(file: Path, *, config: RunConfig, facts: MergeFacts) -> None:
    """Write the page as one file without outside parts; every text is escaped."""
    survived = read_survival(facts.get("survival", {}))
    in_layers = [one for one in survived if one.kind is not None]
    prices = list(_prices(facts))
    html = load_page(TEMPLATE, {"difference": format_difference, "seconds": format_seconds}).render(
        config=config,
        facts=facts,
        verdict=build_verdict(facts),
        notes=build_notes(facts, survived),
        cards=list(_cards(facts, survived)),
        artefacts=[read_artefact(one, facts) for one in facts.get("artefacts", [])],
        gate_names=GATE_NAMES,
        base_words=BASE_WORDS,
        gain=_gain(facts),
        # curves.py writes the SVG, out of numbers, fixed words and the formats' names.
        price_figures=_figures(draw_prices, prices),
        survival_figures=_figures(draw_survival, in_layers),
        kinds=[
            Kind(name, SIGNS[n % len(SIGNS)], n % len(SIGNS))
            for n, name in enumerate(kinds_of(survived))
        ],
        good_cosine=GOOD_COSINE,
        worst=survived[:NUM_WORST],
        num_tensors=len(survived),
        versions=find_versions(),
    )
    file.write_text(html, encoding="utf-8")


def read_artefact(facts: ArtefactFacts, merge: MergeFacts) -> Artefact:
    """What the tables say of an artefact."""
    gates = {gate["gate"]: gate for gate in facts["gates"]}
    logits = gates["logits"]["figures"] if "logits" in gates else {}
    words, engine = WORDS.get(facts["format"], ("", "its own engine"))
    num_parameters = facts["num_parameters"]
    return Artefact(
        format=facts["format"],
        words=words,
        path=facts["path"],
        engine=engine,
        machine=name_machines(facts["num_bytes"], engine=engine),
        size=format_bytes(facts["num_bytes"]),
        bits=facts["num_bytes"] * 8 / num_parameters if num_parameters else None,
        loss=facts["loss"],
        increase=_increase(facts, merge),
        top1_agreement=logits.get("top1_agreement"),
        kl_mean=logits.get("kl_mean"),
        gates=gates,
    )


def name_machines(num_bytes: int, *, engine: str) -> str:
    """The smallest usual machines that hold weights of this size, with a short context."""
    needed = num_bytes * ROOM_SHARE + ROOM_BYTES
    card = next((gb for gb in CARDS_GB if gb * GB >= needed), None)
    told = "several cards" if card is None else f"a card of {card} GB"
    if engine != LLAMA_CPP:
        return told
    memory = next((gb for gb in MEMORIES_GB if gb * GB * MAC_SHARE >= needed), None)
    return told if memory is None else f"{told}, or a CPU or Mac with {memory} GB"


def format_bytes(num_bytes: int) -> str:
    """A size in its unit, for instance "13.1 GiB"."""
    if num_bytes >= GIB:
        return f"{num_bytes / GIB:.1f} GiB"
    return f"{num_bytes / MIB:,.0f} MiB" if num_bytes >= 10 * MIB else f"{num_bytes / MIB:.1f} MiB"


def find_versions() -> dict[str, str]:
    """Of the libraries that merge, quantize and check; what is not installed took no part."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _increase(artefact: ArtefactFacts, merge: MergeFacts) -> float | None:
    reference = merge.get("reference_loss")
    if artefact["loss"] is None or reference is None:
        return None
    return artefact["loss"] - reference


def _gain(facts: MergeFacts) -> float | None:
    """By how much the adapter itself lowers the base's held-out loss."""
    base, reference = facts.get("base_loss"), facts.get("reference_loss")
    return None if base is None or reference is None or base <= reference else base - reference


def _prices(facts: MergeFacts) -> Iterator[Price]:
    for artefact in facts.get("artefacts", []):
        increase = _increase(artefact, facts)
        if increase is not None:
            yield Price(artefact["format"], artefact["num_bytes"] / GIB, increase)


def _figures(draw: Callable[..., str], values: Sequence[object]) -> dict[str, Markup]:
    """A plot for wide and one for narrow pages; none where there is nothing to show."""
    widths = {"wide": WIDE_INCHES, "narrow": NARROW_INCHES} if values else {}
    return {name: Markup(draw(values, width_inches=width)) for name, width in widths.items()}


def _cards(facts: MergeFacts, survived: Sequence[Survived]) -> Iterator[Card]:
    reference, base = facts.get("reference_loss"), facts.get("base_loss")
    if reference is not None:
        note = "of base and adapter, unmerged" if base is None else f"{base:.4f} without adapter"
        yield Card(f"{reference:.4f}", "held-out loss", note)
    sizes = [artefact["num_bytes"] for artefact in facts.get("artefacts", [])]
    if sizes:
        label = "artefact" if len(sizes) == 1 else "artefacts"
        yield Card(f"{len(sizes)}", label, f"{format_bytes(sum(sizes))} in all")
    if survived:
        value = f"{survived[0].cosine:.3f}"
        yield Card(value, "least cosine of an update", f"of {len(survived):,} tensors; 1 is whole")
    if facts.get("seconds"):
        yield Card(format_seconds(sum(facts["seconds"].values())), "for all steps", "")
