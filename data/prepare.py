"""The prepare stage: configured sources in; train, validation and test rows out, none lost.

Rows pass through a spool on disk, in processes that each hold a bucket of them, so that memory
hardly grows with their number; what has to be known of all at once are a few hashes of each.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from configs.errors import UserError
from configs.schema import RunConfig
from data.cache import new_folder
from data.models.model_source import resolve_checkpoint
from data.report.page import write_report
from data.splits import DROP_RULES, SIDE_CODES, SIDES, TASK, assign_sides
from data.steps.contaminated_rows import check_contamination, find_contamination
from data.steps.facts import build_facts, summarize
from data.steps.index_rows import RowIndex, index_rows
from data.steps.ledger import Ledger, open_ledger
from data.steps.preparation import Preparation, open_sources
from data.steps.progress import PrepareProgress
from data.steps.read_sources import read_sources
from data.steps.render_rows import load_rendering
from data.steps.rendering import RenderedRows, render_rows
from data.steps.spool import Spool
from data.steps.workers import Workers
from data.steps.write_rows import write_json, write_json_lines


def prepare(
    config: RunConfig,
    folder: Path,
    *,
    console: Console | None = None,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Write `folder`: the sides (parquet), rejects, clusters, contamination, facts, report.

    Rows read = rows written + rejects + rows dropped by a counted rule; returns these counts.
    console: where progress is shown; nowhere when None. workers: who does the work; processes of
    this machine when None.
    """
    # 1. A model that cannot be trained on and a source that is not there are told at once.
    checkpoint = resolve_checkpoint(config.model, with_weights=False)
    load_rendering(checkpoint)
    sources = open_sources(config)
    labels = [one.label for one in sources]
    num_own = sum(not one.is_evaluation_task for one in sources)
    with (
        new_folder(folder) as partial,
        open_ledger(partial / "rejects.jsonl", labels, num_own=num_own) as ledger,
        workers or Workers(config.data.num_workers) as workers,
        PrepareProgress(console) as progress,
    ):
        preparation = Preparation(
            config=config,
            sources=sources,
            folder=partial,
            spool=Spool(partial / ".spool"),
            ledger=ledger,
            workers=workers,
            progress=progress,
        )
        # 2. Rows of the sources, each one a sound conversation or a reject.
        read = read_sources(preparation)
        check_any(read.num_rows, preparation)
        # 3. Equal rows, near duplicates and groups, and from these the sides.
        index = index_rows(preparation, read.num_rows)
        actions = assign_sides(index.facts, index.unit, config.data, preparation.weights)
        count_decisions(ledger, index, actions)
        # 4. Training rows against every evaluation row.
        contamination = find_contamination(preparation, index, actions)
        check_contamination(contamination)
        # 5. What the model will see.
        rendered = render_rows(preparation, checkpoint, index, actions, contamination.copied)
        check_rows(rendered, preparation)
        num_lost = ledger.num_lost(rendered.num_written + count_tasks(index, actions))
        assert num_lost == 0, f"{num_lost} rows are not accounted for"
        # 6. What people and other programs read.
        facts = build_facts(
            preparation,
            read=read,
            index=index,
            actions=actions,
            contamination=contamination,
            rendered=rendered,
        )
        write_json(partial / "facts.json", facts)
        write_json_lines(partial / "clusters.jsonl", index.clusters())
        write_json_lines(partial / "contamination.jsonl", contamination.lines)
        write_report(partial / "report.html", config, facts, ledger.shown, rendered.samples)
        shutil.rmtree(preparation.spool.folder)
    return summarize(facts)


def count_decisions(ledger: Ledger, index: RowIndex, actions: np.ndarray) -> None:
    """Count rows that are left out as equal to others or by a rule of the configuration."""
    for cluster in index.exact:
        for source in cluster.sources[1:]:
            ledger.drop(source, "exact duplicate of another row", 1)
    for code, rule in DROP_RULES.items():
        numbers, counts = np.unique(index.facts.source[actions == code], return_counts=True)
        for source, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            ledger.drop(source, rule, count)


def count_tasks(index: RowIndex, actions: np.ndarray) -> Counter[int]:
    """Rows of evaluation tasks, which are accounted for but not written, by source."""
    return Counter(index.facts.source[actions == TASK].tolist())


def check_any(num_rows: int, preparation: Preparation) -> None:
    """Raise a `UserError` where the sources gave no row that can be used."""
    if not num_rows:
        raise UserError(
            f"the sources hold no usable row{_reasons(preparation)}",
            where=f"data.source.kind: {preparation.config.data.source.kind}",
            remedy="give rows, or mend what the reasons tell",
        )


def check_rows(rendered: RenderedRows, preparation: Preparation) -> None:
    """Raise a `UserError` where a side of the split is empty, naming the commonest reasons."""
    sides = rendered.statistics["side"]
    empty = [side for side in SIDES if not (sides == SIDE_CODES[side]).any()]
    if empty:
        raise UserError(
            f"the split has no {' and no '.join(empty)} rows, {len(sides):,} rows in all"
            + _reasons(preparation),
            where=f"data.source.kind: {preparation.config.data.source.kind}",
            remedy="give more rows, or change data.test_fraction and data.validation_fraction",
        )


def _reasons(preparation: Preparation) -> str:
    reasons = preparation.ledger.reasons_of(preparation.num_sources).most_common(3)
    told = "; ".join(f"{count:,} × {reason}" for reason, count in reasons)
    return f" (rejected: {told})" if told else ""
