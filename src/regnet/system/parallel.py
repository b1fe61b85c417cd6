"""Batches of jobs on worker threads, results in the order of the jobs."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

BATCH_SIZE = 8

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Shows the progress of some work: its items, what is done with them, and their number."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    jobs: Iterable[Job],
    work: Callable[[list[Job]], Collection[Result]],  # a generator would do all of it here
    *,
    workers: int,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Result]:
    """Yield the results of `work` on batches of at most `batch_size` jobs, in the jobs' order.

    Each worker takes its batch the whole way, so every core is busy without any being shared.
    Only a few batches are under way at a time: memory does not grow with the number of jobs.
    """
    jobs = iter(jobs)
    sizes = _batch_sizes(batch_size, workers)
    pending: deque[Future[Collection[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, "regnet")
    try:
        while batch := list(itertools.islice(jobs, next(sizes))):
            pending.append(pool.submit(work, batch))
            while pending and (len(pending) > 2 * workers or pending[0].done()):
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:  # without waiting: whoever stops early has no use for what is still being read
        pool.shutdown(wait=False, cancel_futures=True)


def _batch_sizes(most: int, workers: int) -> Iterator[int]:
    """Yield 1, then twice as many each time all workers have had theirs, up to `most`.

    The first results come at once, a few images are spread over all cores, and many are inferred
    in batches, which are cheaper.
    """
    size = 1
    while True:
        for _ in range(workers):
            yield min(size, most)
        size = min(2 * size, most)


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unwatched(items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Return the items, and show nothing."""
    return items
