"""The synchronous interface: calls that wait, block."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ._base import BaseChannel
from ._errors import Closed, PeerClosed, UkshmError, cannot_forward, closed_error, timeout_error
from ._link import Link
from ._meeting import Meeting
from ._message import FORWARDED, UNANSWERED, Loan, Received
from ._requests import reply_kind
from ._writer import Buffer


class Message(Received):
    """A received message: readable in place until `release()`; a context manager."""

    __slots__ = ()

    def forward(self, to: Channel, timeout: float | None = None) -> None:
        """Hands the message on to another channel without a copy (a small one: with one), and
        gives up this side's hold; its sender gets the memory back when the next one releases it
        and this program is inside a call on either channel.

        Blocks while that channel is full. Raises `UkshmError` ERR_UKSHM_CANNOT_FORWARD, `Timeout`,
        or why the other channel ended; the message is then still held here.
        """
        self._check_held()
        if self.is_request:
            raise cannot_forward('it is a request, whose answer must come from here')
        if self._lease < 0:
            to.send(self.bytes, self.type, self.id, timeout)
            self.release()
            return
        source = self._owner
        if not isinstance(source, Channel) or not isinstance(to, Channel):
            raise cannot_forward('both channels must be of the synchronous interface')
        to._forward(source, self, timeout)
        self._drop(FORWARDED)


    def reply(self, data: Buffer = b'', type: int = 0, timeout: float | None = None) -> None:
        """Answers a request, once, and releases it; blocks while the channel is full.

        A request that is released without a reply is answered with an error. Raises `UkshmError`
        ERR_UKSHM_NOT_A_REQUEST, ERR_UKSHM_ALREADY_REPLIED, and as `Channel.send`; there still may
        be an answer then.
        """
        self._answer()
        owner = self._owner
        assert isinstance(owner, Channel)
        try:
            owner._reply(data, type, self.id, timeout)
        except BaseException:
            self._request = UNANSWERED
            raise
        self.release()


class Channel(BaseChannel[Message]):
    """One of two ends, made by `listen` and `connect`. For one thread at a time.

    A context manager (closes; hangs up at once if the block raised), and an iterator over messages
    until either side closes; it raises `PeerGone` behind the last one when the peer died. Release
    each message.
    """

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(meeting, Message)
        self._watched: dict[int, Link[Message]] = {}

    def receive(self, timeout: float | None = None) -> Message:
        """The next message; blocks until there is one.

        `timeout` in seconds, None: without end. Raises `UkshmError`: `Timeout`, and `PeerClosed`
        and `PeerGone` behind the last message, `PeerMisbehaved`, `Closed`.
        """
        message = self._next()
        if message is not None:
            return message
        message = self._last()
        deadline = None if timeout is None else time.monotonic() + timeout
        while message is None:
            self._wait(deadline, timeout, 'a message')
            message = self._next()
            if message is None:
                message = self._last()
        return message

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            message = self._next()
            return self.receive() if message is None else message
        except (PeerClosed, Closed):
            raise StopIteration from None

    def send(
        self, data: Buffer, type: int = 0, id: int = 0, timeout: float | None = None
    ) -> None:
        """Copies `data` (bytes-like, contiguous) into a message and sends it; blocks while full.

        `type`: 0 to 65 533; `id`: a u32; `timeout` in seconds, None: without end. Raises
        `UkshmError` as `try_send`, `Timeout`.
        """
        if self.try_send(data, type, id):
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._waiting_sends += 1
        try:
            while True:
                self._wait(deadline, timeout, 'space for a message')
                if self.try_send(data, type, id):
                    return
        finally:
            self._waiting_sends -= 1

    def loan(
        self, length_bytes: int, type: int = 0, id: int = 0, timeout: float | None = None
    ) -> Loan:
        """As `try_loan`, but blocks while full. Raises as `try_loan`, `Timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            loan = self.try_loan(length_bytes, type, id)
            if loan is not None:
                return loan
            self._wait(deadline, timeout, 'space for a loan')

    def request(
        self, data: Buffer = b'', type: int = 0, timeout: float | None = None
    ) -> Message:
        """Sends a request, and blocks for its reply, which must be released. Messages that arrive
        meanwhile are kept for `receive`.

        `timeout` in seconds, for all of it; the answer is dropped when it comes later. Raises
        `RemoteError` when the other side answered with an error; `Timeout`, and as `send` and
        `receive`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        id = self._try_ask(data, type)
        while id == 0:
            self._wait(deadline, timeout, 'space for a request')
            id = self._try_ask(data, type)
        try:
            answer = self._answer_of(id)
            while answer is None:
                self._wait(deadline, timeout, 'the answer')
                answer = self._answer_of(id)
            return answer
        finally:
            self._give_up(id)

    def close(self, timeout: float | None = None) -> None:
        """Ends the channel: the peer reads and releases what it was sent, then the memory is freed.
        What the peer sends meanwhile is not read. Idempotent.

        Blocks until then, `timeout` seconds at most (0: hangs up at once). Raises `Timeout` when
        the peer had not read everything; the channel is ended all the same.
        """
        if self._dead is not None:
            return
        try:
            self._begin_close()
            deadline = None if timeout is None else time.monotonic() + timeout
            while self._dead is None and not self._finished():
                self._wait(deadline, timeout, 'the reading of all messages by the peer')
        finally:
            self._end(closed_error('the channel'))

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._hang_up()

    def _reply(self, data: Buffer, type: int, id: int, timeout: float | None) -> None:
        kind = reply_kind(type)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._put(data, kind, id, True):
            self._wait(deadline, timeout, 'space for a reply')

    def _wait(self, deadline: float | None, timeout: float | None, what: str) -> None:
        """Sleeps in the kernel until there are news, whatever they are."""
        if self._wire.hung:
            return  # the caller's next look says so
        left = None
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise timeout_error(what, timeout or 0)
        self._pump(left)
        pause = self._vain_pause()
        if pause > 0:
            time.sleep(pause if left is None else min(pause, left))

    # ---- forwarding

    def _forward(self, source: Channel, message: Message, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        announcement = self._announce(source, message)
        while announcement.answer is None:
            self._wait(deadline, timeout, 'the mapping of the memory by the next process')
            if self._wire.hung:
                raise self._why_ended()
        while not self._try_forward(source, message, announcement):
            self._wait(deadline, timeout, 'space for a message')

    def _watch(self, target: Link[Message]) -> None:
        fd = target._wire.fileno()
        self._watched[fd] = target
        if not self._wire.closed:
            self._wire.watch(fd)

    def _unwatch(self, target: Link[Message]) -> None:
        for fd, watched in list(self._watched.items()):
            if watched is target:
                del self._watched[fd]
                if not self._wire.closed:
                    self._wire.unwatch(fd)

    def _pump_targets(self) -> None:
        for target in list(self._watched.values()):
            try:
                target._pump(0)
                # Its socket was read here: whoever waits for its fileno() must still wake.
                target._wire.poke(target._wire.hung or target._reader.look())
            except UkshmError:
                pass  # it has ended, and says so itself
