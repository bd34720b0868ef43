"""What a preparation tells about itself: counts for the manifest, the report and other programs."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.conversation import text_of
from data.splits import SIDE_CODES, SIDES, TEST, TRAIN, VALIDATION
from data.steps.contaminated_rows import Contamination
from data.steps.index_rows import RowIndex
from data.steps.preparation import Preparation
from data.steps.read_sources import ReadCounts
from data.steps.rendering import RenderedRows
from data.steps.row_texts import question_of, rows_at, shorten
from data.steps.spool import Spool
from data.tokens.packing import pack_efficiency, plan_packs

NUM_BINS = 24
NUM_ANSWERS = 15
NUM_CLUSTERS = 5
NUM_CLUSTER_TEXTS = 3
TEXT_CHARACTERS = 300
SUMMARY = (
    "num_read",
    "num_rows",
    "num_rejects",
    "dropped",
    "num_tokens",
    "supervised_share",
    "num_truncated",
    "num_unanswered_turns_cut",
)


def build_facts(
    preparation: Preparation,
    *,
    read: ReadCounts,
    index: RowIndex,
    actions: np.ndarray,
    contamination: Contamination,
    rendered: RenderedRows,
) -> dict[str, Any]:
    """Everything the report shows, as plain JSON."""
    counts = rendered.statistics
    ledger = preparation.ledger
    own = range(preparation.num_sources)
    lengths = counts["length"][counts["side"] == TRAIN]
    capacity = preparation.config.model.max_length
    packs = plan_packs(lengths, capacity)
    return {
        "sources": _sources(preparation, read, counts),
        "num_read": sum(ledger.num_read[n] for n in own),
        "num_rows": _by_side(counts, np.ones(len(counts), np.int64)),
        "num_rejects": sum(ledger.num_rejects[n] for n in own),
        "reject_reasons": dict(ledger.reasons_of(len(own)).most_common()),
        "dropped": dict(sum((ledger.dropped[n] for n in own), Counter())),
        "num_tokens": _by_side(counts, counts["length"]),
        "supervised_share": _share(counts["supervised"].sum(), counts["length"].sum()),
        "num_truncated": int((counts["dropped"] > 0).sum()),
        "num_unanswered_turns_cut": read.num_unanswered,
        "num_preference_pairs": int(counts["preference"].sum()),
        "duplicates": _duplicates(preparation, index, actions),
        "split": {
            "num_units": int(np.unique(index.unit).size),
            "largest_unit": int(np.bincount(index.unit).max(initial=0)),
            "official": [
                side
                for side, code in (("validation", VALIDATION), ("test", TEST))
                if (index.facts.fixed[~index.facts.task] == code).any()
            ],
        },
        "contamination": contamination.facts(),
        "personal_data": {
            "action": preparation.config.data.personal_data.action,
            "kinds": {
                kind: read.findings[kind] for kind in preparation.config.data.personal_data.kinds
            },
            "num_rows": read.num_rows_with_findings,
            "examples": [
                {"where": one.where, "kind": one.kind, "redacted": one.redacted}
                for one in read.examples
            ],
        },
        "answers": _answers(preparation, index, counts),
        "lengths": _lengths(counts),
        "packing": {
            "capacity": capacity,
            "num_packs": int(packs.max(initial=-1)) + 1,
            "efficiency": round(pack_efficiency(lengths, packs, capacity), 4),
        },
        "model": preparation.config.model.name,
        "max_length": capacity,
    }


def summarize(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that stand in the manifest."""
    revisions = {
        source["label"]: source["revision"] for source in facts["sources"] if source["revision"]
    }
    return {name: facts[name] for name in SUMMARY} | {"revisions": revisions}


def _by_side(counts: np.ndarray, values: np.ndarray) -> dict[str, int]:
    return {side: int(values[counts["side"] == SIDE_CODES[side]].sum()) for side in SIDES}


def _share(part: int, whole: int) -> float:
    return round(float(part) / float(whole), 4)


