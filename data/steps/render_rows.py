"""From a bucket of decided rows to what the model will see; runs in any of several processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation, Reject, Side
from data.evaluation_rows import question_problem, with_system_prompt
from data.splits import REJECT_REASONS, SIDES, TEST
from data.steps.rendered_batch import (
    STATISTICS,
    RenderedRow,
    count_rows,
    holds_images,
    to_batch,
)
from data.steps.spool import Spool, conversations_of
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.preference_pairs import pair_problem
from data.tokens.template import Renderer, load_renderer, render_conversations

# Encodings of this many rows are held at a time: they take about 100 bytes a token.
ROWS_AT_A_TIME = 1000
# Rows with images are large, and as JSON, turns and column they are held several times.
BYTES_AT_A_TIME = 32 << 20


class Span(NamedTuple):
    """A stretch of a rendered conversation; supervised: whether the loss is taken over it."""

    text: str
    supervised: bool


@dataclass(frozen=True, kw_only=True)
class RenderTask:
    """What a process has to know to render a bucket."""

    spool: Spool
    checkpoint: Path
    system_prompt: str | None
    max_length: int


@dataclass(frozen=True, kw_only=True)
class BucketDecisions:
    """What was decided on a bucket's rows: `actions` as `assign_sides` gives them, int8.

    renamed: rows whose id another row has too; copied: share of each evaluation row's words that
    training rows hold too; num_samples: training rows to show.
    """

    bucket: int
    actions: np.ndarray
    renamed: np.ndarray
    copied: np.ndarray
    num_samples: int = 0


@dataclass(kw_only=True)
class RenderResult:
    """A bucket's rows by side (`ROW_SCHEMA`), counts of them (`STATISTICS`) and what is left out.

    rejects come with the number of their source; statistics stand in the order of the tables:
    train, validation, test.
    """

    bucket: int
    tables: dict[Side, pa.Table]
    statistics: np.ndarray
    rejects: list[tuple[int, Reject]] = field(default_factory=list)
    samples: list[list[Span]] = field(default_factory=list)


def render_bucket(task: RenderTask, part: BucketDecisions) -> RenderResult:
    """Render the used rows of a bucket; those that would teach nothing or be tested cut are out."""
    table = task.spool.read(part.bucket)
    tokenizer, renderer = load_rendering(task.checkpoint)
    result = RenderResult(
        bucket=part.bucket,
        tables={},
        statistics=np.empty(0, STATISTICS),
        rejects=_rejects_of_decisions(table, part.actions),
    )
    sizes = pc.binary_length(table.column("messages")).to_numpy()
    for code, side in enumerate(SIDES):
        wanted = np.flatnonzero(part.actions == code)
        slices = [
            _render_slice(task, table, numbers, part, renderer)
            for numbers in _cut(wanted, sizes[wanted])
        ]
        result.rejects += chain.from_iterable(one.rejects for one in slices)
        result.statistics = np.concatenate([result.statistics, *(one.counts for one in slices)])
        if slices:
            result.tables[side] = pa.Table.from_batches([one.batch for one in slices])
    if part.num_samples and "train" in result.tables:
        shown = result.tables["train"].slice(0, part.num_samples)
        result.samples = _samples(shown, tokenizer)
    return result


def load_rendering(checkpoint: Path) -> tuple[PreTrainedTokenizerBase, Renderer]:
    """The tokenizer of a checkpoint and its renderer; a process keeps the last ones loaded.

    Errors: `UserError` as `load_tokenizer` and `load_renderer` tell them.
    """
    return _load(checkpoint, max(file.stat().st_mtime_ns for file in checkpoint.iterdir()))


def supervised_spans(
    input_ids: Sequence[int], assistant_mask: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[Span]:
    """The tokens back as text, cut where supervision begins and ends."""
    tokens = zip(input_ids, assistant_mask, strict=True)
    return [
        Span(str(tokenizer.decode([token for token, _ in run])), bool(supervised))
        for supervised, run in groupby(tokens, key=lambda pair: pair[1])
    ]


class _Slice(NamedTuple):
    batch: pa.RecordBatch
    counts: np.ndarray
    rejects: list[tuple[int, Reject]]


@lru_cache(maxsize=1)
def _load(checkpoint: Path, last_change: int) -> tuple[PreTrainedTokenizerBase, Renderer]:
    tokenizer = load_tokenizer(checkpoint)
    return tokenizer, load_renderer(tokenizer)


def _rejects_of_decisions(table: pa.Table, actions: np.ndarray) -> list[tuple[int, Reject]]:
    rejected = np.flatnonzero(np.isin(actions, list(REJECT_REASONS)))
    rows = table.select(["source", "where"]).take(rejected).to_pylist()
    return [
        (row["source"], Reject(where=row["where"], reason=REJECT_REASONS[int(code)]))
        for row, code in zip(rows, actions[rejected], strict=True)
    ]


def _render_slice(
    task: RenderTask,
    table: pa.Table,
    numbers: np.ndarray,
    part: BucketDecisions,
    renderer: Renderer,
) -> _Slice:
    rows = table.take(numbers)
    sources = rows.column("source").to_pylist()
    rejects = []
    rendered = []
    kept = []
    for n, row in enumerate(_render(conversations_of(rows), task, renderer)):
        problem = _problem(row, part.actions[numbers[n]] == TEST, task.max_length)
        if problem:
            rejects.append((sources[n], Reject(where=row.conversation.where, reason=problem)))
        else:
            kept.append(n)
            rendered.append(row)
    rows, numbers = rows.take(np.array(kept, np.int64)), numbers[kept]
    batch = to_batch(rows, rendered, renamed=part.renamed[numbers], copied=part.copied[numbers])
    counts = count_rows(rows, rendered, sides=part.actions[numbers], numbers=numbers)
    return _Slice(batch, counts, rejects)


def _cut(numbers: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Row numbers in stretches of at most so many rows and about so many bytes."""
    if not len(numbers):
        return []
    by_rows = np.arange(len(numbers)) // ROWS_AT_A_TIME
    by_bytes = np.cumsum(sizes) // BYTES_AT_A_TIME
    return np.split(numbers, np.flatnonzero(np.diff(by_rows) | np.diff(by_bytes)) + 1)


