"""Writing our outbox: records, chunks and leases; and collecting what the peer gave back.

Pure: works on any memory, so that tests can lie in it. The allocator, the table of leases and the
cursors are private; the peer's words are read once and checked.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Union

from ._arena import Arena, chunk_bytes
from ._errors import UkshmError, peer_misbehaved
from ._format import (
    DESCRIPTOR_BODY,
    DESCRIPTOR_RECORD_BYTES,
    HEAD,
    LEASES_MAX,
    RECORD,
    RELEASE_SLOTS,
    RELEASE_TAIL,
    RING_OFFSET,
    TAIL,
    TYPE_DESCRIPTOR,
    TYPE_PADDING,
    U32,
)
from ._memory import Outbox
from ._message import Releaser

#: Chunks in the peer's hands: about what the caches hold. Two chunks are always allowed.
FLIGHT_BYTES_MAX = 2 * 1024 * 1024

Buffer = Union[bytes, bytearray, memoryview]


class Forwarded(NamedTuple):
    """A lease of memory that is not ours: what its release is to release in turn."""

    source: Releaser
    lease: int
    generation: int
    #: The region's number with us.
    number: int


class Writer:
    """Writes records into `own`; reads the head and the release ring of `peer`."""

    __slots__ = (
        '_collected',
        '_flight_bytes',
        '_free_leases',
        '_generations',
        '_head',
        '_inline_loan_bytes',
        '_leases',
        '_mask',
        '_memory',
        '_peer_slots',
        '_peer_words',
        '_published',
        '_ring_bytes',
        '_tail',
        '_words',
        'arena',
        'chunks_lent',
        'inline_bytes_max',
        'layout',
        'leased',
        'open_chunk_loans',
        'returned',
    )

    def __init__(self, own: Outbox, peer: Outbox) -> None:
        layout = own.layout
        self.layout = layout
        self.inline_bytes_max = layout.inline_bytes_max
        self._memory = own.memory
        self._words = own.words
        self._peer_words = peer.words
        self._peer_slots = peer.layout.release_offset // 4
        self._ring_bytes = layout.ring_bytes
        self._mask = layout.ring_bytes - 1
        self._tail = 0  # where the next record goes
        self._published = 0
        self._head = 0  # of the peer, as seen last
        self._collected = 0  # slots of the peer's release ring
        self.arena = Arena(layout.arena_bytes)
        # By lease number: (offset, bytes) of our arena, or what was forwarded.
        self._leases: list[None | tuple[int, int] | Forwarded] = []
        self._generations: list[int] = []
        self._free_leases: deque[int] = deque()
        self._flight_bytes = 0
        self.leased = 0
        self.chunks_lent = 0
        self.open_chunk_loans = 0
        self._inline_loan_bytes = 0  # of the ring, for the open inline loan
        #: Forwarded messages that came back, for the channel to pass on.
        self.returned: list[Forwarded] = []

    @property
    def used_bytes(self) -> int:
        """Bytes of the ring that the peer has not released."""
        return (self._tail - self._head) & U32

    @property
    def tail(self) -> int:
        """Where the last record ends."""
        return self._tail

    @property
    def drained(self) -> bool:
        """Whether everything was read and given back."""
        return self._tail == self._head and self.leased == 0

    def write(self, data: Buffer, length: int, type: int, id: int) -> bool:
        """Copies an inline message into the ring; False when it is full."""
        if self._inline_loan_bytes:
            raise _loan_open()
        size = (length + 15) & ~7
        at = self._room(size)
        if at < 0:
            return False
        memory = self._memory
        RECORD.pack_into(memory, at, length, type, id)
        at += 8
        memory[at : at + length] = data
        self._tail = (self._tail + size) & U32
        return True

    def publish(self) -> bool:
        """Lets the peer see what was written; whether there was anything. Then ring."""
        if self._published == self._tail:
            return False
        # RELEASE tail, pairs with the peer's ACQUIRE: x86-64 keeps stores in order, so the
        # records come before the cursor.
        self._words[TAIL] = self._published = self._tail
        return True

    def lend_inline(self, length: int) -> memoryview | None:
        """Space in the ring for one open loan, or None."""
        if self._inline_loan_bytes:
            raise _loan_open()
        size = (length + 15) & ~7
        at = self._room(size)
        if at < 0:
            return None
        self._inline_loan_bytes = size
        return self._memory[at + 8 : at + 8 + length]

    def send_inline(self, length: int, type: int, id: int) -> None:
        """Sends the open inline loan, or the beginning of it."""
        self._inline_loan_bytes = 0
        at = RING_OFFSET + (self._tail & self._mask)
        RECORD.pack_into(self._memory, at, length, type, id)
        self._tail = (self._tail + ((length + 15) & ~7)) & U32

    def discard_inline(self) -> None:
        """Takes back the open inline loan."""
        self._inline_loan_bytes = 0

    def lend_chunk(self, length: int) -> tuple[int, int] | None:
        """A chunk (offset in the arena, bytes), a lease and space for its record; or None."""
        size = chunk_bytes(length)
        if not self._may_lend(size) and not (self.collect() and self._may_lend(size)):
            return None
        offset = self.arena.allocate(size)
        if offset is None:
            self.collect()
            offset = self.arena.allocate(size)
            if offset is None:
                return None
        self.open_chunk_loans += 1
        return (offset, size)

    def chunk_view(self, offset: int, length: int) -> memoryview:
        """The memory of a chunk."""
        at = self.layout.arena_offset + offset
        return self._memory[at : at + length]

    def send_chunk(self, chunk: tuple[int, int], length: int, type: int, id: int) -> None:
        """Sends a chunk that was lent here; its space in the ring was kept free."""
        if self._inline_loan_bytes:
            raise _loan_open()
        self.open_chunk_loans -= 1
        self._flight_bytes += chunk[1]
        self.chunks_lent += 1
        offset = self.layout.arena_offset + chunk[0]
        if not self._write_descriptor(chunk, offset, length, 0, type, id):
            raise AssertionError('no space was kept for the record of a chunk')

    def discard_chunk(self, chunk: tuple[int, int]) -> None:
        """Takes back a chunk that was not sent."""
        self.open_chunk_loans -= 1
        self.arena.free(*chunk)

    def forward(
        self, what: Forwarded, offset: int, length: int, type: int, id: int
    ) -> bool:
        """Sends a descriptor of memory that is not ours; False when there is no space."""
        if self._inline_loan_bytes:
            raise _loan_open()
        if self.leased + self.open_chunk_loans >= LEASES_MAX:
            self.collect()
            if self.leased + self.open_chunk_loans >= LEASES_MAX:
                return False
        return self._write_descriptor(what, offset, length, what.number, type, id)

    def collect(self) -> bool:
        """Takes what the peer released; whether there was anything. Raises PEER_MISBEHAVED."""
        words = self._peer_words
        # ACQUIRE head and release tail: what lies before them, the peer reads no more.
        head = words[HEAD]
        seen = self._head
        news = head != seen
        if news:
            if head & 7 or (head - seen) & U32 > (self._published - seen) & U32:
                raise peer_misbehaved(f'its head went from {seen} to {head}')
            self._head = head
        tail = words[RELEASE_TAIL]
        if tail == self._collected:
            return news
        count = (tail - self._collected) & U32
        if count > self.leased:
            raise peer_misbehaved(f'{count} releases of {self.leased} leases')
        for _ in range(count):
            slot = self._peer_slots + (self._collected % RELEASE_SLOTS) * 2
            self._take_back(words[slot], words[slot + 1])
            self._collected = (self._collected + 1) & U32
        return True

    def forsake(self) -> None:
        """The peer is gone: what it held is ours again, or its sender's."""
        for number, lease in enumerate(self._leases):
            if lease is not None:
                self._take_back(number, self._generations[number])

    def _take_back(self, number: int, generation: int) -> None:
        lease = self._leases[number] if number < len(self._leases) else None
        if lease is None or self._generations[number] != generation:
            raise peer_misbehaved(f'a release of lease {number}, generation {generation}')
        self._leases[number] = None
        self._generations[number] = (generation + 1) & U32
        self._free_leases.append(number)
        self.leased -= 1
        if isinstance(lease, Forwarded):
            self.returned.append(lease)
        else:
            self._flight_bytes -= lease[1]
            self.chunks_lent -= 1
            self.arena.free(*lease)

    def _may_lend(self, size: int) -> bool:
        if self.leased + self.open_chunk_loans >= LEASES_MAX:
            return False
        if self.chunks_lent >= 2 and self._flight_bytes + size > FLIGHT_BYTES_MAX:
            return False
        inline = self._inline_loan_bytes
        kept = self._kept_bytes((self._tail + inline) & self._mask, self.open_chunk_loans + 1)
        return self.used_bytes + inline + kept <= self._ring_bytes

    def _kept_bytes(self, position: int, loans: int) -> int:
        # What the records of so many chunks take from this position on, with the padding if they
        # go round the ring's end. Kept free, so that sending a loan never has to wait.
        left = self._ring_bytes - position
        fitting = left // DESCRIPTOR_RECORD_BYTES
        kept = loans * DESCRIPTOR_RECORD_BYTES
        return kept + left % DESCRIPTOR_RECORD_BYTES if loans > fitting else kept

    def _room(self, size: int) -> int:
        """Where in the memory a record of this size goes now, padding before it written; or -1."""
        position = self._tail & self._mask
        left = self._ring_bytes - position
        padding = left if size > left else 0
        need = padding + size
        if self.open_chunk_loans:
            after = size if padding else position + size
            need += self._kept_bytes(after & self._mask, self.open_chunk_loans)
        if ((self._tail - self._head) & U32) + need > self._ring_bytes:
            self.collect()
            if ((self._tail - self._head) & U32) + need > self._ring_bytes:
                return -1
        if padding:
            RECORD.pack_into(self._memory, RING_OFFSET + position, padding // 8, TYPE_PADDING, 0)
            self._tail = (self._tail + padding) & U32
            return RING_OFFSET
        return RING_OFFSET + position

    def _write_descriptor(
        self,
        lease: tuple[int, int] | Forwarded,
        offset: int,
        length: int,
        region: int,
        type: int,
        id: int,
    ) -> bool:
        at = self._room(DESCRIPTOR_RECORD_BYTES)
        if at < 0:
            return False
        if self._free_leases:
            number = self._free_leases.popleft()
        else:
            number = len(self._leases)
            self._leases.append(None)
            self._generations.append(0)
        self._leases[number] = lease
        self.leased += 1
        generation = self._generations[number]
        RECORD.pack_into(self._memory, at, 24, TYPE_DESCRIPTOR, id)
        DESCRIPTOR_BODY.pack_into(
            self._memory, at + 8, offset, length, number, generation, region, type
        )
        self._tail = (self._tail + DESCRIPTOR_RECORD_BYTES) & U32
        return True


def _loan_open() -> UkshmError:
    return UkshmError(
        'ERR_UKSHM_LOAN_OPEN',
        'a small loan of this channel is open: send() or discard() it first',
    )
