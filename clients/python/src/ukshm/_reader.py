"""Reading the peer's outbox: its records, and giving back what was read.

Pure: works on any memory, so that tests can lie in it. What the reader relies on (its cursors, what
is held) is its own; each word of the peer is read once, checked, and the copy used.
"""

from __future__ import annotations

from collections import deque
from typing import (
    TYPE_CHECKING,
    Callable,
    Final,
    Generic,
    TypeVar,
)

from ._errors import RemoteError, peer_misbehaved
from ._format import (
    DESCRIPTOR_BODY,
    DESCRIPTOR_RECORD_BYTES,
    FAILURE_BYTES_MAX,
    HEAD,
    LEASES_MAX,
    PAYLOAD_BYTES_MAX,
    RECORD,
    RELEASE_SLOTS,
    RELEASE_TAIL,
    RING_OFFSET,
    TAIL,
    TYPE_DESCRIPTOR,
    TYPE_FAILURE,
    TYPE_MAX,
    TYPE_PADDING,
    TYPE_REPLY,
    TYPE_REQUEST,
    U32,
    decode_failure,
)
from ._memory import Outbox
from ._message import INLINE, UNANSWERED, MessageOwner, Received

if TYPE_CHECKING:
    from ._forward import Region

M = TypeVar('M', bound=Received)

_PAYLOAD: Final = RING_OFFSET + 8


