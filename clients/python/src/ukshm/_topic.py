"""A topic's publisher, in the synchronous interface; and what the one for asyncio has in common."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

from ._errors import UkshmError, invalid_argument, timeout_error
from ._link import warn_of
from ._names import Access
from ._publisher import Publisher, as_view
from ._topic_memory import Chunk
from ._topic_settings import SubscriberStats, TopicSettings, TopicStats
from ._writer import Buffer

_T = TypeVar('_T')

TOPIC_ARENA_BYTES = 16 * 1024 * 1024
TOPIC_RING_BYTES = 256 * 1024
MAX_SUBSCRIBERS = 1024
#: How long subscribers may take to read and release the last messages of a topic that closes.
LINGER_SECONDS = 1.0


class BaseTopicLoan:
    """The part that never waits."""

    __slots__ = ('_chunk', '_open', '_publisher', 'bytes', 'length_bytes')

    #: The memory in place, a writable view: what it holds before you write is undefined.
    bytes: memoryview
    length_bytes: int

    def __init__(self, publisher: Publisher, view: memoryview, chunk: Chunk | None) -> None:
        self._publisher = publisher
        self._chunk = chunk
        self._open = True
        self.bytes = view
        self.length_bytes = len(view)

    def try_publish(self, length_bytes: int | None = None) -> bool:
        """Publishes it now; False while a subscriber blocks: it is a loan still. Never blocks.

        `length_bytes`: its length, if less than what was lent. Raises `UkshmError`
        ERR_UKSHM_LOAN_USED, `Closed`.
        """
        length = self.length_bytes if length_bytes is None else length_bytes
        if not 0 <= length <= self.length_bytes:
            raise invalid_argument('length_bytes', length, f'0 to {self.length_bytes}')
        if not self._open:
            raise UkshmError('ERR_UKSHM_LOAN_USED', 'the loan was published or discarded already')
        with self._publisher.changed:
            if not self._publisher.try_publish_loan(self.bytes, self._chunk, length):
                return False
        self._close()
        return True

    def discard(self) -> None:
        """Gives the memory back unpublished. Does nothing when it was published."""
        if self._open:
            self._close()
            with self._publisher.changed:
                self._publisher.discard_loan(self._chunk)

    def _close(self) -> None:
        self._open = False
        try:
            self.bytes.release()
        except BufferError:  # something looks through this very view; the pages stay mapped
            pass

    def __del__(self) -> None:
        if getattr(self, '_open', False):
            self._open = False
            self._publisher.forget_loan(self._chunk)


class TopicLoan(BaseTopicLoan):
    """An unpublished message: write into `bytes`, then publish or `discard()` it, once.

    A context manager: what was not published when the block ends is discarded.
    """

    __slots__ = ()

    def publish(self, length_bytes: int | None = None, timeout: float | None = None) -> None:
        """Publishes it; blocks only while a subscriber that may block the topic does.

        Raises as `try_publish`, `Timeout`; it is then a loan still.
        """
        wait_until(
            self._publisher,
            lambda: self.try_publish(length_bytes) or None,
            timeout,
            'space at a subscriber that may block the topic',
        )

    def __enter__(self) -> TopicLoan:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class BaseTopic:
    """The part that never waits."""

    #: As it was given to `open_topic`.
    name: str
    #: The longest message.
    message_bytes_max: int

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.name = publisher.name
        self.message_bytes_max = publisher.message_bytes_max

    @property
    def sequence(self) -> int:
        """The number of the next message: a u32, which wraps to 0."""
        return self._publisher.sequence

    @property
    def subscribers(self) -> list[SubscriberStats]:
        """Who is subscribed now."""
        with self._publisher.changed:
            return self._publisher.subscribers()

    def stats(self) -> TopicStats:
        """How the memory is used now."""
        with self._publisher.changed:
            return self._publisher.stats()

    def try_publish(self, data: Buffer) -> bool:
        """As `publish`, but False where that would wait: nobody is sent anything then."""
        with self._publisher.changed:
            return self._publisher.try_publish(as_view(data))

    def _try_lend(self, length_bytes: int) -> tuple[memoryview, Chunk | None] | None:
        with self._publisher.changed:
            return self._publisher.try_lend(length_bytes)

    def __repr__(self) -> str:
        return f"<ukshm topic '{self.name}'>"

    def __del__(self) -> None:
        publisher = getattr(self, '_publisher', None)
        if publisher is None or publisher.closed:
            return
        warn_of(f'{self!r} was never closed')
        try:
            publisher.close(0)
        except Exception:  # the interpreter may be going down
            pass


class Topic(BaseTopic):
    """A name at which one publishes and others subscribe; made by `open_topic`. Any thread may use
    it. A thread of its own admits subscribers and hears what they release.

    A context manager (closes).
    """

    def publish(self, data: Buffer, timeout: float | None = None) -> None:
        """Sends a message (bytes-like, contiguous) to all subscribers, copying it once.

        Blocks while the shared memory is exhausted, or a subscriber that may block the topic does;
        `timeout` in seconds, None: without end. Raises `UkshmError` ERR_UKSHM_MESSAGE_TOO_LONG,
        `Timeout`, `Closed`.
        """
        view = as_view(data)
        publisher = self._publisher
        wait_until(
            publisher, lambda: publisher.try_publish(view) or None, timeout, 'space for a message'
        )

    def loan(self, length_bytes: int, timeout: float | None = None) -> TopicLoan:
        """Memory for a message, to be written in place; blocks while it is exhausted. Raises as
        `publish`."""
        publisher = self._publisher
        lent = wait_until(
            publisher, lambda: publisher.try_lend(length_bytes), timeout, 'space for a loan'
        )
        return TopicLoan(publisher, *lent)

    def try_loan(self, length_bytes: int) -> TopicLoan | None:
        """As `loan`, but None where that would wait."""
        lent = self._try_lend(length_bytes)
        return None if lent is None else TopicLoan(self._publisher, *lent)

    def close(self, timeout: float = LINGER_SECONDS) -> None:
        """Ends the topic. Subscribers get what waits for them, and have `timeout` seconds to read
        and release it; then the memory is freed. Blocks until then. Idempotent."""
        self._publisher.close(timeout)

    def __enter__(self) -> Topic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_until(
    publisher: Publisher, attempt: Callable[[], _T | None], timeout: float | None, what: str
) -> _T:
    """Tries until there is a result, whenever something has changed. Raises TIMEOUT."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with publisher.changed:
        result = attempt()
        if result is not None:
            return result
        publisher.waiting += 1
        publisher.poke()  # its thread rests no more
        try:
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise timeout_error(what, timeout or 0)
                publisher.changed.wait(left)
                result = attempt()
                if result is not None:
                    return result
        finally:
            publisher.waiting -= 1


