"""The data report: one page that shows what goes into training, as the model will see it."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers import PreTrainedTokenizerBase

from configs.schema import RunConfig
from data.conversation import Reject, SourceRows
from data.template import Rendered

NUM_BINS = 24
NUM_ANSWERS_SHOWN = 15
NUM_REJECTS_SHOWN = 20


class Span(NamedTuple):
    """A stretch of a rendered conversation; supervised: whether the loss is taken over it."""

    text: str
    supervised: bool


class Bar(NamedTuple):
    """One bar of a chart; share: its length relative to the longest, 0 to 1."""

    label: str
    num_rows: int
    share: float


@dataclass(frozen=True)
class PreparedReport:
    """What the page shows; lengths are in tokens."""

    config: RunConfig
    source: SourceRows
    facts: dict[str, Any]
    rejects: list[Reject]
    answers: Counter[str]
    lengths: dict[Any, list[int]]
    samples: list[Rendered]


def write_report(file: Path, report: PreparedReport, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the page as one file without outside parts."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    all_lengths = [length for lengths in report.lengths.values() for length in lengths]
    html = environment.get_template("report.html.jinja").render(
        config=report.config,
        source=report.source,
        facts=report.facts,
        reject_reasons=Counter(reject.reason for reject in report.rejects).most_common(),
        rejects=report.rejects[:NUM_REJECTS_SHOWN],
        answer_bars=answer_bars(report.answers),
        num_answers=len(report.answers),
        length_bars=length_bars(all_lengths),
        longest=max(all_lengths),
        samples=[supervised_spans(sample, tokenizer) for sample in report.samples],
    )
    file.write_text(html, encoding="utf-8")


def supervised_spans(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> list[Span]:
    """The tokens back as text, cut where supervision begins and ends."""
    tokens = zip(rendered.input_ids, rendered.assistant_mask, strict=True)
    return [
        Span(str(tokenizer.decode([token for token, _ in run])), bool(supervised))
        for supervised, run in groupby(tokens, key=lambda pair: pair[1])
    ]


def answer_bars(answers: Counter[str]) -> list[Bar]:
    """The commonest answers, most frequent first."""
    shown = answers.most_common(NUM_ANSWERS_SHOWN)
    return [Bar(label, count, count / shown[0][1]) for label, count in shown]


def length_bars(lengths: list[int]) -> list[Bar]:
    """A histogram of row lengths in tokens, in bins of equal width."""
    width = max(1, -(-max(lengths) // NUM_BINS))
    bins = Counter((length - 1) // width for length in lengths)
    highest = max(bins.values())
    return [
        Bar(f"{number * width + 1}–{(number + 1) * width}", bins[number], bins[number] / highest)
        for number in range(max(bins) + 1)
    ]
