"""Received messages and unsent ones, in place in an outbox.

A living sender can change the bytes of a received message at any time. Whatever looks twice
(decoders, parsers) must work on a copy: `text()` and `json()` do.
"""

from __future__ import annotations

import json as _json
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ._errors import UkshmError

if TYPE_CHECKING:
    from ._forward import Region

#: In place of a lease number: the message is a record of the ring.
INLINE: Final = -1
#: In place of a lease number: the message is a private copy, which nobody waits for.
PRIVATE: Final = -2

HELD: Final = 0
RELEASED: Final = 1
FORWARDED: Final = 2

NO_REQUEST: Final = 0
UNANSWERED: Final = 1
ANSWERED: Final = 2

Self = TypeVar('Self', bound='Received')

# Inside the classes, `bytes` is what a message has.
_Bytes = bytes


class Releaser(Protocol):
    """Whoever can give a message back to its sender."""

    def _release(self, start: int, lease: int, generation: int) -> None: ...


class MessageOwner(Releaser, Protocol):
    """The channel that a message came through."""

    def _check_open(self) -> None: ...
    def _forget(self, start: int, lease: int, generation: int, request: int) -> None: ...
    def _refuse(self, request: int, error: BaseException) -> None: ...


class Received:
    """A received message: readable in place until `release()`."""

    __slots__ = (
        '_generation',
        '_lease',
        '_memory',
        '_offset',
        '_owner',
        '_region',
        '_request',
        '_start',
        '_state',
        '_view',
        'id',
        'length_bytes',
        'type',
    )

    #: 0 to 16 383, as the sender chose.
    type: int
    #: The sender's correlation id, a u32.
    id: int
    length_bytes: int

    def __init__(
        self,
        owner: MessageOwner,
        memory: memoryview,
        offset: int,
        length: int,
        type: int,
        id: int,
        start: int,
        lease: int = INLINE,
        generation: int = 0,
        region: Region | None = None,
    ) -> None:
        self._state = HELD
        self._owner = owner
        self._memory = memory
        self._offset = offset
        self.length_bytes = length
        self.type = type
        self.id = id
        self._start = start
        self._lease = lease
        self._generation = generation
        self._region = region
        self._request = NO_REQUEST
        self._view: memoryview | None = None

    @property
    def bytes(self) -> memoryview:
        """The bytes in place, a read-only view; a sender that is still alive can change them.

        Raises `UkshmError` ERR_UKSHM_MESSAGE_RELEASED, or why the channel ended.
        """
        view = self._view
        if view is None:
            self._check_held()
            offset = self._offset
            view = self._view = self._memory[offset : offset + self.length_bytes]
        return view

    @property
    def is_request(self) -> bool:
        """Whether the sender waits for a `reply`; one that is released without is refused."""
        return self._request != NO_REQUEST

    def __len__(self) -> int:
        return self.length_bytes

    def __bool__(self) -> bool:
        return True

    def copy(self) -> _Bytes:
        """A copy that nobody else can change."""
        return self.bytes.tobytes()

    def text(self, errors: str = 'strict') -> str:
        """The bytes as UTF-8, decoded from a copy. Raises `UnicodeDecodeError`."""
        return self.bytes.tobytes().decode('utf-8', errors)

    def json(self) -> Any:
        """The bytes as JSON, parsed from a copy. Raises `ValueError`."""
        return _json.loads(self.bytes.tobytes())

    def release(self) -> None:
        """Gives the memory back to its sender; in any order, once or more often.

        The view `bytes` can then not be used any more (`ValueError`). Other views made of it (a
        slice, an array of numpy) can, but show whatever the sender writes there next.
        """
        if self._state == HELD:
            self._drop(RELEASED)
            if self._lease != PRIVATE:
                self._owner._release(self._start, self._lease, self._generation)
            if self._request == UNANSWERED:
                self._request = ANSWERED
                self._owner._refuse(self.id, no_reply())

    def refuse(self, error: BaseException) -> None:
        """Answers a request with an error, which the other side's `request` then raises, and
        releases it. Never blocks. Raises `UkshmError` as `reply`."""
        self._answer()
        self._owner._refuse(self.id, error)
        self.release()

    def _answer(self) -> None:
        """Marks the request as answered; refused for anything else, and the second time."""
        if self._request == NO_REQUEST:
            raise UkshmError('ERR_UKSHM_NOT_A_REQUEST', 'the sender does not wait for a reply')
        if self._request == ANSWERED or self._state != HELD:
            raise UkshmError(
                'ERR_UKSHM_ALREADY_REPLIED', 'the request was answered (or released) already'
            )
        self._owner._check_open()
        self._request = ANSWERED

    def _detach(self) -> None:
        """Copies a small message out of the ring, so that it holds up nothing behind it."""
        if self._lease == INLINE:
            self._memory, self._offset = memoryview(self.copy()), 0
            self._drop(HELD)
            self._owner._release(self._start, self._lease, self._generation)
            self._lease = PRIVATE

    def _drop(self, state: int) -> None:
        self._state = state
        view = self._view
        if view is not None:
            self._view = None
            try:
                view.release()
            except BufferError:  # something looks through this very view; the pages stay mapped
                pass

    def _check_held(self) -> None:
        if self._state != HELD:
            what = 'released' if self._state == RELEASED else 'forwarded'
            raise UkshmError(
                'ERR_UKSHM_MESSAGE_RELEASED',
                f'the message was {what}: its memory is not ours to read; copy() it before',
            )
        self._owner._check_open()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self._state == HELD:
            self._state = RELEASED
            request = self.id if self._request == UNANSWERED else -1
            self._owner._forget(self._start, self._lease, self._generation, request)

    def __repr__(self) -> str:
        return f'<ukshm message type={self.type} id={self.id} {self.length_bytes} bytes>'


