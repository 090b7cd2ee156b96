"""The core of a channel, under both interfaces: its parts, its news, and its end. Never waits.

Open -> ended (closed here, or the peer broke the protocol; memory and socket are gone). While it is
open the peer may be closing (state 1) or gone (hung up): then nothing can be sent, and what it
published before is still delivered.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
import weakref
from collections import deque
from typing import Any, Callable, Final, Generic

from ._errors import (
    PeerMisbehaved,
    UkshmError,
    closed_error,
    peer_closed,
    peer_gone,
    peer_misbehaved,
)
from ._format import STATE, STATE_CLOSING
from ._forward import Announced, Imports
from ._frames import Drop, Import, Imported
from ._meeting import Meeting
from ._names import Credentials
from ._reader import M, Reader
from ._wire import Wire
from ._writer import Writer

_POLL_EVERY: Final = 256
_VAIN_WAKES_MAX: Final = 64
_VAIN_PAUSE_SECONDS_MAX: Final = 0.02

_serials = itertools.count(1)
_links: weakref.WeakSet[Any] = weakref.WeakSet()


class Link(Generic[M]):
    """The parts of a channel. For one thread (or one event loop) at a time."""

    #: The name at which the two met.
    name: str
    #: The other process, as the kernel reported it when they met.
    peer: Credentials

    def __init__(self, meeting: Meeting, make: Callable[..., M]) -> None:
        self._dead: UkshmError | None = None
        self._meeting = meeting
        self.name = meeting.name
        self.peer = meeting.peer
        self._serial = next(_serials)
        self._words = meeting.own.words
        self._peer_words = meeting.theirs.words
        self._wire = Wire(meeting.sock, meeting.pidfd)
        self._reader: Reader[M] = Reader(meeting.theirs, meeting.own, make)
        self._writer = Writer(meeting.own, meeting.theirs)
        self._inline_max = self._writer.inline_bytes_max
        self._bytes_max = max(self._inline_max, meeting.own.layout.arena_bytes)
        self._pop: Callable[[Any], M | None] = self._reader.pop
        self._until_poll = _POLL_EVERY
        self._imports = Imports(self._reader.regions, meeting.access, self._wire.send_frame)
        self._announced = Announced()
        #: Channels to which messages of this one were announced, by serial number.
        self._targets: dict[int, weakref.ref[Link[M]]] = {}
        self._forgotten: deque[tuple[int, int, int, int]] = deque()
        #: Messages that came while an answer was awaited.
        self._backlog: deque[M] = deque()
        self._forgotten_loans: deque[tuple[int, int]] = deque()
        self._forsaken = False
        self._vain_wakes = 0
        self._waiting_sends = 0
        _links.add(self)

    @property
    def closed(self) -> bool:
        """Whether the channel has ended here: by `close()`, or because the peer broke the
        protocol."""
        return self._dead is not None

    def _check_open(self) -> None:
        if self._dead is not None:
            raise self._dead.with_traceback(None)

    def _release(self, start: int, lease: int, generation: int) -> None:
        if self._dead is None:
            self._reader.release(start, lease, generation)
            self._reader.owes_ring = False
            self._wire.ring()

    # ---- receiving

    def _next(self) -> M | None:
        """The next message, if it is here."""
        if self._forgotten or self._forgotten_loans:
            self._recall()
        return self._backlog.popleft() if self._backlog else self._fetch()

    def _fetch(self) -> M | None:
        """The next message that nobody has seen. A look at the socket now and then, so that a
        peer that sends without a pause is heard there too."""
        try:
            message = self._pop(self)
        except PeerMisbehaved as error:
            self._end(error)
            raise
        self._until_poll -= 1
        if self._until_poll == 0:
            self._until_poll = _POLL_EVERY
            if message is not None:
                self._pump(0)
        return message

    def _last(self) -> M | None:
        """When there is no message: whether one can still come. Raises why not."""
        if self._reader.owes_ring:
            self._reader.owes_ring = False
            self._wire.ring()
        if self._ending():
            # It published before it said so: one more look behind its last word.
            message = self._next()
            if message is None:
                raise self._why_ended()
            return message
        return None

    def _ending(self) -> bool:
        """Whether the peer has said its last word."""
        return self._wire.hung or self._peer_words[STATE] != 0

    def _why_ended(self) -> UkshmError:
        if self._dead is not None:
            return self._dead.with_traceback(None)
        who = f'process {self.peer.pid}'
        if self._peer_words[STATE] != 0:
            return peer_closed(who)
        return peer_gone(who)

    # ---- news

    def _pump(self, seconds: float | None) -> None:
        """Waits for news (None: without end; 0: only looks) and deals with them. Whoever waits
        then looks again for what it waits for. Raises PEER_MISBEHAVED."""
        if self._dead is not None:
            return
        others = self._wire.poll(seconds)
        try:
            news = self._handle_frames()
            if self._wire.hung:
                self._forsake()
                news = True
            elif self._writer.collect():
                news = True
            news = self._reader.look() or news
        except PeerMisbehaved as error:
            self._end(error)
            raise
        self._pass_on_returned()
        self._send_refusals()
        if others:
            self._pump_targets()
            news = True
        self._vain_wakes = 0 if news else self._vain_wakes + 1

    def _vain_pause(self) -> float:
        """Seconds to rest from a peer that rings and rings without anything to see."""
        vain = self._vain_wakes - _VAIN_WAKES_MAX
        return min(vain * 0.0002, _VAIN_PAUSE_SECONDS_MAX) if vain > 0 else 0.0

    def _handle_frames(self) -> bool:
        frames = self._wire.frames
        if not frames and not self._wire.broken:
            return False
        self._wire.frames = []
        for frame in frames:
            if isinstance(frame, Import):
                self._imports.begin(frame)
            elif isinstance(frame, Imported):
                self._announced.answered(frame)
            elif isinstance(frame, Drop) and not self._imports.drop(frame.number):
                self._reader.drop_region(frame.number)
        if self._wire.broken:
            raise peer_misbehaved(self._wire.broken)
        return True

    # ---- what the layers above add

    def _recall(self) -> None:
        """Takes back what the collector found."""

    def _pass_on_returned(self) -> None:
        """What the peer gave back and was not ours: back to its sender."""

    def _send_refusals(self) -> None:
        """Failures that found no space before."""

    def _pump_targets(self) -> None:
        """There is news at channels that are watched."""

    def _tell_targets(self) -> None:
        """No more messages come from here."""

    # ---- the end

    def _forsake(self) -> None:
        if not self._forsaken:
            self._forsaken = True
            with contextlib.suppress(PeerMisbehaved):
                self._writer.collect()
            self._writer.forsake()

    def _begin_close(self) -> None:
        """Says that nothing more is published."""
        self._recall()
        self._writer.publish()
        self._words[STATE] = STATE_CLOSING  # RELEASE: behind the last records
        self._wire.ring()

    def _finished(self) -> bool:
        """Whether the peer has read everything, or will not."""
        return (
            self._wire.hung
            or self._peer_words[STATE] != 0
            or self._writer.drained
        )

    def _hang_up(self) -> None:
        """Ends the channel as a crash would: to the peer it is gone, not closed, since it may
        wait for more. What was published is still delivered."""
        if self._dead is None:
            self._end(closed_error('the channel'))

    def _end(self, why: UkshmError) -> None:
        """Hangs up and lets go of the memory. Idempotent."""
        if self._dead is not None:
            return
        self._dead = why
        self._pop = _Raiser(why)
        self._wire.close()
        self._imports.close()
        self._forsake()
        self._pass_on_returned()
        self._tell_targets()
        self._meeting.own.close()
        self._meeting.theirs.close()
        if self._meeting.exports is not None:
            self._meeting.exports.ended(self._meeting.token)

    def __repr__(self) -> str:
        return f"<ukshm channel '{self.name}' to process {self.peer.pid}>"

    def __del__(self) -> None:
        if getattr(self, '_dead', True) is not None or not hasattr(self, '_waiting_sends'):
            return
        warn_of(f'{self!r} was never closed')
        try:
            self._hang_up()
        except Exception:  # the interpreter may be going down
            pass


class _Raiser:
    """In place of the reader of a channel that has ended."""

    def __init__(self, error: UkshmError) -> None:
        self._error = error

    def __call__(self, owner: object) -> None:
        raise self._error.with_traceback(None)


def warn_of(text: str) -> None:
    try:
        warnings.warn(text, ResourceWarning, stacklevel=3)
    except Exception:  # raised as an error by a filter, or the interpreter is going down
        pass


def _after_fork() -> None:
    # The child has neither the memory (MADV_DONTFORK) nor a say in the channel.
    for link in list(_links):
        if link._dead is None:
            link._dead = closed_error('the channel (it belongs to the parent process)')
            link._pop = _Raiser(link._dead)
            link._wire.forked()
            link._meeting.own.close()
            link._meeting.theirs.close()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)

