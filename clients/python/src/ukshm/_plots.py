"""The memory of a topic over time: one region, and a fresh one when that is exhausted for too long.

A chunk is never used again while a living subscriber may look at it. So when the region stays
exhausted, those that hold it up are disconnected, and the topic goes on in another region: what
they look at stays as it is, in a memory that from then on is theirs alone.

usable -> stalled (no room) -> usable (room came back)
stalled -> renewing (no room for the patience) -> usable, in a fresh region
Prohibited: a second renewal while one is under way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ._errors import UkshmError
from ._exports import Exports
from ._topic_memory import Chunk, Region

if TYPE_CHECKING:
    from ._roster import Roster

#: How long the topic waits for subscribers to map a fresh region.
_ENTER_SECONDS: Final = 0.2
NEVER: Final = float('inf')


class Plots:
    """Used under the topic's lock."""

    def __init__(
        self, exports: Exports, arena_bytes: int, patience_seconds: float, host: Roster
    ) -> None:
        self._exports = exports
        self._arena_bytes = arena_bytes
        self._patience = patience_seconds
        self._host = host
        self._count = 1
        self.current = Region(exports, arena_bytes, 1)
        self._retired: set[Region] = set()
        #: When `attend` has something to do.
        self.deadline = NEVER
        # The length that did not fit; 0: everything did.
        self._stalled = 0
        self._renewing = False

    @property
    def shared_bytes(self) -> int:
        """Bytes of all regions."""
        return self.current.shared_bytes * (1 + len(self._retired))

    def try_chunk(self, length: int) -> Chunk | None:
        """A chunk with one hold on it; None while there is no room."""
        if self._renewing:
            return None
        chunk = self.current.try_chunk(length)
        if chunk is None and self._host.collect():
            chunk = self.current.try_chunk(length)
        if chunk is None:
            self._stall(length)
        elif self._stalled:
            self._usable()
        return chunk

    def attend(self, now: float) -> None:
        """What the topic's thread does for the memory."""
        for region in [one for one in self._retired if not one.chunks]:
            self._retired.discard(region)
            for outlet in self._host.active:
                outlet.forget(region)
            region.close()
        if self._renewing:
            current = self.current
            if now >= self.deadline or all(
                outlet.entered(current) is not None for outlet in self._host.active
            ):
                self._renewing = False
                self._usable()
                self._host.notify()
        elif now >= self.deadline:
            self._host.collect()
            chunk = self.current.try_chunk(self._stalled)
            if chunk is None and self._renew(now):
                return
            if chunk is not None:
                chunk.drop()
            self._usable()
            self._host.notify()

    def close(self) -> None:
        """The topic is over."""
        for region in (self.current, *self._retired):
            region.close()

    def _stall(self, length: int) -> None:
        before = self._stalled
        self._stalled = max(before, length)
        if before:
            return
        # From now on it counts who releases something.
        for outlet in self._host.holders:
            outlet.released_at_stall = outlet.released
        self.deadline = time.monotonic() + self._patience
        self._host.poke()

    def _usable(self) -> None:
        self._stalled = 0
        self.deadline = NEVER

    def _renew(self, now: float) -> bool:
        try:
            fresh = Region(self._exports, self._arena_bytes, self._count + 1)
        except UkshmError:
            return False  # no memory for another one: whoever waits stalls again
        if not self._expel():
            # The program's own loans are all that is in the way: it is they that are waited for.
            fresh.close()
            return False
        old, self.current = self.current, fresh
        self._count += 1
        self._retired.add(old)
        self._host.kept.move(old, fresh)
        for outlet in self._host.active:
            outlet.enter(fresh)
        self._renewing = True
        self.deadline = now + _ENTER_SECONDS
        return True

    def _expel(self) -> bool:
        """Disconnects those to blame; False: nobody is."""
        outlets, current = self._host.holders, self.current
        holding = [one for one in outlets if one.held_of(current) > 0]
        if not holding:
            return False
        old = [one for one in outlets if any(one.held_of(each) > 0 for each in self._retired)]
        blamed = [one for one in holding if one.released == one.released_at_stall]
        if not blamed and not old:
            blamed = [max(holding, key=lambda one: one.held_of(current))]
        for outlet in {*blamed, *old}:
            self._host.disconnect(outlet)
            self._host.cut(outlet)
        return True
