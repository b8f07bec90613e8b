"""Calls gathered into batches: what waits when the model is free, and is alike, is worked on together.

Not `@serve.batch`: that closes a batch a set time after its first call, even while the batch before is at work. Videos
take seconds to minutes, so calls that come in that time would be alone one after the other; here they wait together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class Batches(Generic[Call, Answer]):
    """One batch at a time, in a thread; belongs to one event loop.

    Args:
        work: given the calls of a batch and what tells whether all their callers have left, returns as many answers.
        alike: calls with the same value may share a batch.
        most: calls in a batch; may be changed.
        wait: seconds that a batch which is not full waits for more.
    """

    def __init__(
        self,
        work: Callable[[list[Call], Callable[[], bool]], Sequence[Answer]],
        *,
        alike: Callable[[Call], Hashable],
        most: int,
        wait: float,
    ) -> None:
        self.most = most
        self._work, self._alike, self._wait = work, alike, wait
        self._waiting: list[tuple[Call, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, call: Call) -> Answer:
        """Return the answer to a call; one that is cancelled leaves the queue, and its batch if it is alone there."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())
        return await answer

    async def _work_off(self) -> None:
        while self._waiting:
            if len(self._waiting) < self.most:
                await asyncio.sleep(self._wait)
            if batch := self._take():
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[Call, asyncio.Future[Answer]]]) -> None:
        answers = [answer for _, answer in batch]
        try:
            found = await asyncio.to_thread(
                self._work, [call for call, _ in batch], lambda: all(answer.cancelled() for answer in answers)
            )
        except Exception as error:  # noqa: BLE001 - it is the callers' to handle
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for answer, value in zip(answers, found, strict=True):
                if not answer.done():
                    answer.set_result(value)

    def _take(self) -> list[tuple[Call, asyncio.Future[Answer]]]:
        """Take the oldest call, and as many like it as there is room for, out of the queue; none if all have left."""
        waiting = [pair for pair in self._waiting if not pair[1].cancelled()]
        batch = [pair for pair in waiting if self._alike(pair[0]) == self._alike(waiting[0][0])][: self.most]
        taken = {answer for _, answer in batch}
        self._waiting = [pair for pair in waiting if pair[1] not in taken]
        return batch
