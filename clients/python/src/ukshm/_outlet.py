"""One subscriber, as its publisher sees it: what it was sent, what it has released, what waits.

JOINING (its request is awaited) -> ENTERING (it maps the topic's memory) -> ACTIVE -> LEAVING (it
was told the last word, and may still read) -> GONE; and from anywhere to GONE. Prohibited: anything
sent to one that is LEAVING.

A small message is a record in the subscriber's ring, a larger one a descriptor that points into the
topic's memory. Either counts until it is released. `depth` bounds their number, and a share of what
is free bounds the bytes: however many subscribers stop, each takes a part of what the ones before it
have left.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ._channel import Channel
from ._errors import UkshmError
from ._forward import Announcement
from ._frames import Drop
from ._joining import TYPE_DATA, TYPE_END, TYPE_JOIN, Wishes, encode_note
from ._topic_memory import Parcel, Queue, Region
from ._writer import Forwarded

JOINING: Final = 0
ENTERING: Final = 1
ACTIVE: Final = 2
LEAVING: Final = 3
GONE: Final = 4

#: Of what is free: how much one subscriber may hold.
SHARE: Final = 0.25
#: Large messages that it may hold in any case: one that it reads, one that comes.
_LENT_MIN: Final = 2
#: Room in the ring that is kept for the last word.
_RESERVED_BYTES: Final = 192
_DESCRIPTOR_BYTES: Final = 64


class Berth:
    """A region as a subscriber has it mapped, or is about to; takes back what lies there."""

    __slots__ = ('announcement', 'bytes', 'outlet', 'region')

    def __init__(self, outlet: Outlet, region: Region, announcement: Announcement) -> None:
        self.outlet = outlet
        self.region = region
        self.announcement = announcement
        #: Of what the subscriber holds.
        self.bytes = 0

    def _release(self, start: int, lease: int, generation: int) -> None:
        chunk = self.region.chunks[lease]
        self.bytes -= chunk.size
        self.outlet.released += 1
        chunk.drop()


class Outlet:
    """Used under the lock of its topic."""

    def __init__(self, channel: Channel, deadline: float) -> None:
        self.channel = channel
        self.state = JOINING
        #: When it must have joined, or left.
        self.deadline = deadline
        self.wishes = Wishes('drop-newest', 1)
        #: Messages that went out, and that were lost to this subscriber.
        self.sent = 0
        self.dropped = 0
        #: Counts what came back; and what it was when the topic's memory was last exhausted.
        self.released = 0
        self.released_at_stall = 0
        self.queue = Queue(1)
        self.berths: dict[Region, Berth] = {}
        # Where in the ring each small message ends that was not released.
        self._ends: deque[int] = deque()

    @property
    def outstanding(self) -> int:
        """Messages that it has not released."""
        return self.channel._writer.leased + len(self._ends)

    def held_of(self, region: Region) -> int:
        """Bytes of a region that it holds."""
        berth = self.berths.get(region)
        return 0 if berth is None else berth.bytes

    def enter(self, region: Region) -> None:
        """Has the subscriber map a region."""
        announced, frame = self.channel._announced.add((0, region.serial), region.origin)
        self.berths[region] = Berth(self, region, announced)
        self.channel._wire.send_frame(frame)

    def entered(self, region: Region) -> bool | None:
        """Whether it has mapped the region; None: it has not answered."""
        berth = self.berths.get(region)
        return None if berth is None else berth.announcement.answer

    def forget(self, region: Region) -> None:
        """Nothing of a region is held any more: the subscriber may unmap it."""
        berth = self.berths.pop(region, None)
        if berth is not None and self.state < GONE:
            self.channel._announced.remove((0, region.serial))
            self.channel._wire.send_frame(Drop(berth.announcement.number))

    def activate(self, wishes: Wishes, sequence: int, kept: list[Parcel]) -> None:
        """It is a subscriber: it gets the answer, and what was kept."""
        self.state = ACTIVE
        self.channel.try_send(encode_note(sequence=sequence, kept=len(kept)), TYPE_JOIN)
        for parcel in kept:
            if not self.offer(parcel):
                self.late(parcel)

    def hear(self) -> bool:
        """Reads what the subscriber says and releases; False: it is gone."""
        try:
            self.channel._pump(0)
        except UkshmError:
            return False
        self._refresh_ends()
        return not self.channel._ending()

    def refresh(self) -> bool:
        """Reads what came back; whether anything did. Raises why the channel ended."""
        before = self.released
        channel = self.channel
        channel._writer.collect()
        channel._pass_on_returned()
        self._refresh_ends()
        return self.released != before

    def has_room(self, parcel: Parcel) -> bool:
        """Whether it can take this message now. Raises why the channel ended."""
        return self.flush() and self._finds_room(parcel)

    def offer(self, parcel: Parcel) -> bool:
        """Sends a message behind those that wait; False: no room. Raises why the channel ended."""
        return self.flush() and self._send(parcel)

    def late(self, parcel: Parcel) -> None:
        """There is no room for a message: it waits here, or pushes another one out."""
        region = None if parcel.chunk is None else parcel.chunk.region
        allowance = 0 if region is None else region.free_bytes * SHARE
        self.dropped += self.queue.push(parcel, allowance)

    def flush(self) -> bool:
        """Sends what waits, as far as there is room; whether nothing waits any more."""
        parcels = self.queue.parcels
        while parcels:
            if not self._send(parcels[0]):
                return False
            self.queue.shift()
        return True

    def leave(self, deadline: float, **last_word: object) -> None:
        """Says why there is no more; it may still read and release. Raises why the channel
        ended."""
        self.state = LEAVING
        self.deadline = deadline
        self.dropped += self.queue.clear()
        self.channel.try_send(encode_note(**last_word), TYPE_END)
        self.channel._begin_close()

    def end(self) -> None:
        """It is gone, or given up: what it was lent is back."""
        self.state = GONE
        channel = self.channel
        if not channel.closed:
            if not channel._ending():
                channel._begin_close()
            channel._hang_up()
        self.dropped += self.queue.clear()
        self.berths.clear()

    def _finds_room(self, parcel: Parcel) -> bool:
        if self._may_take(parcel):
            return True
        return self.refresh() and self._may_take(parcel)

    def _may_take(self, parcel: Parcel) -> bool:
        channel = self.channel
        if channel._ending():
            raise channel._why_ended()
        writer = channel._writer
        lent = writer.leased
        if lent + len(self._ends) >= self.wishes.depth:
            return False
        free = writer.layout.ring_bytes - writer.used_bytes - _RESERVED_BYTES
        chunk = parcel.chunk
        if chunk is None:
            # One that does not fit before the ring's end takes up to its own length of padding.
            return free >= 2 * (len(parcel.data) + 8)
        berth = self.berths.get(chunk.region)
        if free < _DESCRIPTOR_BYTES or berth is None or not berth.announcement.answer:
            return False
        return lent < _LENT_MIN or berth.bytes + chunk.size <= chunk.region.free_bytes * SHARE

    def _send(self, parcel: Parcel) -> bool:
        if not self._finds_room(parcel):
            return False
        channel = self.channel
        writer = channel._writer
        chunk = parcel.chunk
        if chunk is None:
            if not writer.write(parcel.data, len(parcel.data), TYPE_DATA, parcel.sequence):
                return False
            self._ends.append(writer.tail)
        else:
            berth = self.berths[chunk.region]
            what = Forwarded(berth, chunk.offset, 0, berth.announcement.number)
            place = (chunk.region.position(chunk), chunk.length, TYPE_DATA, parcel.sequence)
            if not writer.forward(what, *place):
                return False
            chunk.hold()
            berth.bytes += chunk.size
        writer.publish()
        channel._wire.ring()
        self.sent += 1
        return True

    def _refresh_ends(self) -> None:
        writer, ends = self.channel._writer, self._ends
        unread = writer.used_bytes
        while ends and (writer.tail - ends[0]) & 0xFFFFFFFF >= unread:
            ends.popleft()
            self.released += 1
