"""From a bucket of decided rows to what the model will see; runs in any of several processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from data.conversation import Conversation, Message, Reject, Side, text_of
from data.splits import REJECT_REASONS, SIDES, TEST
from data.steps.spool import Spool, conversations_of
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import Rendered, Renderer, load_renderer, render_conversations

# Encodings of this many rows are held at a time: they take about 100 bytes a token.
ROWS_AT_A_TIME = 1000
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("where", pa.string()),
        ("source", pa.int16()),
        ("group", pa.string()),
        ("messages", pa.string()),
        ("tools", pa.string()),
        ("rejected", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("assistant_mask", pa.list_(pa.int8())),
        ("copied_share", pa.float32()),
    ]
)
# What is counted of each written row. side: as in `SIDES`; row: its place in the bucket; length and
# supervised in tokens; dropped: turns cut from its end; answer: hash of its last turn.
STATISTICS = np.dtype(
    [
        ("side", "i1"),
        ("source", "i2"),
        ("row", "i4"),
        ("length", "i4"),
        ("supervised", "i4"),
        ("dropped", "i4"),
        ("answer", "u8"),
        ("preference", "?"),
    ]
)


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
    for code, side in enumerate(SIDES):
        wanted = np.flatnonzero(part.actions == code)
        slices = [
            _render_slice(task, table, wanted[start : start + ROWS_AT_A_TIME], part, renderer)
            for start in range(0, len(wanted), ROWS_AT_A_TIME)
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
    conversations = [_with_system_prompt(row, task.system_prompt) for row in conversations_of(rows)]
    rendered = render_conversations(conversations, renderer, max_length=task.max_length)
    sources = rows.column("source").to_pylist()
    rejects = []
    kept = []
    for n, (row, one) in enumerate(zip(conversations, rendered, strict=True)):
        problem = _problem(row, one, part.actions[numbers[n]] == TEST, task.max_length)
        if problem:
            rejects.append((sources[n], Reject(where=row.where, reason=problem)))
        else:
            kept.append(n)
    rows = rows.take(np.array(kept, np.int64))
    numbers, rendered = numbers[kept], [rendered[n] for n in kept]
    conversations = [conversations[n] for n in kept]
    batch = _to_batch(rows, conversations, rendered, part, numbers)
    counts = _count(rows, conversations, rendered, part.actions[numbers], numbers)
    return _Slice(batch, counts, rejects)


def _with_system_prompt(conversation: Conversation, prompt: str | None) -> Conversation:
    """The conversation with `prompt` in front, unless it brings a system turn of its own."""
    if prompt is None or conversation.messages[0]["role"] == "system":
        return conversation
    system: Message = {"role": "system", "content": prompt}
    return replace(conversation, messages=(system, *conversation.messages))


def _problem(row: Conversation, rendered: Rendered, tested: bool, max_length: int) -> str:
    """Why a row cannot be used, empty where it can."""
    if rendered.problem:
        return rendered.problem
    if not rendered.num_supervised:
        return f"cut to {max_length} tokens, no assistant turn is left"
    if tested and rendered.num_dropped_turns:
        return f"a test row of more than {max_length} tokens"
    if tested and (row.tools or any(turn["role"] == "tool" for turn in row.messages)):
        return "a test row with tools, which the evaluation cannot offer yet"
    if any(not isinstance(turn["content"], str) for turn in row.messages):
        return "holds images, which training does not take yet"
    return ""


def _to_batch(
    rows: pa.Table,
    conversations: list[Conversation],
    rendered: list[Rendered],
    part: BucketDecisions,
    numbers: np.ndarray,
) -> pa.RecordBatch:
    ids = rows.column("id").to_pylist()
    for n in np.flatnonzero(part.renamed[numbers]):
        # Ids have to be unique; the content's hash tells the rows apart in any order of the files.
        ids[n] = f"{ids[n]} #{rows.column('key')[int(n)].as_py().hex()[:8]}"
    arrays: dict[str, Any] = {
        name: rows.column(name).combine_chunks().cast(ROW_SCHEMA.field(name).type)
        for name in ("where", "source", "group", "tools", "rejected")
    }
    arrays["id"] = pa.array(ids, pa.string())
    arrays["messages"] = pa.array(
        [orjson.dumps(row.messages) for row in conversations], pa.string()
    )
    offsets = np.cumsum([0, *(len(one.input_ids) for one in rendered)], dtype=np.int32)
    for name, dtype in (("input_ids", np.int32), ("assistant_mask", np.int8)):
        flat = np.fromiter(
            chain.from_iterable(getattr(one, name) for one in rendered), dtype, offsets[-1]
        )
        arrays[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    arrays["copied_share"] = pa.array(part.copied[numbers], pa.float32())
    return pa.RecordBatch.from_arrays(
        [arrays[field.name] for field in ROW_SCHEMA], schema=ROW_SCHEMA
    )


def _count(
    rows: pa.Table,
    conversations: list[Conversation],
    rendered: list[Rendered],
    actions: np.ndarray,
    numbers: np.ndarray,
) -> np.ndarray:
    counts = np.empty(len(rendered), STATISTICS)
    counts["side"] = actions
    counts["source"] = rows.column("source").to_numpy()
    counts["row"] = numbers
    counts["length"] = [len(one.input_ids) for one in rendered]
    counts["supervised"] = [one.num_supervised for one in rendered]
    counts["dropped"] = [one.num_dropped_turns for one in rendered]
    answers = pl.Series([text_of(row.messages[-1]) for row in conversations], dtype=pl.String)
    counts["answer"] = answers.hash(seed=0).to_numpy()
    counts["preference"] = [row.rejected is not None for row in conversations]
    return counts


def _samples(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> list[list[Span]]:
    return [
        supervised_spans(row["input_ids"], row["assistant_mask"], tokenizer)
        for row in rows.select(["input_ids", "assistant_mask"]).to_pylist()
    ]
