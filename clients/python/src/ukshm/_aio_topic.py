"""A topic's publisher for asyncio."""

from __future__ import annotations

import asyncio
from typing import Callable, TypeVar

from ._publisher import Publisher, as_view
from ._topic import LINGER_SECONDS, BaseTopic, BaseTopicLoan
from ._topic_memory import Chunk
from ._writer import Buffer

_T = TypeVar('_T')


class TopicLoan(BaseTopicLoan):
    """An unpublished message: write into `bytes`, then publish or `discard()` it, once.

    A context manager: what was not published when the block ends is discarded.
    """

    __slots__ = ('_topic',)

    _topic: Topic

    async def publish(self, length_bytes: int | None = None) -> None:
        """Publishes it; waits only while a subscriber that may block the topic does. Raises as
        `try_publish`."""
        await self._topic._until(lambda: self.try_publish(length_bytes) or None)

    def __enter__(self) -> TopicLoan:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class Topic(BaseTopic):
    """A name at which one publishes and others subscribe; made by `open_topic`. Belongs to one
    event loop. A thread of its own admits subscribers and hears what they release.

    An asynchronous context manager (closes).
    """

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(publisher)
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        publisher.on_change = self._on_change

    async def publish(self, data: Buffer) -> None:
        """Sends a message (bytes-like, contiguous) to all subscribers, copying it once.

        Waits while the shared memory is exhausted, or a subscriber that may block the topic does;
        in order. Raises `UkshmError` ERR_UKSHM_MESSAGE_TOO_LONG, `Closed`.
        """
        view = as_view(data)
        await self._until(lambda: self._publisher.try_publish(view) or None)

    async def loan(self, length_bytes: int) -> TopicLoan:
        """Memory for a message, to be written in place; waits while it is exhausted. Raises as
        `publish`."""
        publisher = self._publisher
        return self._loan_of(await self._until(lambda: publisher.try_lend(length_bytes)))

    def try_loan(self, length_bytes: int) -> TopicLoan | None:
        """As `loan`, but None where that would wait."""
        lent = self._try_lend(length_bytes)
        return None if lent is None else self._loan_of(lent)

    async def close(self, timeout: float = LINGER_SECONDS) -> None:
        """Ends the topic. Subscribers get what waits for them, and have `timeout` seconds to read
        and release it; then the memory is freed. Idempotent."""
        await self._loop.run_in_executor(None, self._publisher.close, timeout)

    async def __aenter__(self) -> Topic:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _loan_of(self, lent: tuple[memoryview, Chunk | None]) -> TopicLoan:
        loan = TopicLoan(self._publisher, *lent)
        loan._topic = self
        return loan

    async def _until(self, attempt: Callable[[], _T | None]) -> _T:
        publisher = self._publisher
        if not self._turn.locked():
            with publisher.changed:
                result = attempt()
            if result is not None:
                return result
        async with self._turn:
            with publisher.changed:
                publisher.waiting += 1
            try:
                while True:
                    self._news.clear()
                    with publisher.changed:
                        result = attempt()
                    if result is not None:
                        return result
                    publisher.poke()
                    await self._news.wait()
            finally:
                with publisher.changed:
                    publisher.waiting -= 1

    def _on_change(self) -> None:
        # On the topic's thread.
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed
            pass
