"""What a topic is asked to be, and what it tells of itself."""

from __future__ import annotations

from typing import NamedTuple

from ._errors import invalid_argument
from ._format import U32
from ._joining import DEPTH_MAX
from ._names import Access, Credentials, check_access, check_platform
from ._options import check_arena, check_ring


class TopicSettings(NamedTuple):
    """How a topic is to be."""

    access: Access
    arena_bytes: int
    ring_bytes: int
    max_subscribers: int
    keep: int
    may_block: bool
    patience_seconds: float
    first_sequence: int

    def check(self) -> TopicSettings:
        """Raises UNSUPPORTED, INVALID_ARGUMENT."""
        check_platform()
        check_ring('ring_bytes', self.ring_bytes)
        check_arena('arena_bytes', self.arena_bytes)
        for name, least, most in (
            ('max_subscribers', 1, 65536),
            ('keep', 0, DEPTH_MAX),
            ('first_sequence', 0, U32),
        ):
            if not least <= getattr(self, name) <= most:
                raise invalid_argument(name, getattr(self, name), f'{least} to {most}')
        return self._replace(access=check_access('access', self.access))


class SubscriberStats(NamedTuple):
    """One subscriber, as its publisher sees it."""

    peer: Credentials
    slow: str
    depth: int
    #: Messages that it was sent and has not released, and that wait here for it.
    outstanding: int
    queued: int
    #: Messages that it was sent, and that it lost.
    sent: int
    dropped: int


class TopicStats(NamedTuple):
    """How a topic's memory is used now."""

    #: Bytes of the memory that the subscribers share, and of those that are free.
    shared_bytes: int
    free_bytes: int
    #: Messages that late subscribers would get.
    kept: int
