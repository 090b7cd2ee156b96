"""Memory of a third process: mapped here because a peer forwards messages in it (`Imports`), or
announced to a peer because we forward messages in it (`Announced`)."""

from __future__ import annotations

import threading
from typing import Callable, Final

from ._errors import cannot_forward, peer_misbehaved
from ._frames import Import, Imported
from ._meeting import Origin, map_region
from ._memory import Outbox
from ._names import Access
from ._task import Task

#: Regions that one peer may have us map at a time.
IMPORTS_MAX: Final = 64


class Region:
    """An outbox of a third process, mapped read-only."""

    __slots__ = ('_outbox', 'end', 'memory', 'number', 'origin')

    def __init__(self, number: int, outbox: Outbox, origin: Origin) -> None:
        self.number = number  # with the peer that announced it
        self._outbox = outbox
        self.memory = outbox.memory
        self.end = outbox.layout.end
        self.origin = origin


class Imports:
    """Answers IMPORT. The mapping is made on a thread of its own, which also sends the answer: its
    owner may be slow or hostile, and the channel goes on meanwhile."""

    def __init__(
        self, regions: dict[int, Region], access: Access, send: Callable[[Imported], None]
    ) -> None:
        self._regions = regions
        self._access = access
        self._send = send
        self._lock = threading.Lock()
        self._pending: set[int] = set()
        self._closed = False

    def begin(self, frame: Import) -> None:
        """A peer asks us to map a region."""
        number = frame.number
        with self._lock:
            if number == 0 or number in self._regions or number in self._pending:
                raise peer_misbehaved(f'region {number} was announced twice, or is its own')
            full = len(self._regions) + len(self._pending) >= IMPORTS_MAX
            if not full:
                self._pending.add(number)
        if full:
            self._send(Imported(number, 0))
            return
        access = self._access
        Task(
            lambda: map_region(frame, access), _discard, lambda task: self._finish(number, task)
        )

    def drop(self, number: int) -> bool:
        """DROP for a region that is still being mapped; whether it was."""
        with self._lock:
            was_pending = number in self._pending
            self._pending.discard(number)
            return was_pending

    def close(self) -> None:
        """The channel has ended."""
        with self._lock:
            self._closed = True
            self._pending.clear()

    def _finish(self, number: int, task: Task[tuple[Outbox, Origin]]) -> None:
        with self._lock:
            try:
                region: Region | None = Region(number, *task.result())
            except Exception:  # whatever it was, the answer is no
                region = None
            if self._closed or number not in self._pending:
                return
            self._pending.discard(number)
            if region is not None:
                self._regions[number] = region
            self._send(Imported(number, 0 if region is None else 1))


def _discard(mapped: tuple[Outbox, Origin]) -> None:
    mapped[0].close()


class Announcement:
    """A region that was announced to a peer. `answer` is None until IMPORTED came."""

    __slots__ = ('answer', 'number', 'out')

    def __init__(self, number: int) -> None:
        self.number = number
        self.answer: bool | None = None
        #: Messages in it that the peer has not released.
        self.out = 0


class Announced:
    """Regions that were announced to one peer, by the channel and number under which we know
    them."""

    def __init__(self) -> None:
        self._by_region: dict[tuple[int, int], Announcement] = {}
        self._keys: dict[int, tuple[int, int]] = {}
        self._next = 1

    def find(self, key: tuple[int, int]) -> Announcement | None:
        """What was announced for this region, if it was not refused."""
        return self._by_region.get(key)

    def add(self, key: tuple[int, int], origin: Origin | None) -> tuple[Announcement, Import]:
        """A new announcement, and the frame to send."""
        if origin is None:
            raise cannot_forward('its sender has no listener (see the option forward_via)')
        announcement = Announcement(self._next)
        self._next += 1
        self._by_region[key] = announcement
        self._keys[announcement.number] = key
        return announcement, Import(announcement.number, *origin)

    def answered(self, frame: Imported) -> None:
        """IMPORTED has come."""
        key = self._keys.get(frame.number)
        announcement = self._by_region.get(key) if key is not None else None
        if key is None or announcement is None or announcement.answer is not None:
            raise peer_misbehaved(f'an answer for region {frame.number}, which was not asked')
        announcement.answer = frame.status == 1
        if not announcement.answer:
            self.remove(key)  # the next message may ask again

    def remove(self, key: tuple[int, int]) -> None:
        """The region is not used any more."""
        announcement = self._by_region.pop(key, None)
        if announcement is not None:
            del self._keys[announcement.number]

    def of_channel(self, serial: int) -> dict[tuple[int, int], Announcement]:
        """What was announced of one channel's regions."""
        return {key: a for key, a in self._by_region.items() if key[0] == serial}

    def by_number(self, number: int) -> tuple[tuple[int, int], Announcement] | None:
        """The announcement of this number."""
        key = self._keys.get(number)
        return None if key is None else (key, self._by_region[key])