def _render(
    conversations: Sequence[Conversation], task: RenderTask, renderer: Renderer
) -> list[RenderedRow]:
    rows = [with_system_prompt(row, task.system_prompt) for row in conversations]
    tokens = render_conversations(rows, renderer, max_length=task.max_length)
    pairs = [row for row in rows if row.rejected]
    others = iter(renderer.render([_with_rejected_answer(row) for row in pairs]) if pairs else ())
    return [
        RenderedRow(row, one, next(others) if row.rejected else None)
        for row, one in zip(rows, tokens, strict=True)
    ]


def _with_rejected_answer(pair: Conversation) -> Conversation:
    assert pair.rejected is not None
    return replace(pair, messages=(*pair.messages[:-1], pair.rejected), rejected=None)


def _problem(row: RenderedRow, tested: bool, max_length: int) -> str:
    """Why a row cannot be used, empty where it can."""
    conversation, tokens = row.conversation, row.tokens
    if tokens.problem:
        return tokens.problem
    if row.rejected:
        if holds_images(conversation):
            return "a preference pair with images, which training does not take yet"
        if problem := pair_problem(tokens, row.rejected, max_length=max_length):
            return problem
    if not tokens.num_supervised:
        return f"cut to {max_length} tokens, no assistant turn is left"
    if not tested:
        return ""
    if tokens.num_dropped_turns:
        return f"a test row of more than {max_length} tokens"
    return question_problem(conversation)


def _samples(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> list[list[Span]]:
    return [
        supervised_spans(row["input_ids"], row["assistant_mask"], tokenizer)
        for row in rows.select(["input_ids", "assistant_mask"]).to_pylist()
    ]