def topic_settings(
    access: Access,
    arena_bytes: int,
    ring_bytes: int,
    max_subscribers: int,
    keep: int,
    may_block: bool,
    patience: float,
    first_sequence: int,
) -> TopicSettings:
    """Checked. Raises INVALID_ARGUMENT, UNSUPPORTED."""
    return TopicSettings(
        access,
        arena_bytes,
        ring_bytes,
        max_subscribers,
        keep,
        may_block,
        patience,
        first_sequence,
    ).check()


def open_topic(
    name: str,
    *,
    access: Access = 'same-user',
    arena_bytes: int = TOPIC_ARENA_BYTES,
    ring_bytes: int = TOPIC_RING_BYTES,
    max_subscribers: int = MAX_SUBSCRIBERS,
    keep: int = 0,
    may_block: bool = False,
    patience: float = 0.2,
    first_sequence: int = 0,
) -> Topic:
    """Takes `name` (as `listen` does) and publishes there. Only this process does.

    `access`: who may subscribe. `arena_bytes`: memory for messages beyond 2 KiB, which all
    subscribers share; one message takes at most a quarter. `ring_bytes`: memory for small messages,
    a subscriber. `max_subscribers`: at a time. `keep`: how many of the last messages a late
    subscriber gets, 0 to 4096; fewer if they take more than a quarter of `arena_bytes`.
    `may_block`: whether subscribers may choose 'block': any of them can then stop the topic.
    `patience`: seconds that publishing waits while the shared memory is exhausted; then subscribers
    that released nothing meanwhile are disconnected. `first_sequence`: the first message's number.

    Raises `UkshmError` ERR_UKSHM_NAME_IN_USE (and who has it), ERR_UKSHM_INVALID_ARGUMENT,
    ERR_UKSHM_NO_MEMORY, ERR_UKSHM_UNSUPPORTED.
    """
    settings = topic_settings(
        access,
        arena_bytes,
        ring_bytes,
        max_subscribers,
        keep,
        may_block,
        patience,
        first_sequence,
    )
    return Topic(Publisher(name, settings))
