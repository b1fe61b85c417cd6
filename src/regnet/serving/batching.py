"""Requests that wait together go together: an asyncio loop in front, worker threads behind.

Each worker takes its batch the whole way, from bytes to results, so every core is busy and none
waits for another. Nothing is held back to fill a batch: what came while the workers were busy is
shared out among them, and an item that finds one idle goes at once. Requests of one item go before
those of several, which may take three quarters of the room; what costs much goes in small batches.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from regnet.serving.limits import Limits
from regnet.serving.refusals import NotReady, Refused, TooLarge, TooMany, too_late

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_COST: Final = 2_000_000
"""A batch takes no more items once they cost that much together, in pixels of a JPEG."""

_NEWEST: Final = 0.2  # share of the newest batch in the mean of the seconds that an item takes


class Observer:
    """Receives what models do, on the loop's thread; this one ignores it."""

    def queued(self, model: str, images: int) -> None:
        """Receive the number of queued and running images."""

    def decoded(self, model: str, seconds: float) -> None:
        """Receive the time that decoding and cropping one image took."""

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Receive a batch: its images, the longest wait of one, seconds of inference."""

    def refused(self, model: str, reason: str) -> None:
        """Receive why a request was refused: the limit's name, "cancelled" or "closed"."""


class Timing(NamedTuple):
    """Timing of one request in ms, each the maximum over its images.

    `queue_ms` is from arrival to the start of its batch, `infer_ms` and `output_ms` are inference
    and results of that batch; `batch` is the size of its largest batch, in images.
    """

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    batch: int = 0
    output_ms: float = 0.0


@dataclass(frozen=True)
class Done(Generic[Result]):
    """Results of a batch in order; seconds of decoding each item, of inference, of the results."""

    results: Sequence[Result]
    decode: Sequence[float]
    infer: float
    output: float = 0.0


class _Request(Generic[Result]):
    """Items that are answered together."""

    def __init__(self, future: "asyncio.Future[None]", items: int) -> None:
        self.future = future
        self.several = items > 1
        self.results: list[Any] = [None] * items
        self.missing = items
        self.timing = Timing()
        self._error: Exception | None = None

    def take(self, place: int, result: Result, timing: Timing) -> None:
        """Take the result of one item."""
        self.results[place] = result
        self.missing -= 1
        self.timing = Timing._make(map(max, self.timing, timing))
        if not self.missing:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Wake the waiting caller; `error` says why there are no results."""
        if not self.future.done():
            self._error = error
            self.future.set_result(None)

    def raise_error(self) -> None:
        """Raise the error if there is one, and let it go: its frames hold the photos."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


@dataclass(eq=False, slots=True)
class _Ticket(Generic[Item, Result]):
    """One item that waits; `size` is its bytes, `arrived` by time.monotonic.

    Whoever takes the `lock` has it: a worker, or the loop when nobody waits for it any more.
    """

    request: _Request[Result]
    place: int
    item: Item
    size: int
    cost: int
    arrived: float
    lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self) -> bool:
        return self.lock.acquire(blocking=False)


