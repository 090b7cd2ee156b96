"""The asynchronous channel: calls that wait are coroutines, and the event loop hears the peer."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from ._base import BaseChannel
from ._errors import (
    Closed,
    PeerClosed,
    PeerMisbehaved,
    UkshmError,
    cannot_forward,
    closed_error,
)
from ._meeting import Meeting
from ._message import FORWARDED, UNANSWERED, Loan, Received
from ._requests import reply_kind
from ._writer import Buffer

#: Messages that one call after another may receive before others have their turn.
_TURN = 64


class Message(Received):
    """A received message: readable in place until `release()`; a context manager."""

    __slots__ = ()

    async def forward(self, to: Channel) -> None:
        """Hands the message on to another channel without a copy (a small one: with one), and
        gives up this side's hold; its sender gets the memory back when the next one releases it.

        Waits while that channel is full. Raises `UkshmError` ERR_UKSHM_CANNOT_FORWARD, or why the
        other channel ended; the message is then still held here.
        """
        self._check_held()
        if self.is_request:
            raise cannot_forward('it is a request, whose answer must come from here')
        if self._lease < 0:
            await to.send(self.bytes, self.type, self.id)
            self.release()
            return
        source = self._owner
        if not isinstance(source, Channel) or not isinstance(to, Channel):
            raise cannot_forward('both channels must be of the asyncio interface')
        await to._forward(source, self)
        self._drop(FORWARDED)


    async def reply(self, data: Buffer = b'', type: int = 0) -> None:
        """Answers a request, once, and releases it; waits while the channel is full.

        A request that is released without a reply is answered with an error. Raises `UkshmError`
        ERR_UKSHM_NOT_A_REQUEST, ERR_UKSHM_ALREADY_REPLIED, and as `Channel.send`; there still may
        be an answer then.
        """
        self._answer()
        owner = self._owner
        assert isinstance(owner, Channel)
        try:
            await owner._reply(data, type, self.id)
        except BaseException:
            self._request = UNANSWERED
            raise
        self.release()


class Channel(BaseChannel[Message]):
    """One of two ends, made by `listen` and `connect`. Belongs to one event loop.

    An asynchronous context manager (closes; hangs up at once if the block raised), and an
    asynchronous iterator over messages until either side closes; it raises `PeerGone` behind the
    last one when the peer died. Release each message. One consumer at a time.
    """

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(meeting, Message)
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sending = asyncio.Lock()
        self._receiving = False
        self._turn = _TURN
        self._reading_fd = self._wire.fileno()
        # Weak: the loop must not keep a channel alive that the program has forgotten.
        self._on_news = partial(_on_news, weakref.ref(self))
        self._loop.add_reader(self._reading_fd, self._on_news)

    async def receive(self) -> Message:
        """The next message; waits until there is one.

        Raises `UkshmError`: `PeerClosed` and `PeerGone` behind the last message, `PeerMisbehaved`,
        `Closed`, ERR_UKSHM_BUSY when another task is receiving.
        """
        self._turn -= 1
        if self._turn == 0:
            self._turn = _TURN
            await asyncio.sleep(0)
        if self._receiving:
            raise UkshmError('ERR_UKSHM_BUSY', 'another task receives from this channel')
        message = self._next()
        if self._reader.answers:
            self._wake()
        if message is not None:
            return message
        self._receiving = True
        try:
            message = self._last()
            while message is None:
                await self._news()
                message = self._next()
                if self._reader.answers:
                    self._wake()
                if message is None:
                    message = self._last()
            self._turn = _TURN
            return message
        finally:
            self._receiving = False

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except (PeerClosed, Closed):
            raise StopAsyncIteration from None

    async def send(self, data: Buffer, type: int = 0, id: int = 0) -> None:
        """Copies `data` (bytes-like, contiguous) into a message and sends it; waits while full.
        Sends and loans that wait are served in order.

        `type`: 0 to 65 533; `id`: a u32. Raises `UkshmError` as `try_send`.
        """
        if not self._sending.locked() and self.try_send(data, type, id):
            return
        self._waiting_sends += 1
        try:
            async with self._sending:
                while not self.try_send(data, type, id):
                    await self._news()
        finally:
            self._waiting_sends -= 1

    async def loan(self, length_bytes: int, type: int = 0, id: int = 0) -> Loan:
        """As `try_loan`, but waits while full. Raises as `try_loan`."""
        async with self._sending:
            while True:
                loan = self.try_loan(length_bytes, type, id)
                if loan is not None:
                    return loan
                await self._news()

    async def request(self, data: Buffer = b'', type: int = 0) -> Message:
        """Sends a request, and waits for its reply, which must be released. Messages that arrive
        meanwhile are kept for `receive`. Any number of requests may wait.

        When it is cancelled, the answer is dropped when it comes. Raises `RemoteError` when the
        other side answered with an error, and as `send` and `receive`.
        """
        id = 0 if self._sending.locked() else self._try_ask(data, type)
        if id == 0:
            async with self._sending:
                id = self._try_ask(data, type)
                while id == 0:
                    await self._news()
                    id = self._try_ask(data, type)
        try:
            while True:
                answer = self._answer_of(id)
                if self._reader.answers or self._backlog:
                    self._wake()  # what came is for other tasks
                if answer is not None:
                    return answer
                await self._news()
        finally:
            self._give_up(id)

    async def close(self) -> None:
        """Ends the channel: the peer reads and releases what it was sent, then the memory is freed.
        What the peer sends meanwhile is not read. Idempotent. When it is cancelled, the channel is
        ended at once.
        """
        if self._dead is not None:
            return
        try:
            self._begin_close()
            while self._dead is None and not self._finished():
                await self._news()
        finally:
            self._end(closed_error('the channel'))

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.close()
        else:
            self._hang_up()

    async def _reply(self, data: Buffer, type: int, id: int) -> None:
        kind = reply_kind(type)
        if not self._sending.locked() and self._put(data, kind, id, True):
            return
        async with self._sending:
            while not self._put(data, kind, id, True):
                await self._news()

    # ---- waiting

    async def _news(self) -> None:
        """Waits until something has happened, whatever it is."""
        if self._wire.hung:
            return  # the caller's next look says so
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _hear(self) -> None:
        try:
            self._pump(0)
        except PeerMisbehaved:
            pass  # the channel has ended; whoever calls is told
        self._wake()
        if self._dead is not None:
            return
        if self._forgotten or self._forgotten_loans:
            self._recall()
        pause = self._vain_pause()
        if self._wire.hung:
            self._loop.remove_reader(self._reading_fd)
        elif pause > 0:
            self._loop.remove_reader(self._reading_fd)
            self._loop.call_later(pause, _listen_again, weakref.ref(self))

    def _forget(self, start: int, lease: int, generation: int, request: int) -> None:
        super()._forget(start, lease, generation, request)
        try:
            self._loop.call_soon_threadsafe(self._on_news)
        except RuntimeError:  # the loop is closed
            pass

    def _end(self, why: UkshmError) -> None:
        if self._dead is None:
            try:
                self._loop.remove_reader(self._reading_fd)
            except RuntimeError:  # the loop is closed
                pass
        super()._end(why)
        self._wake()

    async def _forward(self, source: Channel, message: Message) -> None:
        announcement = self._announce(source, message)
        while announcement.answer is None:
            await self._news()
            if self._wire.hung:
                raise self._why_ended()
        async with self._sending:
            while not self._try_forward(source, message, announcement):
                await self._news()


def _on_news(reference: weakref.ref[Channel]) -> None:
    channel = reference()
    if channel is not None and channel._dead is None:
        channel._hear()


def _listen_again(reference: weakref.ref[Channel]) -> None:
    channel = reference()
    if channel is not None and channel._dead is None:
        channel._loop.add_reader(channel._reading_fd, channel._on_news)
