"""The same function over many parts, on all nodes of a Ray cluster, with results in their order."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import ray.data

from data.steps.workers import MIN_PARTS, Part, Result, Workers


class ClusterWorkers(Workers):
    """`Workers` over Ray Data, for parts that all nodes can find: those of the spool.

    The spool lies in the run directory, which all nodes then have to share. Parts that come out of
    a stream (`may_start`) stay in processes of this node, which reads the stream.
    """

    def map(
        self,
        function: Callable[[Part], Result],
        parts: Iterable[Part],
        *,
        may_start: bool = False,
    ) -> Iterator[Result]:
        """See `Workers.map`; a node that dies has its parts done again elsewhere."""
        if may_start:
            yield from super().map(function, parts, may_start=True)
            return
        rows = [{"part": pickle.dumps(part)} for part in parts]
        if len(rows) < MIN_PARTS:
            yield from map(function, (pickle.loads(row["part"]) for row in rows))  # noqa: S301
            return
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        # Each of several passes would tell its plan.
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        work = ray.put(function)

        def run(row: dict[str, Any]) -> dict[str, Any]:
            result = ray.get(work)(pickle.loads(row["part"]))  # noqa: S301
            return {"result": pickle.dumps(result)}

        shards = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run)
        for row in shards.iter_rows():
            yield pickle.loads(row["result"])  # noqa: S301
