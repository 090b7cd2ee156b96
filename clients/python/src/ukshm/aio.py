"""The same for asyncio: calls that wait are coroutines, and frames are handled by the event loop.

    async with await ukshm.aio.connect('pictures', wait=True) as channel:
        async for message in channel:
            use(message.bytes)
            message.release()

Every `timeout` that the synchronous interface has is asyncio's here (`asyncio.wait_for`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Callable

from ._aio_channel import Channel, Message
from ._aio_subscription import Subscription, join_topic
from ._aio_topic import Topic, TopicLoan
from ._errors import Closed, NoListener, PeerGone, closed_error, timeout_error
from ._format import RING_BYTES_MIN
from ._joining import DEPTH_DEFAULT, check_wishes
from ._link import warn_of
from ._meeting import HANDSHAKE_SECONDS, Meeting, meet
from ._names import Access, address_of
from ._options import (
    ARENA_BYTES,
    MAX_BYTES_PER_USER,
    MAX_CHANNELS,
    RING_BYTES,
    addresses_of,
    connect_options,
    find_listener,
    listen_options,
    retry_pause,
)
from ._publisher import Publisher
from ._server import Server
from ._task import Task
from ._topic import MAX_SUBSCRIBERS, TOPIC_ARENA_BYTES, TOPIC_RING_BYTES, topic_settings

__all__ = [
    'Channel',
    'Listener',
    'Message',
    'Subscription',
    'Topic',
    'TopicLoan',
    'connect',
    'listen',
    'open_topic',
    'subscribe',
]


class Listener:
    """A name at which others connect; made by `listen`. A thread of its own admits them.

    An asynchronous context manager, and an asynchronous iterator over channels until it is closed.
    """

    #: As it was given to `listen`.
    name: str

    def __init__(self, server: Server, arrivals: asyncio.Queue[Meeting | None]) -> None:
        self._server = server
        self._arrivals = arrivals
        self.name = server.address.name

    async def accept(self) -> Channel:
        """The next channel; waits until somebody has connected. Raises `Closed`."""
        if self._server.closed:
            raise closed_error('the listener')
        meeting = await self._arrivals.get()
        if meeting is None:
            self._arrivals.put_nowait(None)  # for other tasks that wait
            raise closed_error('the listener')
        return Channel(meeting)

    def __aiter__(self) -> AsyncIterator[Channel]:
        return self

    async def __anext__(self) -> Channel:
        try:
            return await self.accept()
        except Closed:
            raise StopAsyncIteration from None

    def info(self) -> dict[str, object]:
        """What `ukshm ls` shows."""
        return self._server.exports.info()

    async def close(self) -> None:
        """Frees the name. Channels that were handed out live on; others are closed. Idempotent."""
        self._close()

    def _close(self) -> None:
        self._server.close()
        while not self._arrivals.empty():
            meeting = self._arrivals.get_nowait()
            if meeting is not None:
                meeting.discard()
        self._arrivals.put_nowait(None)

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if hasattr(self, '_server') and not self._server.closed:
            warn_of(f"the listener at '{self.name}' was never closed")
            try:
                self._server.close()
            except Exception:  # the interpreter may be going down
                pass


async def listen(
    name: str,
    *,
    access: Access = 'same-user',
    ring_bytes: int = RING_BYTES,
    arena_bytes: int = ARENA_BYTES,
    max_arena_bytes: int | None = None,
    max_bytes_per_user: int = MAX_BYTES_PER_USER,
    max_channels: int = MAX_CHANNELS,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Listener:
    """Listens at `name`. Options and errors as `ukshm.listen`."""
    options = listen_options(
        access,
        ring_bytes,
        arena_bytes,
        max_arena_bytes,
        max_bytes_per_user,
        max_channels,
        handshake_timeout,
    )
    loop = asyncio.get_running_loop()
    arrivals: asyncio.Queue[Meeting | None] = asyncio.Queue()

    def deliver(meeting: Meeting) -> None:
        try:
            loop.call_soon_threadsafe(arrivals.put_nowait, meeting)
        except RuntimeError:  # the loop is closed
            meeting.discard()

    return Listener(Server(address_of(name), options, deliver), arrivals)


async def connect(
    name: str,
    wait: bool = False,
    *,
    owner: Access = 'same-user',
    send_ring_bytes: int | None = None,
    send_arena_bytes: int | None = None,
    receive_ring_bytes: int | None = None,
    receive_arena_bytes: int | None = None,
    forward_via: Listener | None = None,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Channel:
    """Meets the listener at `name`; with `wait`, waits until there is one. Options and errors as
    `ukshm.connect`."""
    options = connect_options(
        owner,
        send_ring_bytes,
        send_arena_bytes,
        receive_ring_bytes,
        receive_arena_bytes,
        forward_via._server.exports if forward_via is not None else None,
        handshake_timeout,
    )
    addresses = addresses_of(name, options.owner)
    deadline = None if wait else time.monotonic() + handshake_timeout
    attempt = 0
    while True:
        try:
            found = find_listener(addresses, options.owner)
            if found is not None:
                return Channel(await _wait_for(partial(meet, *found, options), handshake_timeout))
        except (NoListener, PeerGone):
            if not wait:
                raise
        if deadline is not None and time.monotonic() > deadline:
            raise timeout_error(f"a place in the queue of '{name}'", handshake_timeout)
        await asyncio.sleep(retry_pause(attempt))
        attempt += 1


async def subscribe(
    name: str,
    wait: bool = False,
    *,
    slow: str = 'drop-oldest',
    depth: int = DEPTH_DEFAULT,
    owner: Access = 'same-user',
    answer_timeout: float = HANDSHAKE_SECONDS,
) -> Subscription:
    """Subscribes to the topic at `name`; with `wait`, waits until there is one. Options and errors
    as `ukshm.subscribe`."""
    wishes = check_wishes(slow, depth)
    channel = await connect(
        name,
        wait,
        owner=owner,
        # It says one thing: the least memory is enough.
        send_ring_bytes=RING_BYTES_MIN,
        send_arena_bytes=0,
        receive_arena_bytes=0,
        handshake_timeout=answer_timeout,
    )
    return await join_topic(channel, wishes, answer_timeout)


async def open_topic(
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
    """Takes `name` and publishes there. Options and errors as `ukshm.open_topic`."""
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


async def _wait_for(work: Callable[[], Meeting], seconds: float) -> Meeting:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: Task[Meeting]) -> None:
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop is closed
            pass

    task: Task[Meeting] = Task(work, Meeting.discard, tell)
    try:
        await asyncio.wait_for(done.wait(), seconds + 1)
    except asyncio.TimeoutError:
        task.abandon()
        raise timeout_error('an answer of the listener', seconds) from None
    except BaseException:
        task.abandon()
        raise
    return task.result()
