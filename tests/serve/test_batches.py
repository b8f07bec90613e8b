"""Which calls are worked on together, without a model and without Ray."""

import asyncio
import threading

import pytest

from animate4d.serve.batches import Batches

SOON = 30


class Work:
    """Notes each batch; the first one ends when it is told to."""

    def __init__(self):
        self.seen, self.left = [], []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, calls, abandoned):
        self.seen.append(calls)
        self.begun.set()
        if len(self.seen) == 1:
            assert self.go_on.wait(SOON)
        self.left.append(abandoned())
        return [call.upper() for call in calls]


@pytest.fixture
def work():
    return Work()


async def while_the_first_is_at_work(work, batches, *calls):
    """Submit "a1", then the others once it has begun; returns the tasks."""
    tasks = [asyncio.create_task(batches.submit("a1"))]
    assert await asyncio.to_thread(work.begun.wait, SOON)
    tasks += [asyncio.create_task(batches.submit(call)) for call in calls]
    await asyncio.sleep(0.1)
    return tasks


def test_what_waits_and_is_alike_goes_together(work):
    async def run():
        batches = Batches(work, alike=lambda call: call[0], most=3, wait=0.001)
        tasks = await while_the_first_is_at_work(work, batches, "b1", "a2", "b2", "b3", "a3", "b4")
        work.go_on.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == ["A1", "B1", "A2", "B2", "B3", "A3", "B4"]
    assert work.seen == [["a1"], ["b1", "b2", "b3"], ["a2", "a3"], ["b4"]]


def test_calls_that_come_together_need_no_batch_before_them(work):
    work.go_on.set()

    async def run():
        batches = Batches(work, alike=len, most=4, wait=5.0)
        return await asyncio.wait_for(asyncio.gather(*(batches.submit(call) for call in "abcd")), SOON)

    assert asyncio.run(run()) == list("ABCD")
    assert work.seen == [["a", "b", "c", "d"]]


def test_a_caller_that_leaves_is_left_out_and_the_last_one_is_told(work):
    async def run():
        batches = Batches(work, alike=len, most=4, wait=0.001)
        first, second, third = await while_the_first_is_at_work(work, batches, "b1", "b2")
        for task in (first, second):
            task.cancel()
        await asyncio.sleep(0)
        work.go_on.set()
        assert await third == "B2"
        assert first.cancelled()
        assert second.cancelled()
        assert await batches.submit("c1") == "C1"

    asyncio.run(run())
    assert work.seen == [["a1"], ["b2"], ["c1"]]
    assert work.left == [True, False, False]


def test_what_breaks_reaches_its_callers_and_the_next_batch_works():
    def work(calls, _abandoned):
        if "bad" in calls:
            raise ValueError("no good")
        return calls

    async def run():
        batches = Batches(work, alike=bool, most=2, wait=0.001)
        broken = await asyncio.gather(*map(batches.submit, ("bad", "good")), return_exceptions=True)
        return broken, await batches.submit("good")

    broken, answer = asyncio.run(run())
    assert [str(error) for error in broken] == ["no good"] * 2
    assert answer == "good"