class Reader(Generic[M]):
    """Takes records out of `peer`, and says so in `own`: its head, and its release ring."""

    __slots__ = (
        '_arena',
        '_end',
        '_head',
        '_held',
        '_make',
        '_mask',
        '_memory',
        '_own_words',
        '_payload_max',
        '_read',
        '_release_tail',
        '_released',
        '_ring_bytes',
        '_slots',
        '_tail',
        '_words',
        'answers',
        'asked',
        'doomed',
        'held_chunks',
        'owes_ring',
        'regions',
    )

    def __init__(self, peer: Outbox, own: Outbox, make: Callable[..., M]) -> None:
        layout = peer.layout
        self._make = make
        self._memory = peer.memory
        self._words = peer.words
        self._own_words = own.words
        self._ring_bytes = layout.ring_bytes
        self._mask = layout.ring_bytes - 1
        self._payload_max = min(layout.ring_bytes // 8, PAYLOAD_BYTES_MAX)
        self._arena = layout.arena_offset
        self._end = layout.end
        self._slots = own.layout.release_offset // 4
        self._tail = 0  # of the peer, as seen last
        self._read = 0  # the next record
        self._head = 0  # published: everything before it is the peer's again
        self._release_tail = 0
        # Starts of the inline records that are kept, in order; and those among them that were
        # given back, but not the ones before them.
        self._held: deque[int] = deque()
        self._released: set[int] = set()
        self.held_chunks = 0
        #: Memory of others in which messages may lie, by the number that IMPORT gave it.
        self.regions: dict[int, Region] = {}
        #: Regions to forget when everything before a cursor was read.
        self.doomed: list[tuple[int, int]] = []
        #: Requests of ours without an answer, by id; False: nobody waits for it any more.
        self.asked: dict[int, bool] = {}
        self.answers: dict[int, M | RemoteError] = {}
        #: The head moved without a release: the peer has yet to be told.
        self.owes_ring = False

    @property
    def held_inline(self) -> int:
        """Inline messages that are kept: they hold up the ring behind them."""
        return len(self._held) - len(self._released)

    def pop(self, owner: MessageOwner) -> M | None:
        """The next message; None when there is none now. Raises PEER_MISBEHAVED."""
        while True:
            start = self._read
            if start == self._tail and not self.look():
                return None
            memory = self._memory
            position = start & self._mask
            length, kind, id = RECORD.unpack_from(memory, RING_OFFSET + position)
            if kind < TYPE_DESCRIPTOR:
                size = (length + 15) & ~7
                if (
                    size > (self._tail - start) & U32
                    or position + size > self._ring_bytes
                    or length > self._payload_max
                ):
                    raise peer_misbehaved(f'a record of {length} bytes at {position}')
                if kind > TYPE_MAX:
                    self._check_kind(kind, id)
                self._read = (start + size) & U32
                self._held.append(start)
                message = self._make(owner, memory, _PAYLOAD + position, length, kind, id, start)
                if kind <= TYPE_MAX or self._is_request(message):
                    return message
                continue
            size = DESCRIPTOR_RECORD_BYTES if kind == TYPE_DESCRIPTOR else length * 8
            if size == 0 or size > (self._tail - start) & U32:
                raise peer_misbehaved(f'a padding or descriptor of length {length} at {position}')
            if position + size > self._ring_bytes:
                raise peer_misbehaved('a record that crosses the end of the ring')
            if kind == TYPE_PADDING:
                self._pass(size)
                continue
            message = self._descriptor(owner, position, length, id)
            if message.type <= TYPE_MAX or self._is_request(message):
                return message

    def look(self) -> bool:
        """Loads the peer's tail; whether there are records. Raises PEER_MISBEHAVED."""
        # ACQUIRE tail, pairs with the peer's RELEASE: x86-64 keeps loads in order.
        tail = self._words[TAIL]
        if tail == self._tail:
            if self.doomed and self._read == tail:
                self._forget_regions()
            return tail != self._read
        ahead = (tail - self._head) & U32
        if tail & 7 or ahead > self._ring_bytes or ahead < (self._tail - self._head) & U32:
            raise peer_misbehaved(f'its tail went from {self._tail} to {tail}')
        self._tail = tail
        return True

    def release(self, start: int, lease: int, generation: int) -> None:
        """Gives a message back. The peer must then be rung."""
        words = self._own_words
        if lease == INLINE:
            held = self._held
            if held[0] != start:
                self._released.add(start)
                return
            held.popleft()
            released = self._released
            while released and held and held[0] in released:
                released.discard(held.popleft())
            # RELEASE head: x86-64 keeps stores in order, and loads before them.
            words[HEAD] = self._head = held[0] if held else self._read
            return
        tail = self._release_tail
        slot = self._slots + (tail % RELEASE_SLOTS) * 2
        words[slot] = lease
        words[slot + 1] = generation
        # RELEASE release tail: the slot comes before the cursor.
        self._release_tail = words[RELEASE_TAIL] = (tail + 1) & U32
        self.held_chunks -= 1

    def drop_region(self, number: int) -> None:
        """No more messages are published in this region: forget it when the last one was read."""
        if number not in self.regions:
            return
        self.look()
        self.doomed.append((self._tail, number))
        if self._read == self._tail:
            self._forget_regions()

    def _descriptor(self, owner: MessageOwner, position: int, record_length: int, id: int) -> M:
        if record_length != 24:
            raise peer_misbehaved(f'a descriptor of {record_length} bytes')
        body = DESCRIPTOR_BODY.unpack_from(self._memory, _PAYLOAD + position)
        offset, length, lease, generation, number, kind = body
        region: Region | None = None
        memory, first, end = self._memory, self._arena, self._end
        if number != 0:
            region = self.regions.get(number)
            if region is None:
                raise peer_misbehaved(f'a message in region {number}, which was never announced')
            memory, first, end = region.memory, 0, region.end
        if offset < first or offset + length > end or lease >= LEASES_MAX:
            raise peer_misbehaved(f'a message of {length} bytes at {offset} of {end}')
        if self.held_chunks >= LEASES_MAX:
            raise peer_misbehaved('more leases than there are')
        if kind > TYPE_MAX:
            self._check_kind(kind, id)
        self.held_chunks += 1
        self._pass(DESCRIPTOR_RECORD_BYTES)
        return self._make(
            owner, memory, offset, length, kind, id, 0, lease, generation, region
        )

    def _check_kind(self, kind: int, id: int) -> None:
        if kind > TYPE_FAILURE:
            raise peer_misbehaved(f'a message of the reserved type {kind:#x}')
        if kind >= TYPE_REPLY and id not in self.asked:
            raise peer_misbehaved(f'an answer with the id {id}, which was not asked')

    def _is_request(self, message: M) -> bool:
        """Marks a request; files an answer."""
        kind = message.type
        if kind < TYPE_REPLY:
            message.type = kind - TYPE_REQUEST
            message._request = UNANSWERED
            return True
        wanted = self.asked.pop(message.id)
        if kind < TYPE_FAILURE:
            message.type = kind - TYPE_REPLY
            if wanted:
                self.answers[message.id] = message
                return False
        elif wanted:
            self.answers[message.id] = decode_failure(message.bytes[:FAILURE_BYTES_MAX].tobytes())
        message.release()
        return False

    def _pass(self, size: int) -> None:
        # Such a record is released as soon as it was read, unless one before it is kept.
        self._read = (self._read + size) & U32
        if not self._held:
            self._own_words[HEAD] = self._head = self._read
            self.owes_ring = True

    def _forget_regions(self) -> None:
        for _, number in self.doomed:
            self.regions.pop(number, None)
        self.doomed.clear()
