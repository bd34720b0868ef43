"""What artefacts are held to: the same held-out rows, asked of the base and of its adapter."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from configs.artefact_paths import artefact_path
from configs.schema import ArtefactFormat, BaseName, RunConfig
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer
from train.artefacts.steps import Steps
from train.gates.base_choice import choose_base
from train.gates.held_out import load_held_out
from train.gates.open_model import open_checkpoint, open_with_adapters
from train.gates.prompt import PromptCase, build_prompt_cases
from train.gates.results import GateResult
from train.gates.run import Measured, judge, measure
from train.gates.scoring import HeldOutRow, Scorer
from train.merging.adapters import WeightedAdapter
from train.quantization import read_config, read_quantization

# Opens a GGUF in the engine that serves it; told the longest row with its answer, in tokens.
OpenGguf = Callable[[Path, int], AbstractContextManager[Scorer]]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What the merge stage works on. checkpoint: the base as it was trained on."""

    config: RunConfig
    run: Path
    checkpoint: Path
    open_gguf: OpenGguf
    steps: Steps

    @property
    def adapters(self) -> list[WeightedAdapter]:
        """The run's own first."""
        merge = self.config.merge
        own = WeightedAdapter(self.run / "adapter", merge.weight)
        return [own, *(WeightedAdapter(one.path, one.weight) for one in merge.further_adapters)]

    @property
    def has_vision(self) -> bool:
        """Whether the model sees images."""
        return "vision_config" in read_config(self.checkpoint)


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What artefacts are held to, on rows that training never saw.

    base, reference: what the base makes of them, alone and with its adapters unmerged; kept: the
    base that is merged into; losses: of the adapters on either base, where both were measured.
    """

    rows: Sequence[HeldOutRow]
    cases: Sequence[PromptCase]
    base: Measured
    reference: Measured
    kept: BaseName
    losses: dict[BaseName, float] | None


def take_yardstick(merge: Merge) -> Yardstick:
    """Choose the base, and measure it with and without the adapters."""
    settings = merge.config.merge
    rows = load_held_out(
        merge.run / "data" / "validation.parquet",
        num_rows=settings.num_gate_rows,
        max_length=merge.config.model.max_length,
    )
    renderer = load_renderer(load_tokenizer(merge.checkpoint))
    kept, losses = _choose_base(merge, rows)

    def measured(adapters: Sequence[WeightedAdapter]) -> Measured:
        with open_with_adapters(merge.checkpoint, adapters, base=kept) as scorer:
            return measure(scorer, rows, max_tokens=settings.gate_answer_tokens)

    with merge.steps.step("asking the base"):
        base = measured([])
    with merge.steps.step("asking base and adapter"):
        reference = measured(merge.adapters)
    return Yardstick(
        rows=rows,
        cases=build_prompt_cases(rows, renderer),
        base=base,
        reference=reference,
        kept=kept,
        losses=losses,
    )


def _choose_base(
    merge: Merge, rows: Sequence[HeldOutRow]
) -> tuple[BaseName, dict[BaseName, float] | None]:
    wanted = merge.config.merge.base
    if read_quantization(merge.checkpoint) is not None:
        return "nf4", None
    if wanted != "auto":
        return wanted, None
    if merge.config.train.quantization == "none":
        return "bf16", None
    with merge.steps.step("choosing the base"):
        return choose_base(merge.checkpoint, merge.adapters, rows)


def judge_artefact(
    merge: Merge, kind: ArtefactFormat, path: Path, yardstick: Yardstick
) -> list[GateResult]:
    """All gates on one artefact, loaded in its engine: llama.cpp, or transformers for folders."""
    max_tokens = merge.config.merge.gate_answer_tokens
    opened: AbstractContextManager[Scorer]
    if path.is_dir():
        opened = open_checkpoint(path)
    else:
        longest = max(len(row.ids) for row in yardstick.rows)
        opened = merge.open_gguf(path, longest + max_tokens)
    with opened as scorer:
        return judge(
            scorer,
            name=artefact_path(merge.config, kind).name,
            format=kind,
            rows=yardstick.rows,
            cases=yardstick.cases,
            base=yardstick.base,
            reference=yardstick.reference,
            max_tokens=max_tokens,
        )
