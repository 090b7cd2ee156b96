"""Which bytes of an arena are free: private to its owner, in pages of 4096 bytes."""

from __future__ import annotations

from collections import deque
from typing import Final

PAGE_BYTES: Final = 4096


def chunk_bytes(length: int) -> int:
    """What a chunk for `length` bytes takes."""
    return max(PAGE_BYTES, (length + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1))


class Arena:
    """First fit, and free neighbours become one.

    Chunks that come back are first kept by size, and lent again in the order in which they came:
    programs send the same sizes again and again, and the oldest has long left the peer's cache.
    """

    __slots__ = ('_free', '_returned', 'used_bytes')

    def __init__(self, size: int) -> None:
        # (offset, bytes) by offset, no two of them adjacent.
        self._free: list[tuple[int, int]] = [(0, size)] if size else []
        self._returned: dict[int, deque[int]] = {}
        self.used_bytes = 0

    def allocate(self, size: int) -> int | None:
        """The offset of `size` bytes, a positive multiple of `PAGE_BYTES`; None when full."""
        returned = self._returned.get(size)
        offset = returned.popleft() if returned else self._first_fit(size)
        if offset is None and self._returned:
            self._merge()
            offset = self._first_fit(size)
        if offset is not None:
            self.used_bytes += size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Takes back what `allocate(size)` returned."""
        self.used_bytes -= size
        returned = self._returned.get(size)
        if returned is None:
            returned = self._returned[size] = deque()
        returned.append(offset)

    def _first_fit(self, size: int) -> int | None:
        for index, (offset, length) in enumerate(self._free):
            if length > size:
                self._free[index] = (offset + size, length - size)
                return offset
            if length == size:
                del self._free[index]
                return offset
        return None

    def _merge(self) -> None:
        pieces = list(self._free)
        for size, offsets in self._returned.items():
            pieces.extend((offset, size) for offset in offsets)
        self._returned.clear()
        merged: list[tuple[int, int]] = []
        for offset, size in sorted(pieces):
            if merged and merged[-1][0] + merged[-1][1] == offset:
                offset, size = merged[-1][0], merged.pop()[1] + size
            merged.append((offset, size))
        self._free = merged
