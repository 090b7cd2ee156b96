"""A topic's shared memory, and the messages in it: each is written once, lent to every subscriber,
and freed with the last hold on it."""

from __future__ import annotations

import os
from collections import deque
from typing import Union

from ._arena import Arena, chunk_bytes
from ._errors import invalid_argument
from ._exports import Exports
from ._format import RING_BYTES_MIN, layout_of
from ._meeting import Origin
from ._memory import OWNER_SEALS, add_seals, create_memfd, map_outbox

_Data = Union[bytes, memoryview]


class Chunk:
    """A piece of a topic's memory, with the message in it."""

    __slots__ = ('_holds', 'length', 'offset', 'region', 'size')

    def __init__(self, region: Region, offset: int, size: int, length: int) -> None:
        self.region = region
        self.offset = offset  # in the arena
        self.size = size
        self.length = length
        self._holds = 1

    def hold(self) -> None:
        """One more needs it."""
        self._holds += 1

    def drop(self) -> None:
        """Gives up one hold; with the last the memory is free."""
        self._holds -= 1
        if self._holds == 0:
            self.region.free(self)


class Region:
    """A memory that all subscribers map, laid out as an outbox whose rings stay unused."""

    __slots__ = ('_arena', '_arena_bytes', '_exports', '_outbox', 'chunks', 'origin', 'serial')

    def __init__(self, exports: Exports, arena_bytes: int, serial: int) -> None:
        layout = layout_of(RING_BYTES_MIN, arena_bytes)
        token = os.urandom(8)
        address = exports.address
        if not address.sockaddr:
            raise invalid_argument('name', address.name, 'a path that is no longer when absolute')
        fd = create_memfd(layout)
        try:
            self._outbox = map_outbox(fd, layout, True)
            add_seals(fd, OWNER_SEALS)
            exports.add(token, fd, layout, False)
        finally:
            os.close(fd)
        self._exports = exports
        self._arena = Arena(arena_bytes)
        self._arena_bytes = arena_bytes
        #: Where subscribers import it; and its number among those of the topic.
        self.origin = Origin(token, os.geteuid(), address.sockaddr)
        self.serial = serial
        #: What is held of it, by offset in the arena.
        self.chunks: dict[int, Chunk] = {}

    @property
    def free_bytes(self) -> int:
        """Bytes of the arena that nobody holds."""
        return self._arena_bytes - self._arena.used_bytes

    @property
    def shared_bytes(self) -> int:
        """Bytes of the whole memory."""
        return self._outbox.layout.end

    def try_chunk(self, length: int) -> Chunk | None:
        """A chunk with one hold on it; None while no run of that length is free."""
        size = chunk_bytes(length)
        offset = self._arena.allocate(size)
        if offset is None:
            return None
        chunk = self.chunks[offset] = Chunk(self, offset, size, length)
        return chunk

    def free(self, chunk: Chunk) -> None:
        """Nobody holds the chunk any more."""
        del self.chunks[chunk.offset]
        self._arena.free(chunk.offset, chunk.size)

    def position(self, chunk: Chunk) -> int:
        """Where the chunk lies in the region."""
        return self._outbox.layout.arena_offset + chunk.offset

    def view(self, chunk: Chunk) -> memoryview:
        """The chunk's bytes, writable."""
        at = self.position(chunk)
        return self._outbox.memory[at : at + chunk.length]

    def close(self) -> None:
        """Nobody can map it any more; who has, keeps it as it is."""
        self._exports.ended(self.origin.token)
        self._outbox.close()


class Parcel:
    """A published message: small, with bytes of its own, or in a chunk."""

    __slots__ = ('chunk', 'data', 'sequence')

    def __init__(self, sequence: int, data: _Data, chunk: Chunk | None) -> None:
        self.sequence = sequence
        self.data = data
        self.chunk = chunk

    def keep(self) -> None:
        """It outlasts the call that published it."""
        if not isinstance(self.data, bytes):
            self.data = bytes(self.data)


class Queue:
    """Parcels that wait for one subscriber, or are kept for those who come late: bounded, and it
    gives up its old end."""

    __slots__ = ('_chunk_bytes', '_count_max', 'parcels')

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._chunk_bytes = 0
        self.parcels: deque[Parcel] = deque()

    def push(self, parcel: Parcel, chunk_bytes_max: float) -> int:
        """Puts a parcel behind the others; how many of the oldest were given up for it.

        `chunk_bytes_max`: that the chunks of all may take together; one is always allowed.
        """
        parcel.keep()
        parcels = self.parcels
        parcels.append(parcel)
        chunk = parcel.chunk
        if chunk is not None:
            chunk.hold()
            self._chunk_bytes += chunk.size
        dropped = 0
        while len(parcels) > self._count_max or (
            chunk is not None and len(parcels) > 1 and self._chunk_bytes > chunk_bytes_max
        ):
            self.shift()
            dropped += 1
        return dropped

    def shift(self) -> None:
        """Takes the oldest out."""
        chunk = self.parcels.popleft().chunk
        if chunk is not None:
            self._chunk_bytes -= chunk.size
            chunk.drop()

    def move(self, old: Region, fresh: Region) -> None:
        """Moves what lies in `old` to `fresh`, as far as it fits there; the rest is given up."""
        for _ in range(len(self.parcels)):
            parcel = self.parcels.popleft()
            chunk = parcel.chunk
            if chunk is not None and chunk.region is old:
                self._chunk_bytes -= chunk.size
                moved = fresh.try_chunk(chunk.length)
                if moved is not None:
                    fresh.view(moved)[:] = old.view(chunk)
                    self._chunk_bytes += moved.size
                    self.parcels.append(Parcel(parcel.sequence, b'', moved))
                chunk.drop()
            else:
                self.parcels.append(parcel)

    def clear(self) -> int:
        """Gives up all; how many there were."""
        count = len(self.parcels)
        while self.parcels:
            self.shift()
        return count