def _sources(
    preparation: Preparation, read: ReadCounts, counts: np.ndarray
) -> list[dict[str, Any]]:
    ledger = preparation.ledger
    return [
        {
            "number": number,
            "label": one.label,
            "kind": one.config.kind,
            "licence": one.source.licence,
            "attribution": one.source.attribution,
            "told": one.source.told,
            "revision": getattr(one.source, "revision", None),
            "is_evaluation_task": one.is_evaluation_task,
            "weight": one.weight,
            "num_read": ledger.num_read[number],
            "num_rejects": ledger.num_rejects[number],
            "missing_test_ids": read.missing_test_ids[number],
            "dropped": dict(ledger.dropped[number]),
            "num_rows": _by_side(counts, (counts["source"] == number).astype(np.int64)),
        }
        for number, one in enumerate(preparation.sources)
    ]


def _duplicates(preparation: Preparation, index: RowIndex, actions: np.ndarray) -> dict[str, Any]:
    sizes = np.bincount(index.facts.cluster, minlength=len(index.facts.cluster))
    sides = np.array([*SIDES, "not used"])[np.where(np.isin(actions, range(3)), actions, 3)]
    return {
        "num_exact_rows": sum(len(one.where) - 1 for one in index.exact),
        "num_exact_clusters": len(index.exact),
        "num_near_clusters": int((sizes > 1).sum()),
        "num_near_rows": int(sizes[sizes > 1].sum()),
        "num_ids_given_twice": int(index.renamed.sum()),
        "largest": [
            *_near_clusters(preparation.spool, index, sides, sizes),
            *_exact_clusters(preparation.spool, index, sides),
        ],
    }


def _near_clusters(
    spool: Spool, index: RowIndex, sides: np.ndarray, sizes: np.ndarray
) -> Iterator[dict[str, Any]]:
    largest = np.argsort(-sizes, kind="stable")[:NUM_CLUSTERS]
    for first in largest[sizes[largest] > 1]:
        members = np.flatnonzero(index.facts.cluster == first)[:NUM_CLUSTER_TEXTS]
        rows = rows_at(spool, index, members.tolist())
        yield {
            "kind": "near",
            "num_rows": int(sizes[first]),
            "side": str(sides[first]),
            "where": [row.where for row in rows],
            "texts": [shorten(question_of(row), TEXT_CHARACTERS) for row in rows],
        }


def _exact_clusters(spool: Spool, index: RowIndex, sides: np.ndarray) -> Iterator[dict[str, Any]]:
    by_size = sorted(range(len(index.exact)), key=lambda n: -len(index.exact[n].where))
    for number in by_size[:NUM_CLUSTERS]:
        kept, where = int(index.exact_kept[number]), index.exact[number].where
        (row,) = rows_at(spool, index, [kept])
        yield {
            "kind": "exact",
            "num_rows": len(where),
            "side": str(sides[kept]),
            "where": where[:NUM_CLUSTER_TEXTS],
            "texts": [shorten(question_of(row), TEXT_CHARACTERS)],
        }


def _answers(preparation: Preparation, index: RowIndex, counts: np.ndarray) -> dict[str, Any]:
    _, first, num_rows = np.unique(counts["answer"], return_index=True, return_counts=True)
    order = np.argsort(-num_rows, kind="stable")[:NUM_ANSWERS]
    shown = rows_at(preparation.spool, index, counts["row"][first[order]].tolist())
    return {
        "num_different": len(first),
        "commonest": [
            {"text": shorten(text_of(row.messages[-1]), 200), "num_rows": int(num_rows[number])}
            for row, number in zip(shown, order, strict=True)
        ],
        "largest_share": _share(num_rows.max(initial=0), len(counts)),
    }


def _lengths(counts: np.ndarray) -> dict[str, Any]:
    lengths = counts["length"]
    width = max(1, -(-int(lengths.max()) // NUM_BINS))
    return {
        "bin_width": width,
        "bins": {
            side: _histogram(lengths[counts["side"] == SIDE_CODES[side]], width) for side in SIDES
        },
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "longest": int(lengths.max()),
    }


def _histogram(lengths: np.ndarray, width: int) -> list[int]:
    """Rows by length, bin n holding n × width + 1 to (n + 1) × width tokens."""
    bins: list[int] = np.bincount((lengths - 1) // width, minlength=NUM_BINS).tolist()
    return bins