def no_reply() -> UkshmError:
    """What the sender of a request is told that nobody answered."""
    return UkshmError('ERR_UKSHM_NO_REPLY', 'the request was released without a reply')


class LoanOwner(Protocol):
    """The channel whose memory is lent."""

    def _send_loan(self, loan: Loan, length: int, publish: bool) -> None: ...
    def _discard_loan(self, chunk: int, size: int) -> None: ...
    def _forget_loan(self, chunk: int, size: int) -> None: ...


class Loan:
    """An unsent message: write into `bytes`, then `send()` or `discard()`, once.

    A context manager: what was not sent when the block ends is discarded.
    """

    __slots__ = ('_chunk', '_open', '_owner', '_size', 'bytes', 'id', 'length_bytes', 'type')

    #: The memory in place, a writable view: what it holds before you write is undefined.
    bytes: memoryview
    length_bytes: int
    type: int
    id: int

    def __init__(
        self, owner: LoanOwner, view: memoryview, chunk: int, size: int, type: int, id: int
    ) -> None:
        self._open = True
        self._owner = owner
        self._chunk = chunk
        self._size = size
        self.bytes = view
        self.length_bytes = view.nbytes
        self.type = type
        self.id = id

    def send(self, length_bytes: int | None = None, publish: bool = True) -> None:
        """Sends the message; never blocks.

        `length_bytes`: its length, if less than what was lent. `publish=False`: the peer sees it
        at the next `channel.publish()`. Raises `UkshmError` ERR_UKSHM_LOAN_USED, or why the
        channel ended.
        """
        length = self.length_bytes if length_bytes is None else length_bytes
        if not 0 <= length <= self.length_bytes:
            raise ValueError(f'length_bytes is {length}; expected 0 to {self.length_bytes}')
        if not self._open:
            raise UkshmError('ERR_UKSHM_LOAN_USED', 'the loan was sent or discarded already')
        self._owner._send_loan(self, length, publish)
        self._close()

    def discard(self) -> None:
        """Gives the memory back unsent. Does nothing when it was sent."""
        if self._open:
            self._close()
            self._owner._discard_loan(self._chunk, self._size)

    def _close(self) -> None:
        self._open = False
        try:
            self.bytes.release()
        except BufferError:  # something looks through this very view; the pages stay mapped
            pass

    def __enter__(self) -> Loan:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def __del__(self) -> None:
        if getattr(self, '_open', False):
            self._open = False
            self._owner._forget_loan(self._chunk, self._size)
