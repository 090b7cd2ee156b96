"""A subscription: the subscriber's end of a topic, in the synchronous interface; and what the one
for asyncio has in common with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar, cast

from ._base import BaseChannel
from ._channel import Channel
from ._errors import Closed, PeerClosed, PeerMisbehaved, UkshmError, timeout_error
from ._format import RING_BYTES_MIN
from ._joining import (
    DEPTH_DEFAULT,
    TYPE_DATA,
    TYPE_JOIN,
    Numbers,
    check_wishes,
    encode_note,
)
from ._listener import connect
from ._meeting import HANDSHAKE_SECONDS
from ._message import Received
from ._names import Access, Credentials

C = TypeVar('C', bound=BaseChannel[Any])


class TopicMessage(Received):
    """A message of a topic: readable in place until `release()`; a context manager.

    Of what `Received` has, `bytes`, `length_bytes`, `copy()`, `text()`, `json()` and `release()`.
    """

    __slots__ = ('missed', 'topic')

    #: The name of the topic.
    topic: str
    #: How many messages were lost to this subscriber right before it.
    missed: int

    @property
    def sequence(self) -> int:
        """Its number at the publisher: a u32, which wraps to 0."""
        return self.id


class SubscriptionStats(NamedTuple):
    """How a subscription went so far."""

    #: Messages read, and messages lost before or between them.
    received: int
    missed: int
    #: Messages that were taken and not released: small ones, and others.
    held_inline: int
    held_chunks: int


class BaseSubscription(Generic[C]):
    """The part that never waits."""

    #: The topic's name.
    topic: str
    #: The publisher, as the kernel reported it.
    publisher: Credentials
    #: How many messages the topic had kept for us: they come first.
    kept: int

    def __init__(self, channel: C, numbers: Numbers) -> None:
        self._channel: C = channel
        self._numbers = numbers
        self.topic = channel.name
        self.publisher = channel.peer
        self.kept = numbers.kept
        # From here on the channel makes messages of a topic.
        cast(Any, channel)._reader._make = TopicMessage

    @property
    def missed(self) -> int:
        """How many messages were lost to this subscription so far."""
        return self._numbers.missed

    @property
    def closed(self) -> bool:
        """Whether it has ended here."""
        return self._channel.closed

    def try_receive(self) -> TopicMessage | None:
        """The next message, or None when there is none now. Never blocks. Raises as `receive`."""
        while True:
            self._check_end()
            message = self._channel.try_receive()
            if message is None:
                return None
            numbered = self._number(message)
            if numbered is not None:
                return numbered

    def stats(self) -> SubscriptionStats:
        """How it went so far."""
        numbers, reader = self._numbers, self._channel._reader
        return SubscriptionStats(
            numbers.received, numbers.missed, reader.held_inline, reader.held_chunks
        )

    def fileno(self) -> int:
        """A descriptor that is readable when there may be messages, or the end: for `select` and
        its kin. Before waiting for it, call `try_receive()` until it returns None."""
        return self._channel.fileno()

    def _check_end(self) -> None:
        if self._numbers.end is not None:
            raise self._numbers.end.with_traceback(None)

    def _number(self, message: Received) -> TopicMessage | None:
        """The message with its number; None for the publisher's last word, which is none."""
        numbered = cast(TopicMessage, message)
        numbers = self._numbers
        if numbered.type == TYPE_DATA and not numbered.is_request:
            numbered.topic = numbers.name
            numbered.missed = numbers.take(numbered.id)
            return numbered
        try:
            numbers.last_word(-1 if numbered.is_request else numbered.type, numbered.copy())
        except PeerMisbehaved as error:
            self._channel._end(error)
            raise
        numbered.release()
        return None

    def __repr__(self) -> str:
        return f"<ukshm subscription to '{self.topic}' of process {self.publisher.pid}>"


def first_word(channel: BaseChannel[Any], message: Received) -> Numbers:
    """What the publisher answered. Raises why not; the channel has then ended."""
    try:
        with message:
            type = -1 if message.is_request else message.type
            return Numbers(channel.name, type, message.copy())
    except UkshmError as error:
        channel._end(error)
        raise


class Subscription(BaseSubscription[Channel]):
    """Messages of one topic, in order; made by `subscribe`. For one thread at a time.

    A context manager, and an iterator until the topic is closed; release each message.
    """

    def receive(self, timeout: float | None = None) -> TopicMessage:
        """The next message; blocks until there is one.

        `timeout` in seconds, None: without end. Raises `UkshmError`: `Timeout`; behind the last
        message `PeerClosed` (the topic was closed), `PeerGone` (the publisher died),
        ERR_UKSHM_TOO_SLOW (it gave this subscriber up); `PeerMisbehaved`, `Closed`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_end()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            numbered = self._number(self._channel.receive(left))
            if numbered is not None:
                return numbered

    def __iter__(self) -> Iterator[TopicMessage]:
        return self

    def __next__(self) -> TopicMessage:
        try:
            return self.receive()
        except (PeerClosed, Closed):
            raise StopIteration from None

    def close(self) -> None:
        """Ends the subscription: messages that are held are gone with it. Idempotent."""
        if not self._channel.closed:
            self._channel._begin_close()
            self._channel._hang_up()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def subscribe(
    name: str,
    wait: bool = False,
    timeout: float | None = None,
    *,
    slow: str = 'drop-oldest',
    depth: int = DEPTH_DEFAULT,
    owner: Access = 'same-user',
    answer_timeout: float = HANDSHAKE_SECONDS,
) -> Subscription:
    """Subscribes to the topic at `name`. Blocks until the publisher has admitted this subscriber:
    nothing published from then on is missed without being counted.

    `wait`, `timeout`, `owner`: as in `connect`. `slow`: what becomes of a message while this
    subscriber has `depth` others (1 to 4096) that it has not released:

    - 'drop-oldest': it waits at the publisher, among as many others; the oldest there are lost.
    - 'drop-newest': it is lost.
    - 'block': the publisher waits. It must have allowed that.
    - 'disconnect': the subscription ends with ERR_UKSHM_TOO_SLOW.

    `answer_timeout`: seconds that the publisher may take to answer. Raises `UkshmError` as
    `connect`, and ERR_UKSHM_NOT_OFFERED (another topic has that name, or something else),
    ERR_UKSHM_MAY_NOT_BLOCK.
    """
    wishes = check_wishes(slow, depth)
    channel = connect(
        name,
        wait,
        timeout,
        owner=owner,
        # It says one thing: the least memory is enough.
        send_ring_bytes=RING_BYTES_MIN,
        send_arena_bytes=0,
        receive_arena_bytes=0,
        handshake_timeout=answer_timeout,
    )
    try:
        channel.send(encode_note(topic=name, **wishes._asdict()), TYPE_JOIN)
        try:
            message = channel.receive(answer_timeout)
        except TimeoutError:
            raise timeout_error(f"an answer of the publisher of '{name}'", answer_timeout) from None
        return Subscription(channel, first_word(channel, message))
    except BaseException:
        channel._hang_up()
        raise
