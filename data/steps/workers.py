"""The same function over many parts, in one process or several, with results in their order."""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Self, TypeVar

from configs.cores import usable_cores
from configs.errors import UserError

Part = TypeVar("Part")
Result = TypeVar("Result")

# Below this many parts a second process costs more to start than it saves.
MIN_PARTS = 5


class Workers:
    """Worker processes that are started when there is enough to do, and kept until the end.

    num_workers: how many; as many as cores when None. Functions and parts have to be picklable.
    """

    def __init__(self, num_workers: int | None) -> None:
        self.num_workers = num_workers or usable_cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self,
        function: Callable[[Part], Result],
        parts: Iterable[Part],
        *,
        may_start: bool = False,
    ) -> Iterator[Result]:
        """The results in the order of the parts; only a few parts are under way at a time.

        may_start: start the processes if there are enough parts; otherwise they are used if an
        earlier call has started them, and the work is done in this process if none has.
        Errors: those of `function`; a `UserError` where a process was killed from outside.
        """
        rest = iter(parts)
        first = list(islice(rest, MIN_PARTS))
        if self._pool is None and may_start and len(first) == MIN_PARTS and self.num_workers > 1:
            # A forked process would inherit locks of threads that it does not have.
            self._pool = ProcessPoolExecutor(
                self.num_workers, multiprocessing.get_context("spawn"), _prepare_process
            )
        if self._pool is None:
            yield from map(function, chain(first, rest))
            return
        try:
            yield from _map_in_order(
                self._pool, function, chain(first, rest), in_flight=self.num_workers + 2
            )
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was ended from outside, most likely for want of memory",
                where="data.num_workers",
                remedy="give fewer workers there, or free some memory; then run it again",
            ) from error


def _prepare_process() -> None:
    # Batches make many objects and no circles of them: looking for some costs a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    # One thread each: the workers share the cores already.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["POLARS_MAX_THREADS"] = "1"
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"


def _map_in_order(
    pool: ProcessPoolExecutor,
    function: Callable[[Part], Result],
    parts: Iterable[Part],
    *,
    in_flight: int,
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(function, part))
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
