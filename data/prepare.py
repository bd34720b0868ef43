"""The prepare stage: a configured source in; train, validation and test rows out, none lost."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.schema import RunConfig
from data.cache import new_folder
from data.checks import RowError, check_messages
from data.conversation import Conversation, Message, Reject, SourceRows
from data.load_source import load_source
from data.model_source import load_tokenizer, resolve_checkpoint
from data.report import PreparedReport, write_report
from data.splits import Side, assign_side, content_hash, question_key
from data.template import Rendered, load_training_template, render_conversations

SIDES: tuple[Side, ...] = ("train", "validation", "test")
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("input_ids", pa.list_(pa.int32())),
        ("assistant_mask", pa.list_(pa.int8())),
    ]
)


@dataclass
class PreparedRow:
    """A conversation, its side and what the model will see of it."""

    conversation: Conversation
    side: Side
    rendered: Rendered


@dataclass
class Ledger:
    """Every row that was read and is not used, so that none is lost unseen.

    num_unanswered counts rows that are used without their last user turn.
    """

    rejects: list[Reject] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    num_unanswered: int = 0


def prepare(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Write `folder`: train, validation and test (parquet), rejects.jsonl, report.html.

    Rows read = rows written + rejects + rows dropped by a counted rule; returns these counts.
    """
    # 1. Rows of the source, each one a sound conversation or a reject.
    source = load_source(config.data.source)
    ledger = Ledger(rejects=list(source.rejects), dropped=Counter(source.dropped))
    conversations = select_rows(source.conversations, config, ledger)
    # 2. Sides, by what the source says and not by what the configuration puts in front of it.
    sides = split_rows(conversations, config, ledger)
    # 3. What the model will see.
    tokenizer = load_tokenizer(resolve_checkpoint(config.model, with_weights=False))
    rows = render_rows(sides, tokenizer, config, ledger)
    # 4. Refuse a split that cannot be trained or judged, before anything is written.
    counts = Counter(row.side for row in rows)
    check_counts(counts, ledger, config)
    num_lost = source.num_read - len(rows) - len(ledger.rejects) - ledger.dropped.total()
    assert num_lost == 0, f"{num_lost} rows are not accounted for"
    # 5. Files.
    facts = build_facts(source, rows, ledger)
    with new_folder(folder) as partial:
        for side in SIDES:
            write_rows(partial / f"{side}.parquet", [row for row in rows if row.side == side])
        write_rejects(partial / "rejects.jsonl", ledger.rejects)
        report = PreparedReport(
            config=config,
            source=source,
            facts=facts,
            rejects=ledger.rejects,
            answers=Counter(reference_answer(row.conversation) for row in rows),
            lengths={
                side: [len(row.rendered.input_ids) for row in rows if row.side == side]
                for side in SIDES
            },
            samples=[row.rendered for row in rows if row.side == "train"][:8],
        )
        write_report(partial / "report.html", report, tokenizer)
    return facts


def select_rows(
    conversations: list[Conversation], config: RunConfig, ledger: Ledger
) -> list[Conversation]:
    """Sound, unique rows in the order of their content hash; of equal rows a test row is kept."""
    unique: dict[str, Conversation] = {}
    for conversation in conversations:
        try:
            check_messages(conversation.messages)
        except RowError as error:
            ledger.rejects.append(Reject(where=conversation.id, reason=str(error)))
            continue
        answered = answered_part(conversation, ledger)
        key = content_hash(answered.messages)
        if key in unique:
            ledger.dropped["exact duplicate of another row"] += 1
        if key not in unique or answered.side == "test":
            unique[key] = answered
    ordered = [unique[key] for key in sorted(unique)]
    limit = config.data.max_rows or len(ordered)
    if ordered[limit:]:
        ledger.dropped["beyond data.max_rows"] += len(ordered) - limit
    return ordered[:limit]


def answered_part(conversation: Conversation, ledger: Ledger) -> Conversation:
    """The conversation up to its last assistant turn: a parting word of the user asks nothing."""
    if conversation.messages[-1]["role"] == "assistant":
        return conversation
    ledger.num_unanswered += 1
    return replace(conversation, messages=conversation.messages[:-1])


def with_system_prompt(conversation: Conversation, prompt: str | None) -> Conversation:
    """The conversation with `prompt` in front, unless it brings a system turn of its own."""
    if prompt is None or conversation.messages[0]["role"] == "system":
        return conversation
    system: Message = {"role": "system", "content": prompt}
    return replace(conversation, messages=(system, *conversation.messages))


