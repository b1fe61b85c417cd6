"""Dynamic batching: what goes together, what is refused, and that nothing gets lost."""

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain
from typing import Any

import pytest

from regnet.serving.batching import LARGEST_COST, Batcher, Done, Timing
from regnet.serving.limits import Limits
from regnet.serving.refusals import NotReady, TooLarge, TooLate, TooMany


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.images: list[int] = []
        self.decodes: list[float] = []
        self.batches: list[tuple[int, float, float]] = []
        self.reasons: list[str] = []

    def queued(self, model: str, images: int) -> None:
        self.images.append(images)

    def decoded(self, model: str, seconds: float) -> None:
        self.decodes.append(seconds)

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        self.batches.append((size, queue_s, infer_s))

    def refused(self, model: str, reason: str) -> None:
        self.reasons.append(reason)


class Work:
    """Doubles numbers, once it may; "bad" breaks its batch."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.batches: list[list[Any]] = []
        self.alone: list[bool] = []

    def __call__(self, items: list[Any], alone: bool) -> Done[Any]:
        self.batches.append(items)
        self.alone.append(alone)
        assert self.may.wait(10)
        if "bad" in items:
            raise ValueError("broken")
        return Done([2 * item for item in items], [0.25] * len(items), 0.5)


def serve(
    scenario: Callable[[Batcher[Any, Any]], Awaitable[None]],
    work: Callable[[list[Any], bool], Done[Any]],
    *,
    workers: int = 1,
    heard: Heard | None = None,
    limits: Limits | None = None,
) -> None:
    """Run a scenario against a batcher of batches of at most 8."""

    async def run() -> None:
        batcher = Batcher(
            work,
            name="m",
            workers=workers,
            max_batch=8,
            limits=limits or Limits(),
            observer=heard,
        )
        await scenario(batcher)
        await asyncio.wait_for(batcher.close(), 10)
        assert batcher.images == 0
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("m ")]

    asyncio.run(run())


async def ask(batcher: Batcher[Any, Any], *items: Any, seconds: float = 10.0) -> list[Any]:
    results, _ = await timed(batcher, *items, seconds=seconds)
    return results


async def timed(
    batcher: Batcher[Any, Any], *items: Any, seconds: float = 10.0
) -> tuple[list[Any], Timing]:
    deadline = asyncio.get_running_loop().time() + seconds
    return await batcher.submit(items, sizes=[10] * len(items), deadline=deadline)


async def started(work: Work, batches: int = 1) -> None:
    """Wait until that many batches have begun."""
    for _ in range(1000):
        if len(work.batches) >= batches:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("nothing began")


def asking(batcher: Batcher[Any, Any], *items: Any, seconds: float = 10.0) -> Any:
    return asyncio.create_task(ask(batcher, *items, seconds=seconds))


def test_what_waits_together_goes_together() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        tasks = [asking(batcher, 0)]
        await started(work)
        tasks += [asking(batcher, number) for number in range(1, 12)]
        await asyncio.sleep(0)
        work.may.set()
        assert await asyncio.gather(*tasks) == [[2 * number] for number in range(12)]

    serve(scenario, work, heard=heard)
    assert list(map(len, work.batches)) == [1, 8, 3]
    assert [size for size, *_ in heard.batches] == [1, 8, 3]
    assert (max(heard.images), heard.images[-1]) == (12, 0)
    assert heard.decodes == [0.25] * 12


def test_what_waits_is_shared_out_among_the_workers() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        tasks = [asking(batcher, 0), asking(batcher, 1)]
        await started(work, 2)
        tasks.append(asking(batcher, *range(2, 8)))
        await asyncio.sleep(0)
        work.may.set()
        await asyncio.gather(*tasks)

    serve(scenario, work, workers=2)
    assert list(map(len, work.batches))[:3] == [1, 1, 3]


def test_one_that_comes_to_an_idle_model_goes_at_once_and_knows_it_is_alone() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        for number in range(3):
            assert await ask(batcher, number) == [2 * number]
        work.may.clear()
        tasks = [asking(batcher, 3), asking(batcher, 4)]
        await started(work, 5)
        work.may.set()
        await asyncio.gather(*tasks)

    serve(scenario, work, workers=2)
    assert work.alone[:3] == [True, True, True]
    assert False in work.alone[3:]


def test_a_request_of_many_items_gets_them_in_its_order() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        assert await ask(batcher) == []
        results, timing = await timed(batcher, *range(50))
        assert results == [2 * number for number in range(50)]
        assert (timing.decode_ms, timing.infer_ms, timing.batch) == (250, 500, 8)
        assert timing.queue_ms >= 0

    serve(scenario, work, workers=3)


def test_a_full_queue_refuses_before_any_work_and_says_for_how_long() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        batcher.require_room(4)
        work.may.clear()
        tasks = [asking(batcher, 0)]
        await started(work)
        tasks.append(asking(batcher, 1, 2))
        await asyncio.sleep(0.25)
        batcher.require_room(1)
        with pytest.raises(TooMany, match="3 images wait, the limit is 4") as refused:
            await ask(batcher, 3, 4)
        assert refused.value.limit == "queue"
        with pytest.raises(TooMany):
            batcher.require_room(2)
        work.may.set()
        await asyncio.gather(*tasks)  # as batches of 1 and 2
        batcher.require_room(4)
        work.may.clear()
        tasks = [asking(batcher, *range(4))]
        await started(work, 3)
        with pytest.raises(TooMany) as measured:  # it has taken 0.25 s for one, then next to none
            await ask(batcher, 5)
        assert measured.value.retry_after is not None
        assert 0.1 <= measured.value.retry_after < 4
        work.may.set()
        await asyncio.gather(*tasks)

    serve(scenario, work, heard=heard, limits=Limits(queue=4, batch=4))
    assert heard.reasons == ["queue"] * 3
    assert work.batches == [[0], [1, 2], [0, 1, 2, 3]]


def test_requests_of_several_leave_room_for_those_of_one_which_go_first() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        tasks = [asking(batcher, *range(4)), asking(batcher, *range(4, 8))]
        tasks.append(asking(batcher, *range(8, 12)))
        await started(work)
        with pytest.raises(TooMany, match="12 images of requests of several wait, the limit is 12"):
            await ask(batcher, 12, 13)
        tasks += [asking(batcher, number) for number in range(20, 24)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany, match="16 images wait, the limit is 16"):
            await ask(batcher, 24)
        work.may.set()
        await asyncio.gather(*tasks)

    serve(scenario, work, limits=Limits(queue=16, batch=4))
    assert work.batches[1] == list(range(20, 24))
    assert sorted(chain(work.batches[0], *work.batches[2:])) == list(range(12))


def test_what_costs_much_goes_in_small_batches() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        first = asking(batcher, 0)
        await started(work)
        costs = [LARGEST_COST // 2 + 1] * 3 + [LARGEST_COST] + [0] * 8
        later = asyncio.get_running_loop().time() + 10
        submitted = batcher.submit(range(12), sizes=[1] * 12, costs=costs, deadline=later)
        second = asyncio.create_task(submitted)
        await asyncio.sleep(0)
        work.may.set()
        await asyncio.gather(first, second)

    serve(scenario, work)
    assert list(map(len, work.batches)) == [1, 2, 2, 8]


def test_what_nobody_waits_for_leaves_room_at_once() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        first = asking(batcher, 0)
        await started(work)
        gone = asking(batcher, *range(1, 4))
        await asyncio.sleep(0)
        assert batcher.images == 4
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        assert batcher.images == 1
        second = asking(batcher, *range(4, 7))
        await asyncio.sleep(0)
        work.may.set()
        assert await asyncio.gather(first, second) == [[0], [8, 10, 12]]

    serve(scenario, work, limits=Limits(queue=4, batch=4))
    assert [item for batch in work.batches for item in batch] == [0, 4, 5, 6]


def test_too_many_images_and_too_many_bytes_are_refused() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        with pytest.raises(TooLarge, match="5 images in one request are over the limit of 4"):
            await ask(batcher, *range(5))
        work.may.clear()
        task = asking(batcher, 1)
        await started(work)
        with pytest.raises(TooMany, match="10 bytes of images wait") as refused:
            await ask(batcher, 2, 3)
        assert refused.value.limit == "queue_bytes"
        work.may.set()
        assert await task == [2]
        assert await ask(batcher, 2, 3) == [4, 6]  # alone, a request is never too many

    serve(scenario, work, heard=heard, limits=Limits(batch=4, body=15, queue_bytes=15))
    assert heard.reasons == ["batch", "queue_bytes"]


def test_what_is_past_its_deadline_is_dropped_before_the_work() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        with pytest.raises(TooLate, match="not answered within the limit of 30 s"):
            await ask(batcher, -1, seconds=0)
        work.may.clear()
        running = asking(batcher, 0, seconds=0.2)
        await started(work)
        waiting, patient = asking(batcher, 1, 2, seconds=0.05), asking(batcher, 3)
        for task in (waiting, running):  # they hear it at once, not when the work is done
            with pytest.raises(TooLate) as late:
                await task
            assert late.value.limit == "seconds"
        work.may.set()
        assert await patient == [6]

    serve(scenario, work, heard=heard)
    assert work.batches == [[0], [3]]
    assert heard.reasons == ["seconds"] * 3


def test_what_is_cancelled_is_dropped_and_told_apart() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        first = asking(batcher, 0)
        await started(work)
        second, third = asking(batcher, 1), asking(batcher, 2)
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        work.may.set()
        assert await third == [4]

    serve(scenario, work, heard=heard)
    assert work.batches == [[0], [2]]
    assert heard.reasons == ["cancelled", "cancelled"]


class Photo:
    """What can be seen to be let go."""


def test_what_failed_holds_nothing() -> None:
    held = threading.Event()

    def work(items: list[Photo], alone: bool) -> Done[Any]:
        assert held.wait(10)
        raise ValueError("broken")

    async def failed(batcher: Batcher[Any, Any], seconds: float) -> weakref.ref[Photo]:
        photo = Photo()
        with suppress(TooLate, ValueError):
            await ask(batcher, photo, seconds=seconds)
        return weakref.ref(photo)

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        broken = asyncio.create_task(failed(batcher, 10))
        late = await failed(batcher, 0.05)
        held.set()
        seen = [late, await broken]
        await batcher.close()
        assert [reference() for reference in seen] == [None, None]

    gc.disable()
    try:
        serve(scenario, work)
    finally:
        gc.enable()


def test_work_that_breaks_is_heard_of_and_the_next_goes_on() -> None:
    work = Work()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        with pytest.raises(ValueError, match="broken"):
            await ask(batcher, *range(9), "bad", *range(9))
        assert await ask(batcher, 4) == [8]

    serve(scenario, work)


def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    work, heard = Work(), Heard()

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        work.may.clear()
        tasks = [asking(batcher, *range(5)), asking(batcher, 5)]
        await started(work)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="m is being unloaded"):
            await ask(batcher, 6)
        assert not closing.done()
        work.may.set()
        assert await asyncio.gather(*tasks) == [[0, 2, 4, 6, 8], [10]]
        await closing

    serve(scenario, work, heard=heard)
    assert heard.reasons == ["closed"]


def test_in_a_crowd_each_request_gets_its_own_results_once() -> None:
    draw, heard = random.Random(0), Heard()

    def work(items: list[int], alone: bool) -> Done[int]:
        time.sleep(draw.random() * 1e-3)
        return Done([-item for item in items], [0.0] * len(items), 0.0)

    async def client(batcher: Batcher[Any, Any], number: int) -> str:
        await asyncio.sleep(draw.random() * 0.3)
        items = [100 * number + place for place in range(draw.randrange(1, 12))]
        task = asking(batcher, *items, seconds=draw.choice([0.002, 0.02, 5.0, 5.0]))
        if draw.random() < 0.2:
            await asyncio.sleep(draw.random() * 0.01)
            task.cancel()
        try:
            assert await task == [-item for item in items]
        except TooMany:
            return "queue"
        except TooLate:
            return "seconds"
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    async def scenario(batcher: Batcher[Any, Any]) -> None:
        ends = await asyncio.gather(*(client(batcher, number) for number in range(400)))
        assert len(ends) == 400
        assert ends.count("done") > 50
        assert heard.reasons.count("queue") == ends.count("queue")
        assert heard.reasons.count("seconds") >= ends.count("seconds")  # some are cancelled too

    serve(scenario, work, workers=3, heard=heard, limits=Limits(queue=64, batch=16))
    assert heard.images[-1] == 0
