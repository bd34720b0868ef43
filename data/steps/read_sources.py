"""All rows of all sources into the spool; rejects and counts into the ledger."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import pyarrow.compute as pc

from configs.data_schema import PersonalDataKind
from data.load_source import check_test_ids, listed_test_ids
from data.splits import TEST
from data.steps.preparation import Preparation
from data.steps.read_rows import MAX_EXAMPLES, PersonalDataExample, ReadResult, ReadTask, read_chunk


@dataclass
class ReadCounts:
    """What reading found beside rows and rejects.

    findings: personal data by kind, with rows that hold any and some examples; num_unanswered: rows
    used without their last turns, which nobody answers; num_rows: rows in the spool;
    missing_test_ids: by source, ids of its official test split that no usable row has.
    """

    num_rows: int = 0
    num_unanswered: int = 0
    findings: Counter[PersonalDataKind] = field(default_factory=Counter)
    num_rows_with_findings: int = 0
    examples: list[PersonalDataExample] = field(default_factory=list)
    missing_test_ids: dict[int, list[str]] = field(default_factory=dict)

    def add(self, result: ReadResult) -> None:
        """Count a chunk."""
        self.num_rows += result.batch.num_rows if result.batch is not None else 0
        self.num_unanswered += result.num_unanswered
        self.findings.update(result.findings)
        self.num_rows_with_findings += result.num_rows_with_findings
        self.examples += result.examples[: MAX_EXAMPLES - len(self.examples)]


def read_sources(preparation: Preparation) -> ReadCounts:
    """Read every source once, chunk by chunk."""
    counts = ReadCounts()
    ledger = preparation.ledger
    with preparation.spool.filling() as writer, preparation.progress.step("reading") as step:
        for number, one in enumerate(preparation.sources):
            task = ReadTask(
                source=one.source,
                number=number,
                personal_data=preparation.config.data.personal_data,
                is_evaluation_task=one.is_evaluation_task,
            )
            results = preparation.workers.map(
                partial(read_chunk, task), one.source.chunks(), may_start=True
            )
            test_ids: set[str] = set()
            for result in results:
                ledger.num_read[number] += result.num_read
                ledger.reject(number, result.rejects)
                for rule, count in result.dropped.items():
                    ledger.drop(number, rule, count)
                counts.add(result)
                if result.batch is not None:
                    writer.write(result.batch)
                    if listed_test_ids(one.source):
                        tested = result.batch.filter(pc.field("side") == TEST)
                        test_ids.update(tested.column("id").to_pylist())
                step.advance(result.num_read)
            counts.missing_test_ids[number] = check_test_ids(one.source, test_ids)
    return counts
