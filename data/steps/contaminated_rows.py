"""The evaluation's rows against all that is meant for training; stops where too many are known.

An evaluation row is known where rows meant for training repeat it as a whole, or ask it (these are
kept out of training), or where most of its words stand in rows that are trained on.
"""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.data_schema import ContaminationConfig
from configs.errors import UserError
from data.conversation import Conversation, text_of
from data.copies.contamination import EvaluationIndex, Hits, longest_shared_run, summarize
from data.copies.word_ngrams import join_words, load_words, take_rows
from data.splits import TASK, TEST, TRAIN
from data.steps.bucket_words import scan_bucket, words_file
from data.steps.index_rows import RowIndex
from data.steps.leaks import Leak, find_leaks
from data.steps.preparation import Preparation
from data.steps.row_texts import rows_at, shorten
from data.steps.spool import NUM_BUCKETS, Spool

NUM_PAIRS_SHOWN = 20
NUM_PAIRS_TOLD = 3
MAX_CHARACTERS = 600
OWN_ROWS = "test rows"


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """An evaluation row and the row that gives it away; numbers are those of the index.

    kind: how they are alike; coverage: share of its question's words that are copied, and
    answer_coverage of its answers', None where whole rows or questions were compared; known:
    whether it counts, or only overlaps.
    """

    row: int
    train_row: int
    train_where: str
    kind: str
    known: bool
    coverage: float | None = None
    answer_coverage: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """The run's own test rows, or those of a task, and how many of them are known or overlap."""

    label: str
    num_rows: int
    num_known: int
    num_overlapping: int


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What was found, worst first; copied: float32, for each row of the index its coverage.

    lines: every row that is known or overlaps; pairs: some of them with their texts.
    """

    config: ContaminationConfig
    sets: list[EvaluationSet]
    lines: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    copied: np.ndarray

    def facts(self) -> dict[str, Any]:
        """Plain JSON for the report."""
        return {
            "ngram": self.config.ngram,
            "dirty_share": self.config.dirty_share,
            "max_share": self.config.max_share,
            "sets": [asdict(one) for one in self.sets],
            "pairs": self.pairs,
        }


def find_contamination(
    preparation: Preparation, index: RowIndex, actions: np.ndarray
) -> Contamination:
    """Compare every row that is trained on, or would have been, with every evaluation row."""
    found = [_of_leak(leak) for leak in find_leaks(index, actions)]
    found += _scan(preparation, index, actions)
    copied = np.zeros(len(actions), np.float32)
    for one in found:
        copied[one.row] = max(copied[one.row], one.coverage or 0.0)
    labels = np.array(
        [OWN_ROWS] * preparation.num_sources
        + [one.label for one in preparation.sources[preparation.num_sources :]]
    )
    label_of = labels[index.facts.source]
    return Contamination(
        config=preparation.config.data.contamination,
        sets=list(_count_sets(label_of, actions, found)),
        lines=[_told(index, one, str(label_of[one.row])) for one in found],
        pairs=_pairs(preparation.spool, index, list(_first_known(found, label_of)), label_of),
        copied=copied,
    )


def check_contamination(contamination: Contamination) -> None:
    """Raise a `UserError` that shows pairs where the share of known rows is above the limit."""
    for one in contamination.sets:
        share = one.num_known / one.num_rows
        if share <= contamination.config.max_share:
            continue
        pairs = [pair for pair in contamination.pairs if pair["set"] == one.label]
        shown = "".join(
            f"\n    {pair['test']} and {pair['train']} ({pair['kind']}):"
            f" {shorten(pair['shared_text'], 160)!r}"
            for pair in pairs[:NUM_PAIRS_TOLD]
        )
        raise UserError(
            f"{one.num_known:,} of {one.num_rows:,} {one.label} ({share:.1%}) are known from the "
            f"rows to train on; at most {contamination.config.max_share:.1%} may be{shown}",
            where="data.source, data.contamination.max_share",
            remedy="train on other rows than those that are tested; where the overlap is meant, "
            "raise data.contamination.max_share",
        )


def _first_known(found: list[KnownRow], label_of: np.ndarray) -> Iterator[KnownRow]:
    """Up to `NUM_PAIRS_SHOWN` known rows of each evaluation set."""
    num_shown: Counter[str] = Counter()
    for one in found:
        label = str(label_of[one.row])
        if one.known and num_shown[label] < NUM_PAIRS_SHOWN:
            num_shown[label] += 1
            yield one


def _of_leak(leak: Leak) -> KnownRow:
    whole = leak.kind != "nearly the same question"
    return KnownRow(**leak._asdict(), known=True, coverage=1.0 if whole else None)


def _scan(preparation: Preparation, index: RowIndex, actions: np.ndarray) -> list[KnownRow]:
    """Evaluation rows whose words stand in rows that are trained on, most copied first."""
    config = preparation.config.data.contamination
    evaluated = np.isin(actions, (TEST, TASK))
    if not evaluated.any():
        return []
    spool = preparation.spool
    kept = [
        take_rows(load_words(words_file(spool, bucket)), evaluated[index.rows_of(bucket)])
        for bucket in range(NUM_BUCKETS)
    ]
    near = preparation.config.data.near_duplicates
    evaluation = EvaluationIndex.build(
        join_words(kept), ngram=config.ngram, template=index.template, template_ngram=near.ngram
    )
    folder = spool.folder / f"evaluation-{uuid.uuid4().hex}"
    evaluation.save(folder)
    trained = np.where(actions == TRAIN, np.arange(len(actions)), -1)
    parts = [(bucket, trained[index.rows_of(bucket)]) for bucket in range(NUM_BUCKETS)]
    overlaps = summarize(
        evaluation, _hits(preparation, folder, parts), dirty_share=config.dirty_share
    )
    numbers = np.flatnonzero(evaluated)
    return [
        KnownRow(
            row=int(numbers[one.eval_row]),
            train_row=one.train_row,
            train_where=index.where[one.train_row].as_py(),
            kind="copied words",
            known=one.is_dirty,
            coverage=one.coverage,
            answer_coverage=one.answer_coverage,
        )
        for one in overlaps
    ]


def _hits(
    preparation: Preparation, folder: Path, parts: list[tuple[int, np.ndarray]]
) -> Iterator[Hits]:
    num_rows = sum(len(numbers) for _, numbers in parts)
    scan = partial(scan_bucket, preparation.spool, folder)
    with preparation.progress.step("evaluation rows in training", num_rows) as step:
        results = preparation.workers.map(scan, parts)
        for (_, numbers), hits in zip(parts, results, strict=True):
            yield hits
            step.advance(len(numbers))


def _count_sets(
    label_of: np.ndarray, actions: np.ndarray, found: list[KnownRow]
) -> Iterator[EvaluationSet]:
    evaluated = np.isin(actions, (TEST, TASK))
    known = np.unique([one.row for one in found if one.known]).astype(np.int64)
    overlapping = np.unique([one.row for one in found]).astype(np.int64)
    for label in dict.fromkeys(label_of[evaluated].tolist()):
        yield EvaluationSet(
            label=label,
            num_rows=int((evaluated & (label_of == label)).sum()),
            num_known=int((label_of[known] == label).sum()),
            num_overlapping=int((label_of[overlapping] == label).sum()),
        )


def _told(index: RowIndex, one: KnownRow, label: str) -> dict[str, Any]:
    shares = {"coverage": one.coverage, "answer_coverage": one.answer_coverage}
    return {
        "set": label,
        "test": index.where[one.row].as_py(),
        "train": one.train_where,
        "kind": one.kind,
        "known": one.known,
        **{name: None if share is None else round(share, 4) for name, share in shares.items()},
    }


def _pairs(
    spool: Spool, index: RowIndex, shown: list[KnownRow], label_of: np.ndarray
) -> list[dict[str, Any]]:
    tests = rows_at(spool, index, [one.row for one in shown])
    trains = rows_at(spool, index, [one.train_row for one in shown])
    return [
        _told(index, one, str(label_of[one.row])) | _texts(test, train)
        for one, test, train in zip(shown, tests, trains, strict=True)
    ]


def _texts(test: Conversation, train: Conversation) -> dict[str, Any]:
    shared = longest_shared_run(_turns(test), _turns(train))
    return {
        "num_shared_words": shared.num_words,
        "shared_text": shorten(shared.text, MAX_CHARACTERS),
        "test_text": shorten("\n".join(_turns(test)), MAX_CHARACTERS),
        "train_text": shorten("\n".join(_turns(train)), MAX_CHARACTERS),
    }


def _turns(row: Conversation) -> list[str]:
    return [text_of(turn) for turn in row.messages]