def split_rows(
    conversations: list[Conversation], config: RunConfig, ledger: Ledger
) -> list[tuple[Conversation, Side]]:
    """Each row with its side and the configured system prompt.

    A row that asks, at any of its turns, what a test row asks never reaches training.
    """
    sides = [
        (
            conversation,
            assign_side(
                conversation,
                test_fraction=config.data.test_fraction,
                validation_fraction=config.data.validation_fraction,
            ),
        )
        for conversation in conversations
    ]
    tested = {question_key(row.messages[:-1]) for row, side in sides if side == "test"}
    kept = []
    for conversation, side in sides:
        if side != "test" and not tested.isdisjoint(asked_questions(conversation)):
            reason = "asks the same as a row of the test set"
            ledger.rejects.append(Reject(where=conversation.id, reason=reason))
        else:
            kept.append((with_system_prompt(conversation, config.data.system_prompt), side))
    return kept


def asked_questions(conversation: Conversation) -> list[str]:
    """What stands before each assistant turn, as `question_key` tells it."""
    messages = conversation.messages
    return [
        question_key(messages[:number])
        for number, turn in enumerate(messages)
        if turn["role"] == "assistant"
    ]


def render_rows(
    sides: list[tuple[Conversation, Side]],
    tokenizer: PreTrainedTokenizerBase,
    config: RunConfig,
    ledger: Ledger,
) -> list[PreparedRow]:
    """Rows with their tokens; those that would teach nothing or be tested cut are rejected."""
    rendered = render_conversations(
        [conversation.messages for conversation, _ in sides],
        tokenizer,
        template=load_training_template(tokenizer),
        max_length=config.model.max_length,
    )
    rows = []
    for (conversation, side), one in zip(sides, rendered, strict=True):
        if not one.num_supervised:
            reason = f"cut to {config.model.max_length} tokens, no assistant turn is left"
        elif side == "test" and one.num_dropped_turns:
            reason = f"a test row of more than {config.model.max_length} tokens"
        else:
            rows.append(PreparedRow(conversation, side, one))
            continue
        ledger.rejects.append(Reject(where=conversation.id, reason=reason))
    return rows


def check_counts(counts: Counter[Side], ledger: Ledger, config: RunConfig) -> None:
    """Raise a `UserError` where a side of the split is empty, naming the commonest reason."""
    empty = [side for side in SIDES if not counts[side]]
    if not empty:
        return
    reasons = Counter(reject.reason for reject in ledger.rejects).most_common(3)
    told = "; ".join(f"{count} × {reason}" for reason, count in reasons)
    raise UserError(
        f"the split has no {' and no '.join(empty)} rows ({counts.total()} rows in all"
        + (f"; rejected: {told})" if told else ")"),
        where=f"data.source.kind: {config.data.source.kind}",
        remedy="give more rows, or change data.test_fraction and data.validation_fraction",
    )


def build_facts(source: SourceRows, rows: list[PreparedRow], ledger: Ledger) -> dict[str, Any]:
    """Counts for the manifest and the report."""
    return {
        "num_read": source.num_read,
        "num_rows": {side: sum(row.side == side for row in rows) for side in SIDES},
        "num_rejects": len(ledger.rejects),
        "dropped": dict(ledger.dropped),
        "num_tokens": {
            side: sum(len(row.rendered.input_ids) for row in rows if row.side == side)
            for side in SIDES
        },
        "supervised_share": round(
            sum(row.rendered.num_supervised for row in rows)
            / sum(len(row.rendered.input_ids) for row in rows),
            4,
        ),
        "num_truncated": sum(row.rendered.num_dropped_turns > 0 for row in rows),
        "num_unanswered_turns_cut": ledger.num_unanswered,
    }


def reference_answer(conversation: Conversation) -> str:
    """The last assistant turn: what a test row's answer is compared with."""
    return next(
        turn["content"] for turn in reversed(conversation.messages) if turn["role"] == "assistant"
    )


def write_rows(file: Path, rows: list[PreparedRow]) -> None:
    """Rows as parquet, with the tokens and the mask that training will use."""
    table = pa.table(
        {
            "id": [row.conversation.id for row in rows],
            "group": [row.conversation.group for row in rows],
            "messages": [list(row.conversation.messages) for row in rows],
            "input_ids": [row.rendered.input_ids for row in rows],
            "assistant_mask": [row.rendered.assistant_mask for row in rows],
        },
        schema=ROW_SCHEMA,
    )
    pq.write_table(table, file, compression="zstd")


def write_rejects(file: Path, rejects: list[Reject]) -> None:
    """One JSON object a line: where the row stands, and why it was not used."""
    with file.open("w", encoding="utf-8") as handle:
        for reject in rejects:
            handle.write(json.dumps({"where": reject.where, "reason": reject.reason}) + "\n")
