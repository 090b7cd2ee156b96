"""What a topic sends to whom, under both interfaces. Used under the topic's lock; what must wait is
False, and sends nothing to anybody."""

from __future__ import annotations

from typing import Final

from ._errors import UkshmError, closed_error, invalid_argument
from ._format import U32
from ._outlet import Outlet
from ._roster import Roster
from ._topic_memory import Chunk, Parcel
from ._topic_settings import TopicSettings
from ._writer import Buffer

#: Messages up to this are copied into each subscriber's ring.
_INLINE_BYTES_MAX: Final = 2048
#: A message takes at most this part of the shared memory; so do all that are kept.
_MESSAGE_SHARE: Final = 0.25
_KEPT_SHARE: Final = 0.25


class Publisher(Roster):
    """A topic, without the waiting."""

    def __init__(self, name: str, settings: TopicSettings) -> None:
        super().__init__(name, settings)
        self._inline_max = min(settings.ring_bytes // 8, _INLINE_BYTES_MAX)
        self.message_bytes_max = max(
            self._inline_max, int(settings.arena_bytes * _MESSAGE_SHARE)
        )

    def try_publish(self, view: memoryview) -> bool:
        """Sends a message to all; False where that must wait: nobody is sent anything then."""
        length = len(view)
        self.check(length)
        if length <= self._inline_max:
            return self._try_send(Parcel(self.sequence, view, None))
        chunk = self._plots.try_chunk(length)
        if chunk is None:
            return False
        try:
            parcel = Parcel(self.sequence, b'', chunk)
            if not self._can_take(parcel):
                return False
            with chunk.region.view(chunk) as target:
                target[:] = view
            return self._send(parcel)
        finally:
            chunk.drop()

    def try_lend(self, length: int) -> tuple[memoryview, Chunk | None] | None:
        """Memory for a message, and its chunk; None while there is no room."""
        self.check(length)
        if length <= self._inline_max:
            return memoryview(bytearray(length)), None
        chunk = self._plots.try_chunk(length)
        return None if chunk is None else (chunk.region.view(chunk), chunk)

    def try_publish_loan(self, view: memoryview, chunk: Chunk | None, length: int) -> bool:
        """As `try_publish`, with what was lent."""
        if chunk is None:
            return self.try_publish(view[:length])
        self.check(length)
        if chunk.region is not self._plots.current:
            # The memory was renewed meanwhile, and not everybody has the old one.
            if not self.try_publish(view[:length]):
                return False
        else:
            chunk.length = length
            if not self._try_send(Parcel(self.sequence, b'', chunk)):
                return False
        chunk.drop()
        return True

    def discard_loan(self, chunk: Chunk | None) -> None:
        """Takes memory back unpublished."""
        if chunk is not None and not self.closed:
            chunk.drop()
            self.notify()

    def forget_loan(self, chunk: Chunk | None) -> None:
        """A loan that the collector found: its memory is taken back at the next news."""
        if chunk is not None and not self.closed:
            self.forgotten.append(chunk)
            self.poke()

    def check(self, length: int) -> None:
        """Raises CLOSED, MESSAGE_TOO_LONG."""
        if self.closed:
            raise closed_error(f"the topic '{self.name}'")
        if length < 0:
            raise invalid_argument('length_bytes', length, '0 or more')
        if length > self.message_bytes_max:
            raise UkshmError(
                'ERR_UKSHM_MESSAGE_TOO_LONG',
                f"a message of {length} bytes; the topic '{self.name}' takes up to "
                f'{self.message_bytes_max}, a quarter of arena_bytes: ask for more in open_topic()',
            )

    def _try_send(self, parcel: Parcel) -> bool:
        return self._can_take(parcel) and self._send(parcel)

    def _can_take(self, parcel: Parcel) -> bool:
        """Whether nobody blocks a message."""
        for outlet in self._active:
            if outlet.wishes.slow != 'block':
                continue
            try:
                if not outlet.has_room(parcel):
                    return False
            except UkshmError:
                self._failed.append(outlet)
        return True

    def _send(self, parcel: Parcel) -> bool:
        self.sequence = (parcel.sequence + 1) & U32
        if self._settings.keep:
            self.kept.push(parcel, self._settings.arena_bytes * _KEPT_SHARE)
        for outlet in self._active:
            try:
                if not outlet.offer(parcel):
                    self._late(outlet, parcel)
            except UkshmError:
                self._failed.append(outlet)
        if self._failed:
            self._sweep()
        return True

    def _late(self, outlet: Outlet, parcel: Parcel) -> None:
        slow = outlet.wishes.slow
        if slow == 'disconnect':
            self.disconnect(outlet)
        elif slow == 'drop-newest':
            outlet.dropped += 1
        else:
            outlet.late(parcel)


def as_view(data: Buffer) -> memoryview:
    """The bytes of something bytes-like."""
    view = memoryview(data)
    return view if view.format == 'B' and view.ndim == 1 else view.cast('B')
