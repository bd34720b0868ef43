"""The rows of a further evaluation set: read as the data stage reads them, a few of them chosen."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from configs.data_schema import PersonalDataConfig, PresetSource, SingleSource
from configs.evaluation_schema import TaskConfig
from configs.schema import RunConfig
from data.conversation import Conversation, Source
from data.evaluation_rows import question_problem, with_system_prompt
from data.load_source import check_test_ids, listed_test_ids, open_source
from data.models.model_source import resolve_checkpoint
from data.presets import find_preset
from data.splits import TEST, TRAIN
from data.steps.read_rows import ReadTask, read_chunk
from data.steps.render_rows import load_rendering
from data.steps.spool import conversations_of
from data.tokens.template import Renderer, render_conversations
from evals.hash_sample import HashSample
from evals.worked_examples import ExampleCandidates

logger = logging.getLogger(__name__)


class SetRows(NamedTuple):
    """Rows to ask, chosen by the hash of their content, and candidates for worked examples."""

    rows: list[Conversation]
    examples: ExampleCandidates


def load_set(task: TaskConfig, config: RunConfig) -> SetRows:
    """`task.num_samples` rows of the set's test side, or of all rows where it has none.

    Equal rows are one row, and the order of the rows plays no part. The system prompt stands before
    rows without one, and what the configuration says about personal data is done, as in the data
    stage. Rows that cannot be asked are left out with a warning. Candidates for examples: rows to
    train on, where the set has a test side. Errors: `UserError` as the data stage tells them.
    """
    source = open_source(task.source)
    has_test = _has_test_side(task.source)
    checkpoint = resolve_checkpoint(config.model, with_weights=False)
    room = config.serve.context_length - (task.max_tokens or config.evaluation.max_tokens)
    chosen = _Chosen(HashSample(task.num_samples), load_rendering(checkpoint)[1], room)
    examples = ExampleCandidates(config.evaluation.seed)
    test_ids: set[str] = set()
    for chunk in _chunks(source, config.data.personal_data, chosen):
        for row in chunk:
            row = row._replace(
                conversation=with_system_prompt(row.conversation, config.data.system_prompt)
            )
            if has_test and row.side == TRAIN:
                examples.offer(row.conversation)
            if row.side == TEST and listed_test_ids(source):
                test_ids.add(row.conversation.id)
            if not has_test or row.side == TEST:
                chosen.offer(row)
    check_test_ids(source, test_ids)
    chosen.warn(task.name)
    return SetRows(_with_unique_ids(chosen.sample.rows()), examples)


class _Row(NamedTuple):
    key: int
    side: int
    conversation: Conversation


@dataclass
class _Chosen:
    """The rows to ask so far; left_out: rows that cannot be, by reason; room: tokens for a row."""

    sample: HashSample[Conversation]
    renderer: Renderer
    room: int
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def offer(self, row: _Row) -> None:
        # Rendering is slow: of many rows, only those are rendered that would be kept.
        if not self.sample.wants(row.key):
            return
        problem = question_problem(row.conversation) or self._length_problem(row.conversation)
        if problem:
            self.leave_out(problem, row.conversation.where)
        else:
            self.sample.add(row.key, row.conversation)

    def leave_out(self, reason: str, where: str) -> None:
        self.left_out[reason] += 1
        self.first.setdefault(reason, where)

    def warn(self, name: str) -> None:
        for reason, count in self.left_out.items():
            logger.warning(
                "%s: %d rows are not asked (%s), such as %s",
                name,
                count,
                reason,
                self.first[reason],
            )

    def _length_problem(self, row: Conversation) -> str:
        (rendered,) = render_conversations([row], self.renderer, max_length=self.room)
        if rendered.problem:
            return rendered.problem
        return f"more than {self.room} tokens" if rendered.num_dropped_turns else ""


def _has_test_side(config: SingleSource) -> bool:
    table = find_preset(config).source if isinstance(config, PresetSource) else config
    keys = ("test_path", "test_split", "test_ids_path")
    return any(getattr(table, key, None) is not None for key in keys)


def _chunks(
    source: Source, personal_data: PersonalDataConfig, chosen: _Chosen
) -> Iterator[Sequence[_Row]]:
    if personal_data.action == "report":
        # The data stage has told what there is, and looking for it takes most of the time.
        personal_data = personal_data.model_copy(update={"kinds": []})
    task = ReadTask(source=source, number=0, personal_data=personal_data)
    for chunk in source.chunks():
        result = read_chunk(task, chunk)
        for reject in result.rejects:
            chosen.leave_out(reject.reason, reject.where)
        if result.batch is not None:
            keys = (int.from_bytes(key) for key in result.batch.column("key").to_pylist())
            sides = result.batch.column("side").to_pylist()
            rows = conversations_of(result.batch)
            yield [_Row(*row) for row in zip(keys, sides, rows, strict=True)]


def _with_unique_ids(rows: Sequence[Conversation]) -> list[Conversation]:
    """An id that several rows have is told apart by a number; rows come in a fixed order."""
    seen: Counter[str] = Counter()
    unique = []
    for row in rows:
        seen[row.id] += 1
        number = seen[row.id]
        unique.append(replace(row, id=f"{row.id} #{number}") if number > 1 else row)
    return unique
