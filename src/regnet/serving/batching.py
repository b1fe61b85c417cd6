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
from typing import Any, Final, Generic, Protocol, TypeVar

from regnet.serving.limits import Limits
from regnet.serving.refusals import NotReady, Refused, TooLarge, TooLate, TooMany

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_COST: Final = 2_000_000
"""Of a batch: once its items cost that much together, in pixels of a JPEG, it takes no more."""

_NEWEST: Final = 0.2  # share of the newest batch in the mean of the seconds that an item takes


class Observer(Protocol):
    """Hears what models do. Called on the loop's thread; must be quick and not raise."""

    def queued(self, model: str, images: int) -> None:
        """Hear how many images wait or run now."""

    def decoded(self, model: str, seconds: float) -> None:
        """Hear how long decoding and cropping one image took."""

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Hear of a batch: images in it, the longest wait of one, seconds of inference."""

    def refused(self, model: str, reason: str) -> None:
        """Hear why a request was not served: the limit's name, "cancelled" or "closed"."""


class Unobserved:
    """An observer that does nothing."""

    def queued(self, model: str, images: int) -> None:
        """Do nothing."""

    def decoded(self, model: str, seconds: float) -> None:
        """Do nothing."""

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Do nothing."""

    def refused(self, model: str, reason: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went: of each part the longest of its images, in ms.

    `queue_ms` is from its arrival until a worker took it, `infer_ms` that of its whole batch,
    `output_ms` that of making the batch's results; `batch` is the largest batch that it went in, in
    images.
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
        self.decode = self.queue = self.infer = self.output = 0.0
        self.batch = 0
        self._error: Exception | None = None

    def take(self, place: int, result: Result, decode: float, queue: float) -> None:
        """Take the result of one item."""
        self.results[place] = result
        self.missing -= 1
        self.decode = max(self.decode, decode)
        self.queue = max(self.queue, queue)
        if not self.missing:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Wake who waits, with the reason why there are no results."""
        if not self.future.done():
            self._error = error
            self.future.set_result(None)

    def raise_error(self) -> None:
        """Raise the reason why there are no results, if there is one.

        Nothing here holds it any more then: its frames hold the photos, which would stay.
        """
        if self._error is not None:
            raise self._pop_error()

    def _pop_error(self) -> Exception:
        error, self._error = self._error, None
        assert error is not None
        return error

    @property
    def timing(self) -> Timing:
        seconds = (self.decode, self.queue, self.infer, self.output)
        decode, queue, infer, output = (1e3 * value for value in seconds)
        return Timing(decode, queue, infer, self.batch, output)


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
    """Items in, results out, in batches of at most `most` on `workers` threads of its own.

    `work(items, alone)` does a batch on a worker's thread; `alone` says that it is a single item
    and nothing else waits or runs. All else is for the loop.
    """

    def __init__(
        self,
        work: Callable[[list[Item], bool], Done[Result]],
        *,
        name: str,
        workers: int,
        most: int,
        limits: Limits,
        observer: Observer | None = None,
    ) -> None:
        self._work, self._name, self._workers, self._most = work, name, workers, most
        self._limits, self._observer = limits, observer or Unobserved()
        self._waiting: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True for each in the lanes
        self._lanes: tuple[queue.SimpleQueue[_Ticket[Item, Result]], ...] = (
            queue.SimpleQueue(),  # of requests of one item
            queue.SimpleQueue(),  # of several
        )
        self._images = self._bytes = 0  # waiting or running
        self._of_several = 0  # of those images
        self._most_of_several = max(limits.batch, limits.queue * 3 // 4)
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
        """Refuse items that would be over a limit: `TooLarge`, `TooMany`, `NotReady`."""
        limits = self._limits
        if self._closed:
            raise self._told(NotReady(f"{self._name} is being unloaded"), "closed")
        if images > limits.batch:
            message = f"{images} images in one request are over the limit of {limits.batch}"
            raise self._told(TooLarge(message, limit="batch"), "batch")
        if self._images + images > limits.queue:
            raise self._too_many(
                "queue", f"{self._images} images wait, the limit is {limits.queue}"
            )
        if images > 1 and self._of_several + images > self._most_of_several:
            what = f"{self._of_several} images of requests of several wait, the limit is"
            raise self._too_many("queue", f"{what} {self._most_of_several}")
        if self._bytes and self._bytes + size > limits.queue_bytes:
            what = f"{self._bytes} bytes of images wait, the limit is {limits.queue_bytes}"
            raise self._too_many("queue_bytes", what)

    async def submit(
        self,
        items: Sequence[Item],
        *,
        sizes: Sequence[int],
        deadline: float,
        costs: Sequence[int] | None = None,
    ) -> tuple[list[Result], Timing]:
        """Return the results of items in their order; `sizes` is their bytes.

        `costs` is what they take, see `LARGEST_COST`. `deadline` is by the loop's clock. Raises
        what `require_room` does, `TooLate` at the deadline, and what `work` raised.
        """
        self.require_room(len(items), sum(sizes))
        if not items:
            return [], Timing()
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        if left <= 0:
            raise self._too_late()
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
            self._leave([ticket for ticket in tickets if ticket.taken()])  # nobody waits for it
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
            request.end(self._too_late())

    def _too_late(self) -> Refused:
        message = f"not answered within the limit of {self._limits.seconds:g} s"
        return self._told(TooLate(message, limit="seconds"), "seconds")

    def _too_many(self, limit: str, what: str) -> Refused:
        seconds = max(0.1, self._images * self._seconds / self._workers)
        message = f"{self._name}: {what}; try again in {seconds:.1f} s"
        return self._told(TooMany(message, limit=limit, retry_after=seconds), limit)

    def _told(self, error: Refused, reason: str) -> Refused:
        self._observer.refused(self._name, reason)
        return error

    def _finish(
        self, tickets: list[_Ticket[Item, Result]], started: float, done: Done[Result]
    ) -> None:
        """Hand out the results of a batch that was `started` by time.monotonic."""
        size = len(tickets)
        took = (time.monotonic() - started) / size
        self._seconds += (_NEWEST if self._seconds else 1.0) * (took - self._seconds)
        for ticket, result, decode in zip(tickets, done.results, done.decode, strict=True):
            request = ticket.request
            request.infer = max(request.infer, done.infer)
            request.output = max(request.output, done.output)
            request.batch = max(request.batch, size)
            request.take(ticket.place, result, decode, started - ticket.arrived)
        wait = started - min(ticket.arrived for ticket in tickets)
        loop = tickets[0].request.future.get_loop()
        loop.call_soon(self._leave, tickets)  # after those who wait have been woken
        loop.call_soon(self._report, size, wait, done)

    def _report(self, size: int, wait: float, done: Done[Result]) -> None:
        self._observer.batch_done(self._name, size, wait, done.infer)
        for seconds in done.decode:
            self._observer.decoded(self._name, seconds)

    def _fail(self, tickets: list[_Ticket[Item, Result]], error: Exception) -> None:
        for ticket in tickets:
            ticket.request.end(error)
        self._leave(tickets)

    def _leave(self, tickets: list[_Ticket[Item, Result]]) -> None:
        if tickets:
            self._count(tickets, -1)

    # On the workers' threads, which give the loop what is to be done there.

    def _run(self) -> None:
        while self._waiting.get():
            tickets = [first := self._first(), *self._more(first)]
            started = time.monotonic()
            if wanted := [ticket for ticket in tickets if ticket.taken()]:
                self._do(wanted, started)

    def _first(self) -> _Ticket[Item, Result]:
        """Return the next ticket: there is one, for whoever knows of it takes one."""
        while True:
            for lane in self._lanes:
                with suppress(queue.Empty):
                    return lane.get_nowait()

    def _more(self, first: _Ticket[Item, Result]) -> Iterator[_Ticket[Item, Result]]:
        """Yield what goes with the first: a worker's share of all that waits, up to `most`."""
        waiting, cost = 1 + self._waiting.qsize(), first.cost
        with suppress(queue.Empty):
            for _ in range(min(self._most, -(-waiting // self._workers)) - 1):
                if cost >= LARGEST_COST:
                    return
                known = self._waiting.get_nowait()
                try:
                    if not known:  # the end, which waits for this
                        raise queue.Empty
                    found = self._lanes[first.request.several].get_nowait()
                except queue.Empty:
                    self._waiting.put(known)
                    return
                cost += found.cost
                yield found

    def _do(self, tickets: list[_Ticket[Item, Result]], started: float) -> None:
        alone = len(tickets) == 1 and self._images == 1
        try:
            done = self._work([ticket.item for ticket in tickets], alone)
        except Exception as exc:  # whoever waits hears of it, and the worker goes on
            self._tell(self._fail, tickets, exc)
        else:
            self._tell(self._finish, tickets, started, done)

    def _tell(self, what: Callable[..., None], tickets: list[Any], *more: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            tickets[0].request.future.get_loop().call_soon_threadsafe(what, tickets, *more)