class Batcher(Generic[Item, Result]):
    """Collects items into batches of at most `max_batch` and runs them on `workers` threads.

    `work(items, alone)` does a batch on a worker's thread; `alone` says that it is a single item
    and nothing else waits or runs. Everything else runs on the event loop.
    """

    def __init__(
        self,
        work: Callable[[list[Item], bool], Done[Result]],
        *,
        name: str,
        workers: int,
        max_batch: int,
        limits: Limits,
        observer: Observer | None = None,
    ) -> None:
        self._work, self._name, self._workers = work, name, workers
        self._max_batch, self._limits = max_batch, limits
        self._observer = observer or Observer()
        self._waiting: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True for each in the lanes
        self._lanes: tuple[queue.SimpleQueue[_Ticket[Item, Result]], ...] = (
            queue.SimpleQueue(),  # of requests of one item
            queue.SimpleQueue(),  # of several
        )
        self._images = self._bytes = 0  # waiting or running
        self._of_several = 0  # of those images
        self._max_of_several = max(limits.batch, limits.queue * 3 // 4)
        self._seconds = 0.0  # that a worker takes for an item, a moving mean
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def images(self) -> int:
        """How many items wait or run now."""
        return self._images

    def require_room(self, images: int = 1, size: int = 0) -> None:
        """Refuse items that would exceed a limit: `TooLarge`, `TooMany`, `NotReady`."""
        limits = self._limits
        if self._closed:
            raise self._recorded(NotReady(f"{self._name} is being unloaded"))
        if images > limits.batch:
            message = f"{images} images in one request are over the limit of {limits.batch}"
            raise self._recorded(TooLarge(message, limit="batch"))
        if self._images + images > limits.queue:
            raise self._too_many("queue", f"{self._images} images wait", limits.queue)
        if images > 1 and self._of_several + images > self._max_of_several:
            waiting = f"{self._of_several} images of requests of several wait"
            raise self._too_many("queue", waiting, self._max_of_several)
        if self._bytes and self._bytes + size > limits.queue_bytes:
            waiting = f"{self._bytes} bytes of images wait"
            raise self._too_many("queue_bytes", waiting, limits.queue_bytes)

    async def submit(
        self,
        items: Sequence[Item],
        *,
        sizes: Sequence[int],
        deadline: float,
        costs: Sequence[int] | None = None,
    ) -> tuple[list[Result], Timing]:
        """Return the results of items in their order; `sizes` are their bytes.

        `costs` are as for `LARGEST_COST`. Raises what `require_room` does, `TooLate` at the
        `deadline` by the loop's clock, and what `work` raised.
        """
        self.require_room(len(items), sum(sizes))
        if not items:
            return [], Timing()
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        if left <= 0:
            raise self._recorded(too_late(self._limits.seconds))
        now = time.monotonic()
        request = _Request[Result](loop.create_future(), len(items))
        timer = loop.call_later(left, self._expire, request)
        tickets = [
            _Ticket(request, place, *each, now)
            for place, each in enumerate(zip(items, sizes, costs or [0] * len(items), strict=True))
        ]
        self._count(tickets, 1)
        for ticket in tickets:
            self._lanes[request.several].put(ticket)
            self._waiting.put(True)
        try:  # last, what wakes a worker: it runs when the loop lets go of the interpreter
            await request.future
        except asyncio.CancelledError:
            self._observer.refused(self._name, "cancelled")
            raise
        finally:
            timer.cancel()
            self._count([ticket for ticket in tickets if ticket.taken()], -1)  # nobody waits for it
        request.raise_error()
        return request.results, request.timing

    async def close(self) -> None:
        """Finish what was accepted, refuse what is new, end the threads."""
        self._closed = True
        await self._empty.wait()
        for _ in self._threads:
            self._waiting.put(False)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _count(self, tickets: Sequence[_Ticket[Item, Result]], sign: int) -> None:
        """Add tickets that came (1), or take away those that are done (-1)."""
        if not tickets:
            return
        self._images += sign * len(tickets)
        self._of_several += sign * sum(ticket.request.several for ticket in tickets)
        self._bytes += sign * sum(ticket.size for ticket in tickets)
        self._observer.queued(self._name, self._images)
        if self._images:
            self._empty.clear()
        else:
            self._empty.set()

    def _expire(self, request: _Request[Result]) -> None:
        if not request.future.done():
            request.end(self._recorded(too_late(self._limits.seconds)))

    def _too_many(self, limit: str, waiting: str, most: int) -> Refused:
        seconds = max(0.1, self._images * self._seconds / self._workers)
        message = f"{self._name}: {waiting}, the limit is {most}; try again in {seconds:.1f} s"
        return self._recorded(TooMany(message, limit=limit, retry_after=seconds))

    def _recorded(self, error: Refused) -> Refused:
        self._observer.refused(self._name, error.limit or "closed")
        return error

    def _finish(
        self, tickets: list[_Ticket[Item, Result]], started: float, done: Done[Result]
    ) -> None:
        """Hand out the results of a batch that was `started` by time.monotonic."""
        size = len(tickets)
        took = (time.monotonic() - started) / size
        self._seconds += (_NEWEST if self._seconds else 1.0) * (took - self._seconds)
        for ticket, result, decode in zip(tickets, done.results, done.decode, strict=True):
            decode_ms, queue_ms = 1e3 * decode, 1e3 * (started - ticket.arrived)
            timing = Timing(decode_ms, queue_ms, 1e3 * done.infer, size, 1e3 * done.output)
            ticket.request.take(ticket.place, result, timing)
        # Once the waiting callers have been woken:
        tickets[0].request.future.get_loop().call_soon(self._report, tickets, started, done)

    def _report(
        self, tickets: list[_Ticket[Item, Result]], started: float, done: Done[Result]
    ) -> None:
        self._count(tickets, -1)
        wait = started - min(ticket.arrived for ticket in tickets)
        self._observer.batch_done(self._name, len(tickets), wait, done.infer)
        for seconds in done.decode:
            self._observer.decoded(self._name, seconds)

    def _fail(self, tickets: list[_Ticket[Item, Result]], error: Exception) -> None:
        for ticket in tickets:
            ticket.request.end(error)
        self._count(tickets, -1)

    # On the workers' threads, which pass to the loop what is to be done there.

    def _run(self) -> None:
        while self._waiting.get():
            tickets = [first := self._first(), *self._more(first)]
            started = time.monotonic()
            if live := [ticket for ticket in tickets if ticket.taken()]:
                self._do(live, started)

    def _first(self) -> _Ticket[Item, Result]:
        """Return the next ticket: each True in `_waiting` stands for one in the lanes."""
        while True:
            for lane in self._lanes:
                with suppress(queue.Empty):
                    return lane.get_nowait()

    def _more(self, first: _Ticket[Item, Result]) -> Iterator[_Ticket[Item, Result]]:
        """Yield the tickets that go with the first: a worker's share of all that wait."""
        waiting, cost = 1 + self._waiting.qsize(), first.cost
        with suppress(queue.Empty):
            for _ in range(min(self._max_batch, -(-waiting // self._workers)) - 1):
                if cost >= LARGEST_COST:
                    return
                known = self._waiting.get_nowait()
                try:
                    if not known:  # the end, which waits for this
                        raise queue.Empty
                    ticket = self._lanes[first.request.several].get_nowait()
                except queue.Empty:
                    self._waiting.put(known)
                    return
                cost += ticket.cost
                yield ticket

    def _do(self, tickets: list[_Ticket[Item, Result]], started: float) -> None:
        alone = len(tickets) == 1 and self._images == 1
        try:
            done = self._work([ticket.item for ticket in tickets], alone)
        except Exception as exc:  # the waiting callers raise it, and the worker goes on
            self._call_on_loop(self._fail, tickets, exc)
        else:
            self._call_on_loop(self._finish, tickets, started, done)

    def _call_on_loop(self, what: Callable[..., None], tickets: list[Any], *more: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            tickets[0].request.future.get_loop().call_soon_threadsafe(what, tickets, *more)
