"""The part of a channel's interface that never waits, common to both interfaces."""

from __future__ import annotations

from typing import NamedTuple

from ._errors import PeerMisbehaved, UkshmError, invalid_argument
from ._format import STATE, TYPE_MAX, U32
from ._link import warn_of
from ._message import PRIVATE, Loan, no_reply
from ._reader import M
from ._requests import Requests
from ._writer import Buffer


class ChannelStats(NamedTuple):
    """Numbers of one channel; counters run from its beginning."""

    #: Bytes of our messages in the ring that the peer has not released.
    ring_bytes_used: int
    #: Bytes of our chunks that the peer holds, or that are on loan here.
    bytes_lent: int
    chunks_lent: int
    #: Received inline messages that are kept: they hold up the ring behind them.
    held_inline: int
    held_chunks: int
    #: How often the peer was woken, and how often it woke us.
    rings_sent: int
    rings_received: int
    #: Sends that wait for space.
    waiting_sends: int
    #: Bytes of the two outboxes.
    shared_bytes: int


class BaseChannel(Requests[M]):
    """One of two ends. For one thread (or one event loop) at a time."""

    def try_receive(self) -> M | None:
        """The next message, or None when there is none now. Never blocks.

        Raises `UkshmError`: `PeerClosed`, `PeerGone` (both after the last message),
        `PeerMisbehaved`, `Closed`.
        """
        message = self._next()
        if message is None:
            self._pump(0)
            message = self._next()
            if message is None:
                self._wire.poke(False)
                message = self._last()
        return message

    def try_send(self, data: Buffer, type: int = 0, id: int = 0, publish: bool = True) -> bool:
        """Copies `data` (bytes-like, contiguous) into a message and sends it. Never blocks.

        `type`: 0 to 16 383; `id`: a u32. `publish=False`: the peer sees it at the next
        `publish()`, together with others. Returns False when full. Raises `UkshmError`
        ERR_UKSHM_MESSAGE_TOO_LONG, ERR_UKSHM_LOAN_OPEN, ERR_UKSHM_INVALID_ARGUMENT, `PeerClosed`,
        `PeerGone`, `PeerMisbehaved`, `Closed`.
        """
        if not (0 <= type <= TYPE_MAX and 0 <= id <= U32):
            raise _invalid_type_or_id(type, id)
        return self._put(data, type, id, publish)

    def try_loan(self, length_bytes: int, type: int = 0, id: int = 0) -> Loan | None:
        """Takes space for a message, to be written in place; None when full. Never blocks.

        Small ones (up to 8 KiB) are sent in order, so one such loan may be open at a time; larger
        ones are free in number. Raises as `try_send`.
        """
        if self._wire.hung or self._peer_words[STATE] != 0:
            raise self._why_ended()
        self._recall()
        if not (0 <= type <= TYPE_MAX and 0 <= id <= U32):
            raise _invalid_type_or_id(type, id)
        if length_bytes < 0:
            raise invalid_argument('length_bytes', length_bytes, '0 or more')
        try:
            if length_bytes <= self._inline_max:
                view = self._writer.lend_inline(length_bytes)
                if view is not None:
                    return Loan(self, view, -1, 0, type, id)
            else:
                chunk = self._lend_chunk(length_bytes)
                if chunk is not None:
                    view = self._writer.chunk_view(chunk[0], length_bytes)
                    return Loan(self, view, chunk[0], chunk[1], type, id)
        except PeerMisbehaved as error:
            self._end(error)
            raise
        self.publish()
        return None

    def publish(self) -> None:
        """Lets the peer see what was sent with `publish=False`. Never blocks."""
        self._check_open()
        if self._writer.publish():
            self._wire.ring()

    def stats(self) -> ChannelStats:
        """How the memory is used now, and what happened so far. Raises `PeerMisbehaved`."""
        writer, reader, wire = self._writer, self._reader, self._wire
        self._pump(0)
        return ChannelStats(
            writer.used_bytes,
            writer.arena.used_bytes,
            writer.chunks_lent,
            reader.held_inline,
            reader.held_chunks,
            wire.rings_sent,
            wire.rings_received,
            self._waiting_sends,
            self._meeting.shared_bytes,
        )

    def fileno(self) -> int:
        """A descriptor that is readable when there may be messages, space, or the end: for
        `select` and its kin. Before waiting for it, call `try_receive()` until it returns None.
        Raises `Closed`."""
        self._check_open()
        return self._wire.fileno()

    # ---- for messages and loans

    def _forget(self, start: int, lease: int, generation: int, request: int) -> None:
        # Called by the collector, perhaps in the middle of anything: the next call releases it.
        if self._dead is None:
            self._forgotten.append((start, lease, generation, request))
            warn_of(f'a message of {self!r} was never released')

    def _send_loan(self, loan: Loan, length: int, publish: bool) -> None:
        if self._wire.hung or self._peer_words[STATE] != 0:
            raise self._why_ended()
        if loan._chunk < 0:
            self._writer.send_inline(length, loan.type, loan.id)
        else:
            self._writer.send_chunk((loan._chunk, loan._size), length, loan.type, loan.id)
        if publish:
            self.publish()

    def _discard_loan(self, chunk: int, size: int) -> None:
        if self._dead is not None:
            return
        if chunk < 0:
            self._writer.discard_inline()
        else:
            self._writer.discard_chunk((chunk, size))

    def _forget_loan(self, chunk: int, size: int) -> None:
        if self._dead is None:
            self._forgotten_loans.append((chunk, size))
            warn_of(f'a loan of {self!r} was neither sent nor discarded')

    def _recall(self) -> None:
        while self._forgotten:
            start, lease, generation, request = self._forgotten.popleft()
            if lease != PRIVATE:
                self._release(start, lease, generation)
            if request >= 0:
                self._refuse(request, no_reply())
        while self._forgotten_loans:
            self._discard_loan(*self._forgotten_loans.popleft())

    # ---- sending

    def _put(self, data: Buffer, kind: int, id: int, publish: bool) -> bool:
        if self._wire.hung or self._peer_words[STATE] != 0:
            raise self._why_ended()
        if data.__class__ is not bytes:
            data = _as_bytes(data)
        length = len(data)
        try:
            if length <= self._inline_max:
                sent = self._writer.write(data, length, kind, id)
            else:
                sent = self._send_chunk(data, length, kind, id)
        except PeerMisbehaved as error:
            self._end(error)
            raise
        if publish or not sent:  # a peer that sees nothing frees nothing
            self.publish()
        return sent

    def _send_chunk(self, data: Buffer, length: int, type: int, id: int) -> bool:
        chunk = self._lend_chunk(length)
        if chunk is None:
            return False
        view = self._writer.chunk_view(chunk[0], length)
        view[:] = data
        view.release()
        self._writer.send_chunk(chunk, length, type, id)
        return True

    def _lend_chunk(self, length: int) -> tuple[int, int] | None:
        if length > self._bytes_max:
            raise UkshmError(
                'ERR_UKSHM_MESSAGE_TOO_LONG',
                f'a message of {length} bytes; this channel takes {self._bytes_max} at most: use '
                'a larger arena (arena_bytes, send_arena_bytes)',
            )
        return self._writer.lend_chunk(length)


def _as_bytes(data: Buffer) -> memoryview:
    view = memoryview(data)
    if view.format == 'B' and view.ndim == 1 and view.contiguous:
        return view
    return view.cast('B') if view.nbytes else memoryview(b'')


def _invalid_type_or_id(type: int, id: int) -> UkshmError:
    if not 0 <= type <= TYPE_MAX:
        return invalid_argument('type', type, '0 to 16383')
    return invalid_argument('id', id, 'a u32')
