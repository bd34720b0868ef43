"""All decided rows, rendered and written, bucket by bucket."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data.steps.index_rows import RowIndex
from data.steps.preparation import Preparation
from data.steps.render_rows import BucketDecisions, RenderTask, Span, render_bucket
from data.steps.rendered_batch import STATISTICS
from data.steps.spool import NUM_BUCKETS
from data.steps.write_rows import RowWriter

NUM_SAMPLES = 8


@dataclass(frozen=True)
class RenderedRows:
    """What was written: `STATISTICS` with row counted over all buckets, and training samples."""

    statistics: np.ndarray
    samples: list[list[Span]]

    @property
    def num_written(self) -> Counter[int]:
        """Rows written, by source."""
        sources, counts = np.unique(self.statistics["source"], return_counts=True)
        return Counter(dict(zip(sources.tolist(), counts.tolist(), strict=True)))


def render_rows(
    preparation: Preparation,
    checkpoint: Path,
    index: RowIndex,
    actions: np.ndarray,
    copied: np.ndarray,
) -> RenderedRows:
    """Write the three sides' files; actions and copied have one entry for each row of `index`."""
    task = RenderTask(
        spool=preparation.spool,
        checkpoint=checkpoint,
        system_prompt=preparation.config.data.system_prompt,
        max_length=preparation.config.model.max_length,
    )
    parts = [
        BucketDecisions(
            bucket=bucket,
            actions=actions[index.rows_of(bucket)],
            renamed=index.renamed[index.rows_of(bucket)],
            copied=copied[index.rows_of(bucket)],
            num_samples=NUM_SAMPLES,
        )
        for bucket in range(NUM_BUCKETS)
    ]
    counts = [np.empty(0, STATISTICS)]
    samples: list[list[Span]] = []
    with (
        RowWriter(preparation.folder) as writer,
        preparation.progress.step("rendering", len(actions)) as step,
    ):
        for result in preparation.workers.map(partial(render_bucket, task), parts):
            rows = index.rows_of(result.bucket)
            for source, reject in result.rejects:
                preparation.ledger.reject(source, [reject])
            writer.add(result.tables)
            result.statistics["row"] += rows.start
            counts.append(result.statistics)
            samples += result.samples[: NUM_SAMPLES - len(samples)]
            step.advance(rows.stop - rows.start)
    return RenderedRows(np.concatenate(counts), samples)
